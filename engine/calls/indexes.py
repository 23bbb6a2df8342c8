"""Readers and live indexes: the calls."""

from __future__ import annotations

from functools import partial

from shadowswitch.actors.messages import Kick
from shadowswitch.engine.calls.soak import Soaking
from shadowswitch.engine.lifecycle import check_seconds, check_whole
from shadowswitch.engine.reader import Reader, no_index
from shadowswitch.engine.views import index_info
from shadowswitch.model.errors import (
    CorruptData,
    InvalidConfig,
)
from shadowswitch.model.names import check_index_type
from shadowswitch.model.views import (
    IndexInfo,
)
from shadowswitch.storage.catalog.rows import BranchRow
from shadowswitch.storage.generations.generation import Generation


class Reading(Soaking):
    """Reading of what is live. Any thread."""

    def index(self, branch: str, index_type: str) -> IndexInfo:
        """What a branch serves for an index type. Raises UnknownIndex."""
        house = self._alive()
        row = house.catalog.index(self._branch_row(branch).number, check_index_type(index_type))
        info = index_info(house, row) if row is not None and row.live else None
        if info is None:
            raise no_index(branch, index_type)
        return info

    def indexes(self, branch: str | None = None) -> list[IndexInfo]:
        """Everything that is live, of one branch or of all."""
        house = self._alive()
        number = self._branch_row(branch).number if branch is not None else None
        infos = [index_info(house, row) for row in house.catalog.indexes() if row.live and number in (None, row.branch)]
        return [info for info in infos if info is not None]

    def reader(self, branch: str, index_type: str, min_lsn: int | None = None, timeout_s: float = 5) -> Reader:
        """A pinned reader of the live generation that shows everything up to `min_lsn`.

        Raises UnknownIndex, CorruptData when the index cannot be opened, Timeout when it does not come that far in
        time.
        """
        row = self._branch_row(branch)
        timeout_s = check_seconds("timeout_s", timeout_s)
        if min_lsn is not None:
            check_whole("min_lsn", min_lsn, 0)
        live = self._pinned(row, index_type, min_lsn or 0, timeout_s)
        try:
            lsn = live.applied_lsn
            index_reader = live.take_reader()
        except CorruptData as error:
            live.unpin()
            self._distrust(live.row.number, error)
            raise
        except BaseException:
            live.unpin()
            raise

        def release() -> None:
            live.give_reader(index_reader)
            live.unpin()

        number = live.row.number
        reader = Reader(index_reader, number, lsn, release, live.asked.append, partial(self._distrust, number))
        self._readers.add(reader)
        return reader

    def _pinned(self, row: BranchRow, index_type: str, min_lsn: int, timeout_s: float) -> Generation:
        """The live generation, pinned, once it shows what it must. Raises UnknownIndex, CorruptData, Timeout."""
        house = self._house
        index = house.indexes.of(row.number, index_type)
        if not index.shows(min_lsn):
            self._check_reached(row, min_lsn)
            if index.live is not None:
                house.followers.of(index.live.row.number).tell(Kick(row.number))
        live = index.pin(min_lsn, timeout_s)
        if live is None:
            raise self._not_served(row.name, (row.number, index_type))
        return live

    def _check_reached(self, row: BranchRow, min_lsn: int) -> None:
        """Raises InvalidConfig for an LSN that the branch has not reached."""
        head = self._house.heads.of(row.number)
        if min_lsn > head:
            head = self._house.catalog.head(row.number)[0]
        if min_lsn > head:
            raise InvalidConfig(
                f"min_lsn {min_lsn} is beyond the head of branch {row.name!r}, {head}", hint="use the lsn of a receipt"
            )

    def _not_served(self, branch: str, key: tuple[int, str]) -> Exception:
        check_index_type(key[1])
        reason = self._broken.get(key)
        if reason is not None:
            return CorruptData(
                f"{key[1]} of branch {branch!r} is not served: {reason}",
                operation="read",
                object=branch,
                hint="rebuild it; the records are safe",
            )
        return no_index(branch, key[1])
