"""The checks of a group that the library has: its members hold the same records, and have what is to be checked.

LINKS and VIOLATIONS are asked of each member that answers them (`actors.switch.fitness`); here it counts that one does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from shadowswitch.actors.group.group_check import GroupCheck, MemberReaders
from shadowswitch.model.kinds.asking import Asking
from shadowswitch.model.search.bounds import TimeLimit
from shadowswitch.storage.generations.generation import Generation
from shadowswitch.storage.quality import kinds

Targets = Sequence[tuple[str, Generation]]
"""Each member with the name of its branch."""


def shipped(
    wanted: Sequence[str], targets: Targets, seconds: float, monotonic: Callable[[], float]
) -> dict[str, GroupCheck]:
    """Those that a request names, by name. They are as long as a host's check may take, `seconds` at the most."""
    found: dict[str, GroupCheck] = {check: partial(_is_asked, check) for check in wanted if check in kinds.KIND}
    if kinds.SAME_RECORDS in wanted:
        limit = TimeLimit(max(0.0, seconds), monotonic, "query")
        found[kinds.SAME_RECORDS] = partial(_same_records, targets, Asking(limit))
    return found


def _is_asked(check: str, readers: MemberReaders) -> list[str]:
    if any(kinds.answers(check, reader) for reader in readers.values()):
        return []
    return [f"no member of the group answers queries of the kind {kinds.KIND[check]}"]


def _same_records(targets: Targets, asking: Asking, readers: MemberReaders) -> list[str]:
    by_branch: dict[str, list[kinds.Member]] = {}
    for branch, target in targets:
        row = target.row
        reader = readers[branch, row.index_type]
        member = kinds.Member(f"{row.index_type} of branch {branch!r}", reader, row.shards, row.resource_types)
        by_branch.setdefault(branch, []).append(member)
    return [problem for members in by_branch.values() for problem in kinds.same_records(members, asking)]
