"""A check of the host on the targets of a group, with a reader of each, all as of one LSN.

Meanwhile no target is applied to: their writers pause, so every call of every reader shows the same moment. Writers of
the branches go on. The check runs on a thread of its own, because nothing can interrupt it, see `host_check`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack

from shadowswitch.actors.kit.host_answer import Reasons, reasons_of
from shadowswitch.actors.kit.reply import Reply
from shadowswitch.actors.switch.host_check import answer_of
from shadowswitch.model.errors import EngineClosed, Timeout
from shadowswitch.storage.backends.protocol import IndexReader
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.generations.generation import Generation
from shadowswitch.storage.shortages import shortages

logger = logging.getLogger("shadowswitch")

Key = tuple[str, str]


class MemberReaders(Mapping[str | Key, IndexReader]):
    """The reader of each member, by (branch, index type); or by the index type alone where one member has it."""

    def __init__(self, readers: Mapping[Key, IndexReader], lsn: int) -> None:
        self._readers = dict(readers)
        self.lsn = lsn
        """Every reader shows its branch as of this LSN."""

    def __getitem__(self, key: str | Key) -> IndexReader:
        if isinstance(key, tuple):
            return self._readers[key]
        found = [reader for (_, index_type), reader in self._readers.items() if index_type == key]
        if len(found) != 1:
            raise KeyError(f"{len(found)} members of the group are {key!r}; the keys are {list(self._readers)}")
        return found[0]

    def __iter__(self) -> Iterator[Key]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)


GroupCheck = Callable[[MemberReaders], Reasons]


def problems_of(
    checks: Mapping[str, GroupCheck], targets: Sequence[tuple[str, Generation]], catalog: Catalog, deadline: float
) -> list[str]:
    """What the checks find in the targets, each with the name of its branch. Its exception is a finding, too.

    Raises Timeout at the (monotonic) deadline, ResourceExhausted when a check lacked a resource.
    """
    if not checks:
        return []
    clock = catalog.clock
    with ExitStack() as held:
        for _, target in targets:
            held.enter_context(target.writer.pause_apply(deadline - clock.monotonic()))
        with catalog.read() as txn:
            lsn = catalog.number("last_lsn", txn)
            heads = [catalog.head_in(txn, target.row.branch)[0] for _, target in targets]
        for (_, target), head in zip(targets, heads, strict=True):
            target.writer.apply_until(head, deadline)
        found = []
        for name, check in checks.items():
            problems = _ask_one(name, check, targets, lsn, deadline - clock.monotonic())
            found += [f"{name}: {problem}" for problem in problems]
        return found


def _ask_one(
    name: str, check: GroupCheck, targets: Sequence[tuple[str, Generation]], lsn: int, left_s: float
) -> list[str]:
    if left_s <= 0:
        raise Timeout(f"no time was left for the group validator {name}", operation="validate")
    reply: Reply[list[str]] = Reply()
    with shortages("validate"):
        threading.Thread(
            target=_ask, args=(check, targets, lsn, reply), name=f"shadowswitch-check-{name}", daemon=True
        ).start()
    return answer_of(f"of the group, {name},", reply, left_s)


def _ask(check: GroupCheck, targets: Sequence[tuple[str, Generation]], lsn: int, reply: Reply[list[str]]) -> None:
    try:
        with ExitStack() as held:
            readers = {}
            for branch, target in targets:
                if not held.enter_context(target.kept()):
                    raise EngineClosed("a generation was closed before it could be checked", operation="validate")
                reader = target.take_reader()
                held.callback(target.give_reader, reader)
                readers[branch, target.row.index_type] = reader
            reply.set_result(reasons_of("the group validator", check(MemberReaders(readers, lsn))))
    except BaseException as error:  # it is raised again on the thread that waits
        reply.set_exception(error)
