"""The base of all actors, and their addresses.

A message is a frozen struct with one handler. It stands in the module of the actor that receives it; a message of
several receivers stands in `actors.kit.signals`. A message with an answer carries a `Reply`. The receiver claims the
reply with `set_running_or_notify_cancel` before anything irrevocable. So a caller whose deadline passes and whose
`cancel()` succeeds knows that nothing was done and nothing will be done.

Pykka 4.5 has these rules. An exception in an `ask` leaves the actor alive; in a `tell` it kills the actor. SystemExit
or KeyboardInterrupt inside an actor leaves the caller without an answer and stops *every* actor of the process, also
those of the host. So no exception leaves a handler here: `on_receive` catches BaseException, gives it to the reply,
logs it with its cause, calls `recover`, and informs the supervisor.

The engine stops only its own actors, by reference.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import InvalidStateError
from typing import Any

import pykka

from shadowswitch.actors.kit.reply import Reply
from shadowswitch.model.errors import EngineClosed, InternalFailure, ShadowSwitchError, Timeout
from shadowswitch.storage.shortages import shortage, shortages

logger = logging.getLogger("shadowswitch")

Crash = Callable[[str, BaseException], None]


class EngineActor(pykka.ThreadingActor):
    """Base of all actors: one handler for each message type, no exception escapes."""

    use_daemon_thread = True

    @staticmethod
    def _create_actor_inbox() -> Any:
        """Pykka's hook; its own choice, `queue.Queue`, takes twice the CPU for each message."""
        return queue.SimpleQueue()

    def _start_actor_loop(self) -> None:
        """Pykka's hook. An actor without a thread leaves the registry, in which it would be alive for ever."""
        try:
            with shortages("start a thread", type(self).__name__):
                super()._start_actor_loop()
        except BaseException:
            pykka.ActorRegistry.unregister(self.actor_ref)
            self.actor_stopped.set()
            raise

    def __init__(self, name: str, crashed: Crash) -> None:
        super().__init__()
        self.name = name
        self._crashed = crashed
        self._handlers: dict[type, Callable[[Any], None]] = {}

    def handles(self, message_type: type, handler: Callable[[Any], None]) -> None:
        """Register the handler of a message type."""
        self._handlers[message_type] = handler

    def on_start(self) -> None:
        """On the actor's thread, before the first message. Names the thread; cannot fail."""
        threading.current_thread().name = self.name

    def on_receive(self, message: Any) -> None:
        """Handle one message. An error becomes the answer, is logged and reported; it is never raised."""
        try:
            self._handlers[type(message)](message)
        except BaseException as error:
            self._failed(message, error)

    def _failed(self, message: Any, error: BaseException) -> None:
        error = shortage(error) or error
        expected = isinstance(error, ShadowSwitchError)
        answered = fail_reply(message, error if expected else wrap(error, self.name))
        if expected and answered:
            return
        if expected:
            level = logging.INFO if isinstance(error, EngineClosed) else logging.WARNING  # a close is no trouble
            logger.log(level, "%s could not do %s: %s", self.name, type(message).__name__, error)
        else:
            logger.error("%s failed on %s", self.name, type(message).__name__, exc_info=error)
        try:
            self.recover(message, error)
        except BaseException as second:
            logger.critical("%s could not mend itself", self.name, exc_info=second)
        if not expected:
            self._crashed(self.name, error)

    def recover(self, message: Any, error: BaseException) -> None:
        """Bring the actor's own state back to what is durable, after a handler failed. On the actor's thread."""

    def on_stop(self) -> None:
        """Answer every message that is still in the mailbox; on the actor's thread."""
        while not self.actor_inbox.empty():
            fail_reply(
                self.actor_inbox.get().message, EngineClosed(f"{self.name} has stopped", hint="open the engine again")
            )


def wrap(error: BaseException, where: str) -> ShadowSwitchError:
    """A shortage, or an unexpected error as an InternalFailure, which a caller may catch."""
    return shortage(error, where) or InternalFailure(
        f"{where} failed: {error!r}", cause=error, hint="see the log; this is a defect, please report it"
    )


def fail_reply(message: Any, error: BaseException) -> bool:
    """Answer a message with an error, unless its sender has given up; False if it has no reply, or has one already."""
    reply = getattr(message, "reply", None)
    if not isinstance(reply, Reply):
        return False
    try:
        reply.set_exception(error)
    except InvalidStateError:
        return reply.cancelled()
    return True


class Address:
    """The address of an actor. It stays the same when the supervisor replaces the actor behind it."""

    def __init__(self, start: Callable[[], pykka.ActorRef[Any]]) -> None:
        self._start = start
        self.ref = start()

    def tell(self, message: Any) -> None:
        """Send. InternalFailure answers a message to a dead actor, or to an actor that dies at this moment."""
        ref = self.ref
        try:
            ref.tell(message)
            if ref.is_alive():
                return  # the actor handles the message, or `on_stop` finds it in the mailbox
        except pykka.ActorDeadError:
            pass
        reply = getattr(message, "reply", None)
        if isinstance(reply, Reply):  # `on_stop` answers a reply that was claimed
            reply.cancel(InternalFailure("the engine is mending itself", hint="try again in a second, or see the log"))

    def restart_if_dead(self) -> bool:
        """Start a new actor if the present one is dead; True if one was started."""
        if self.ref.is_alive():
            return False
        self.ref = self._start()
        return True

    def stop(self, timeout_s: float) -> bool:
        """Stop the actor behind the messages in its mailbox; False if it did not stop in time."""
        try:
            return bool(self.ref.stop(block=True, timeout=timeout_s))
        except pykka.Timeout:
            return False


def result_of(reply: Reply[Any], timeout_s: float, what: str) -> Any:
    """Wait for a reply. A message that was not begun at the timeout is cancelled; the error says whether it was begun.

    Raises the error of the receiver, or Timeout.
    """
    try:
        return reply.result(timeout_s)
    except TimeoutError as error:
        if isinstance(error, ShadowSwitchError):
            raise
        if reply.cancel():
            raise Timeout(
                f"{what} was not begun within {timeout_s:g} s; nothing was done", operation=what, hint="try again"
            ) from None
    try:
        return reply.result(COMMIT_GRACE_S)
    except TimeoutError as error:
        if isinstance(error, ShadowSwitchError):
            raise
        raise Timeout(
            f"{what} was begun but did not end in time; whether it took effect is not known",
            operation=what,
            hint="the disk may be stalled; read back what you wrote before you try again",
        ) from None


COMMIT_GRACE_S = 30.0
"""The wait for a transaction that has begun: its outcome is near, and a caller that gives up does not know it."""
