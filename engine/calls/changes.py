"""Following the journal from outside: the calls."""

from __future__ import annotations

import msgspec

from shadowswitch.engine.lifecycle import Running, check_whole
from shadowswitch.engine.views import changes_hold
from shadowswitch.model.errors import InvalidName, JournalTrimmed
from shadowswitch.model.records import Change
from shadowswitch.model.views import ChangesHold
from shadowswitch.storage.catalog import retention
from shadowswitch.storage.catalog.journal import changes as journal_changes

NAME_CHARS_MAX = 100


class Following(Running):
    """Reading of changes, and holding of what is not read yet. Any thread."""

    def changes(self, branch: str, after: int = 0, limit: int = 1000) -> list[Change]:
        """The journal: up to `limit` changes after an LSN, in order.

        Raises JournalTrimmed when they are gone; it says so if a hold on them was given up (see `hold_changes`).
        """
        house = self._alive()
        row = self._branch_row(branch)
        check_whole("after", after, 0)
        check_whole("limit", limit, 1)
        try:
            return journal_changes(house.catalog, row.number, after, limit)
        except JournalTrimmed as error:
            for hold in retention.holds(house.catalog, row.number):
                if hold.given_up and hold.after_lsn < error.oldest_lsn:
                    error.message += f"; the hold {hold.name!r} at LSN {hold.after_lsn} was given up: {hold.given_up}"
            raise

    def hold_changes(self, name: str, branch: str, after_lsn: int) -> ChangesHold:
        """Keep every change of a branch after `after_lsn` for the subscriber `name`, also over restarts.

        Call it again with a later LSN when everything up to there was taken; nothing else moves it. A hold that lags by
        more than `Config.hold_changes_max` LSNs is given up, with the event `hold.given_up`: from then on it keeps
        nothing, and `changes` raises JournalTrimmed with that reason once they are gone. Raises JournalTrimmed when
        changes after `after_lsn` are gone already, InvalidConfig for an LSN beyond the head or too many holds,
        InvalidName, UnknownBranch.
        """
        house = self._alive()
        row = self._branch_row(branch)
        check_whole("after_lsn", after_lsn, 0)
        _check_name(name)
        made = house.transact(lambda c: retention.hold(c, row, name, after_lsn), "hold changes")
        return changes_hold(house, made, branch)

    def release_changes(self, name: str, branch: str) -> bool:
        """The subscriber `name` needs nothing any more; False when it held nothing."""
        house = self._alive()
        row = self._branch_row(branch)
        _check_name(name)
        return house.transact(lambda c: retention.release(c, row, name), "release changes")

    def changes_holds(self, branch: str | None = None) -> list[ChangesHold]:
        """Who holds the journal of a branch, or of all, and how much of it; those given up too."""
        house = self._alive()
        number = self._branch_row(branch).number if branch is not None else None
        names = {row.number: row.name for row in house.catalog.branches()}
        return [changes_hold(house, row, names[row.branch]) for row in retention.holds(house.catalog, number)]


def _check_name(name: str) -> None:
    if not isinstance(name, str) or not 0 < len(name) <= NAME_CHARS_MAX or not name.isprintable():
        raise InvalidName(
            f"{name!r:.120} cannot be the name of a subscriber", hint=f"use 1 to {NAME_CHARS_MAX} printable characters"
        )
    try:
        msgspec.msgpack.encode(name)
    except UnicodeEncodeError as error:
        raise InvalidName(f"{name!r:.120} is no Unicode text", hint="leave out lone surrogates") from error
