"""A check of the host on the target of a switch. It runs on a thread of its own, because nothing can interrupt it.

A switch whose time is over goes on without the check. The check keeps its reader, and its generation open, until it
returns; then its answer counts for nothing.
"""

from __future__ import annotations

import logging
import threading

from shadowswitch.actors.build.validator import HostCheck
from shadowswitch.actors.kit.host_answer import reasons_of
from shadowswitch.actors.kit.reply import Reply
from shadowswitch.model.errors import EngineClosed, InvalidConfig, Timeout
from shadowswitch.storage.backends.protocol import IndexReader
from shadowswitch.storage.clock import Clock
from shadowswitch.storage.generations.generation import Generation
from shadowswitch.storage.shortages import shortage, shortages

logger = logging.getLogger("shadowswitch")


def problems_of(name: str, check: HostCheck, generation: Generation, clock: Clock, deadline: float) -> list[str]:
    """The problems that a check finds in a standby generation. Its exception, or an answer that is none, is one.

    Raises Timeout when it has not returned at the (monotonic) deadline, ResourceExhausted when it lacked a resource.
    """
    if clock.monotonic() >= deadline:
        raise Timeout(f"no time was left for the validator {name}", operation="validate")
    reply: Reply[list[str]] = Reply()
    reader = generation.take_reader()
    try:
        with shortages("validate"):
            threading.Thread(
                target=_ask, args=(check, generation, reader, reply), name=f"shadowswitch-check-{name}", daemon=True
            ).start()
    except BaseException:
        generation.give_reader(reader)
        raise
    return answer_of(name, reply, deadline - clock.monotonic())


def answer_of(name: str, reply: Reply[list[str]], left_s: float) -> list[str]:
    """The problems that a check on a thread of its own replies, within so many seconds. Raises as `problems_of`."""
    if not reply.wait(left_s):
        logger.warning("validator %s has not returned in time; its answer will count for nothing", name)
        raise Timeout(f"the validator {name} has not returned", operation="validate")
    try:
        return reply.result()
    except InvalidConfig as error:  # the answer, or a call that the validator made
        return [str(error)]
    except Exception as error:
        lack = shortage(error, "validate")
        if lack is not None:
            raise lack from error
        logger.exception("validator %s failed", name)
        return [f"it failed: {error!r}"]


def _ask(check: HostCheck, generation: Generation, reader: IndexReader, reply: Reply[list[str]]) -> None:
    try:
        with generation.kept() as is_open:
            if not is_open:
                raise EngineClosed("the generation was closed before it could be checked", operation="validate")
            reply.set_result(reasons_of("the validator", check(reader)))
    except BaseException as error:  # it is raised again on the thread that waits
        reply.set_exception(error)
    finally:
        generation.give_reader(reader)
