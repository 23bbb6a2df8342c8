"""Changes: the calls that read the journal, and hold what a subscriber has not read yet."""

from __future__ import annotations

import msgspec

from shadowswitch.actors.context import EngineContext
from shadowswitch.engine.arguments import check_whole
from shadowswitch.engine.branch_directory import BranchDirectory
from shadowswitch.engine.calls.authors import author
from shadowswitch.engine.open_state import OpenState
from shadowswitch.engine.views import Views
from shadowswitch.model.errors import InvalidName, JournalTrimmed
from shadowswitch.model.records import Change
from shadowswitch.model.views import ChangesHold
from shadowswitch.storage.catalog import retention
from shadowswitch.storage.catalog.journal import changes as journal_changes
from shadowswitch.storage.catalog.transaction import signed

NAME_CHARS_MAX = 100


class ChangeCalls:
    """Reading of changes, and holds on the journal. Any thread."""

    def __init__(self, context: EngineContext, state: OpenState, branches: BranchDirectory, views: Views) -> None:
        self._context = context
        self._catalog = context.catalog
        self._state = state
        self._branches = branches
        self._views = views

    def changes(
        self, branch: str, after: int = 0, limit: int = 1000, *, size_max_bytes: int | None = None
    ) -> list[Change]:
        """The journal: up to `limit` changes after an LSN, in order.

        With `size_max_bytes` fewer, once those found are as large: more follow while the last one is below `head`.

        Raises JournalTrimmed when they are gone; the message names a hold on them that was given up (see
        `hold_changes`).
        """
        row = self._branches.row(branch)
        check_whole("after", after, 0)
        check_whole("limit", limit, 1)
        if size_max_bytes is not None:
            check_whole("size_max_bytes", size_max_bytes, 1)
        try:
            found = journal_changes(self._catalog, row.number, after, limit, size_max_bytes)
            self._branches.check(row)
            return found
        except JournalTrimmed as error:
            for hold in retention.holds(self._catalog, row.number):
                if hold.given_up and hold.after_lsn < error.oldest_lsn:
                    error.message += f"; the hold {hold.name!r} at LSN {hold.after_lsn} was given up: {hold.given_up}"
            raise

    def hold_changes(self, name: str, branch: str, after_lsn: int, *, by: str = "", reason: str = "") -> ChangesHold:
        """Keep every change of a branch after `after_lsn` for the subscriber `name`, also over restarts.

        A later call with a later LSN moves the hold; nothing else moves it. The engine gives up a hold that lags by
        more than `Config.hold_changes_max` LSNs, with the event `hold.given_up`. Such a hold keeps nothing. Once its
        changes are gone, `changes` raises JournalTrimmed with that reason. Raises JournalTrimmed when changes after
        `after_lsn` are gone already, InvalidConfig for an LSN beyond the head or too many holds, InvalidName,
        UnknownBranch.
        """
        row = self._branches.row(branch)
        check_whole("after_lsn", after_lsn, 0)
        _check_name(name)
        work = signed(lambda c: retention.hold(c, row, name, after_lsn), *author(by, reason))
        made = self._context.transact(work, "hold changes")
        return self._views.hold(made, branch)

    def release_changes(self, name: str, branch: str, *, by: str = "", reason: str = "") -> bool:
        """The subscriber `name` needs nothing any more; False when it held nothing."""
        row = self._branches.row(branch)
        _check_name(name)
        work = signed(lambda c: retention.release(c, row, name), *author(by, reason))
        return self._context.transact(work, "release changes")

    def changes_holds(self, branch: str | None = None) -> list[ChangesHold]:
        """The holds on the journal of a branch, or of all, with their sizes. Given-up holds are among them."""
        self._state.check()
        number = self._branches.row(branch).number if branch is not None else None
        names = {row.number: row.name for row in self._catalog.branches()}
        return [self._views.hold(row, names[row.branch]) for row in retention.holds(self._catalog, number)]


def _check_name(name: str) -> None:
    if not isinstance(name, str) or not 0 < len(name) <= NAME_CHARS_MAX or not name.isprintable():
        raise InvalidName(
            f"{name!r:.120} cannot be the name of a subscriber", hint=f"use 1 to {NAME_CHARS_MAX} printable characters"
        )
    try:
        msgspec.msgpack.encode(name)
    except UnicodeEncodeError as error:
        raise InvalidName(f"{name!r:.120} is no Unicode text", hint="leave out lone surrogates") from error
