"""The removal of an index: refused while something uses it, with what uses it."""

from __future__ import annotations

from shadowswitch.model.errors import InUse, UnknownIndex
from shadowswitch.storage.catalog.rows import BranchRow, IndexRow, ShadowRow
from shadowswitch.storage.catalog.transaction import Commit
from shadowswitch.storage.catalog.transitions.retirement import retire_index


def drop_index(commit: Commit, branch: BranchRow, index_type: str) -> IndexRow:
    """The index is gone: nothing is live, and its generations retire. Readers keep what they have pinned.

    Raises UnknownIndex when nothing is live, InUse while a build or a switch of the index is under way.
    """
    index = commit.index(branch.number, index_type)
    if index is None or not index.live:
        raise UnknownIndex(
            f"branch {branch.name!r} has no live {index_type}", operation="drop_index", object=branch.name
        )
    shadow = commit.under_way(branch.number, index_type)
    if shadow is not None:
        raise in_use(f"{index_type} of branch {branch.name!r}", [use_of(shadow)], "drop_index", branch.name)
    row = retire_index(commit, index)
    what = {"branch_name": branch.name, "index_type": index_type, "generation": index.live}
    commit.emit("index.dropped", branch.name, what)
    commit.audit("index.dropped", branch.name, what)
    return row


def use_of(shadow: ShadowRow) -> str:
    """A build under way, as a use of its index."""
    return f"shadow {shadow.id} of {shadow.index_type} is {shadow.state}"


def in_use(what: str, uses: list[str], operation: str, object: str) -> InUse:
    """The refusal of a removal, with everything that uses what was to go."""
    return InUse(
        f"{what} is in use: {'; '.join(uses)}",
        uses=uses,
        operation=operation,
        object=object,
        hint="end each of these first: cancel_build ends a build, release_lock a lock; a switch ends by itself",
    )
