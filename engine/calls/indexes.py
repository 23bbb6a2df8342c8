"""Indexes: the calls that show what is live, and open readers of it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from itertools import islice
from typing import Any

from shadowswitch.actors.context import EngineContext
from shadowswitch.actors.kit.heads import Heads
from shadowswitch.actors.kit.signals import Kick
from shadowswitch.actors.maintenance.follower_pool import FollowerPool
from shadowswitch.actors.switch.live_index import LiveIndexes
from shadowswitch.engine.arguments import check_seconds, check_whole
from shadowswitch.engine.branch_directory import BranchDirectory
from shadowswitch.engine.calls.authors import author
from shadowswitch.engine.open_state import OpenState
from shadowswitch.engine.quality.mirroring import Mirrors
from shadowswitch.engine.quality.preview import Previews
from shadowswitch.engine.reader import OpenReaders, Reader, no_index
from shadowswitch.engine.views import Views
from shadowswitch.model.errors import CorruptData, InvalidConfig
from shadowswitch.model.names import check_index_type
from shadowswitch.model.views import IndexFigures, IndexInfo, derive
from shadowswitch.storage.catalog import transitions
from shadowswitch.storage.catalog.filtered_search import Versions
from shadowswitch.storage.catalog.rows import BranchRow, GenerationRow
from shadowswitch.storage.catalog.source.branch_pages import branch_rows
from shadowswitch.storage.catalog.source.index_pages import index_pages
from shadowswitch.storage.catalog.transaction import signed
from shadowswitch.storage.generations.build_spec import make_spec
from shadowswitch.storage.generations.generation import Generation
from shadowswitch.storage.generations.seeding import settings_of


class IndexCalls:
    """Reading of what is live. Any thread."""

    def __init__(
        self,
        context: EngineContext,
        state: OpenState,
        branches: BranchDirectory,
        indexes: LiveIndexes,
        heads: Heads,
        followers: FollowerPool,
        readers: OpenReaders,
        broken: Mapping[tuple[int, str], str],
        damaged: Callable[[int, CorruptData], None],
        views: Views,
        made: Callable[[BranchRow, str, float], bool],
        previews: Previews,
        mirrors: Mirrors,
    ) -> None:
        """`broken` gives the reason why an index is not served, by branch and type. A reader that meets damage calls
        `damaged` with the number of its generation. `made` makes the index of a fork within so many seconds; False if
        there is nothing to make."""
        self._catalog = context.catalog
        self._transact: Callable[[Any, str], GenerationRow] = context.transact
        self._clock = context.clock
        self._search_timeout_s = context.config.search_timeout_s
        self._state = state
        self._branches = branches
        self._indexes = indexes
        self._heads = heads
        self._followers = followers
        self._readers = readers
        self._broken = broken
        self._damaged = damaged
        self._views = views
        self._made = made
        self._previews = previews
        self._mirrors = mirrors
        self._retuning = threading.Lock()

    def index(self, branch: str, index_type: str) -> IndexInfo:
        """What a branch serves for an index type. Raises UnknownIndex."""
        row = self._catalog.index(self._branches.row(branch).number, check_index_type(index_type))
        info = self._views.index(row) if row is not None and row.live else None
        if info is None:
            raise no_index(branch, index_type)
        return info

    def retune(
        self, branch: str, index_type: str, build_config: Mapping[str, Any], by: str = "", reason: str = ""
    ) -> IndexInfo:
        """Let a live index answer with other options, if its files serve them as they are: one transaction, no build.

        For `fts5` these are the weights of `columns`, `cjk`, `synonyms` and `stop_words`. What `build_config` does not
        name stays. Readers opened from now on have the new options, also after a rollback to this generation. A build
        with the new options makes the same index. Raises UnknownIndex, CorruptData for an index that is not served,
        InvalidConfig for options that need a build, and StaleFence if a switch came in between.
        """
        named = author(by, reason)
        row = self._branches.row(branch)
        if not isinstance(build_config, Mapping):
            raise InvalidConfig(f"build_config must be a dict, not {build_config!r:.80}", operation="retune")
        with self._retuning:  # of two calls the later one counts, in memory as in the catalog
            self._retune(row, check_index_type(index_type), build_config, named)
        return self.index(branch, index_type)

    def _retune(self, row: BranchRow, index_type: str, build_config: Mapping[str, Any], named: tuple[str, str]) -> None:
        live = self._indexes.live(row.number, index_type)
        if live is None:
            raise self.not_served(row, index_type)
        given = self._catalog.shadow(live.row.shadow_id).build_config
        config = {**given, "backend": live.row.backend, "shards": live.row.shards, **build_config}
        settings = settings_of(live.row, make_spec(index_type, live.row.resource_types, config))
        kept = {name: config[name] for name in {*given, *build_config}}
        work = partial(transitions.retune, number=live.row.number, settings=settings, build_config=kept)
        live.retune(self._transact(signed(work, *named), "retune"))

    def indexes(self, branch: str | None = None, limit: int | None = None, after: str = "") -> list[IndexInfo]:
        """Everything that is live, of one branch or of all, in the order of the branches.

        By page: up to `limit` of them behind the one with the `place` `after`; for the next page, that of the last one.
        A page takes as long as its indexes, however many there are. Raises UnknownBranch, InvalidConfig.
        """
        self._state.check()
        number = self._branches.row(branch).number if branch is not None else None
        if limit is not None:
            check_whole("limit", limit, 1)
        infos = map(self._views.index, index_pages(self._catalog, number, after))
        return list(islice((info for info in infos if info is not None), limit))

    def count_indexes(self, wanted: Callable[[str], bool] | None = None) -> int:
        """How many indexes are live. With `wanted`, how many of branches with a name of which it is true.

        Reads no row of an index that is served, and one of each branch if there is `wanted`.
        """
        self._state.check()
        branches = Counter(number for number, _ in self._keys())
        if wanted is None:
            return branches.total()
        return sum(branches[number] for number, row in branch_rows(self._catalog, branches).items() if wanted(row.name))

    def index_figures(self, wanted: Callable[[str], bool] | None = None) -> list[IndexFigures]:
        """The figures of each live index, in the order of the branches. `wanted` is as of `count_indexes`.

        Reads no row of an index that is served, and one of each branch: about 10 us for each index.
        """
        self._state.check()
        keys = sorted(self._keys())
        rows = branch_rows(self._catalog, {number for number, _ in keys})
        names = {number: row.name for number, row in rows.items() if wanted is None or wanted(row.name)}
        found = (self._figures(names[number], number, index_type) for number, index_type in keys if number in names)
        return [figures for figures in found if figures is not None]

    def _keys(self) -> set[tuple[int, str]]:
        """Branch and type of each live index."""
        served = set(self._indexes.served())
        for key in {*self._broken, *self._indexes.without(())} - served:
            row = self._catalog.index(*key)
            if row is not None and row.live:
                served.add(key)
        return {key for key in served if not self._branches.is_dropped(key[0])}

    def _figures(self, name: str, branch: int, index_type: str) -> IndexFigures | None:
        live = self._indexes.live(branch, index_type)
        if live is None:  # it is not served
            row = self._catalog.index(branch, index_type)
            info = self._views.index(row) if row is not None and row.live else None
            return derive(IndexFigures, info) if info is not None else None
        lag = max(0, self._heads.of(branch) - live.applied_lsn)
        count = self._catalog.count_of(branch, live.writer.types)
        return IndexFigures(name, index_type, live.row.number, count, lag, live.pins)

    def reader(
        self,
        branch: str,
        index_type: str,
        min_lsn: int | None = None,
        timeout_s: float = 5,
        shadow_index_id: str | None = None,
    ) -> Reader:
        """A pinned reader of the live generation that shows everything up to `min_lsn`.

        With `shadow_index_id` it is a preview: a reader of that shadow, which is BUILT, live or soaking. It goes on to
        read this one after a switch, and its queries do not count as those of the live index.

        The first reader of an index that only the parent of a fork serves waits until the fork has it, see
        docs/branches.md. Raises UnknownIndex, CorruptData when the index cannot be opened, Timeout when the index does
        not reach `min_lsn` in time. A preview raises UnknownShadow; InvalidTransition for a shadow in another state;
        InvalidConfig for one of another branch or index type, and for one that only its builder can read.
        """
        row = self._branches.row(branch)
        timeout_s = check_seconds("timeout_s", timeout_s)
        if min_lsn is not None:
            check_whole("min_lsn", min_lsn, 0)
        if shadow_index_id is None:
            live = self._pinned(row, index_type, min_lsn or 0, timeout_s)
            asked: Callable[[str], None] = partial(self._asked, live, (row.number, index_type))
        else:
            least = self.check_reached(row, min_lsn or 0)
            live, asked = self._previews.pin(row, index_type, shadow_index_id, least, timeout_s), _uncounted
        number = live.row.number
        try:
            lsn = live.applied_lsn
            index_reader = live.take_reader()
        except CorruptData as error:
            live.unpin()
            self._damaged(number, error)
            raise
        except BaseException:
            live.unpin()
            raise

        def release() -> None:
            live.give_reader(index_reader)
            live.unpin()

        damaged = partial(self._damaged, number)
        versions = Versions(self._catalog, row.number, self._clock)
        reader = Reader(
            index_reader, number, lsn, release, versions, live.row.resource_types, asked, damaged,
            self._search_timeout_s,
        )  # fmt: skip
        self._readers.add(reader)
        return reader

    def _asked(self, live: Generation, index: tuple[int, str], query: str) -> None:
        """A reader has asked a query, and has its answer."""
        live.asked.append(query)
        self._mirrors.note(index, query)

    def _pinned(self, row: BranchRow, index_type: str, min_lsn: int, timeout_s: float) -> Generation:
        """The live generation, pinned, once it shows `min_lsn`. Raises UnknownIndex, CorruptData, Timeout."""
        index = self._indexes.of(row.number, index_type)
        if not index.shows(min_lsn):
            min_lsn = self.check_reached(row, min_lsn)
            if index.live is not None:
                self._followers.of(index.live.row.number).tell(Kick(row.number))
        begun = self._clock.monotonic()
        live = index.pin(min_lsn, timeout_s)
        if live is None and self.is_made(row, index_type, timeout_s):
            live = index.pin(min_lsn, max(0.0, begun + timeout_s - self._clock.monotonic()))
        if live is None:
            raise self.not_served(row, index_type)
        return live

    def is_made(self, row: BranchRow, index_type: str, timeout_s: float) -> bool:
        """Wait for an index that only the parent of a fork serves; False if there is none. Raises Timeout."""
        return (row.number, index_type) not in self._broken and self._made(row, index_type, timeout_s)

    def check_reached(self, row: BranchRow, min_lsn: int) -> int:
        """The LSN to wait for. Raises InvalidConfig for one that the branch has not reached.

        A fork that follows has reached what its parent has: what is above its own head there shows on the parent alone.
        """
        head = self._heads.of(row.number)
        if min_lsn > head:
            head = self._catalog.head(row.number)[0]
        of: BranchRow | None = row
        while min_lsn > head and of is not None and of.follows:
            of = branch_rows(self._catalog, [of.parent]).get(of.parent)
            if of is not None and min_lsn <= self._catalog.head(of.number)[0]:
                return self._catalog.head(row.number)[0]
        if min_lsn > head:
            raise InvalidConfig(
                f"min_lsn {min_lsn} is beyond the head of branch {row.name!r}, {head}", hint="use the lsn of a receipt"
            )
        return min_lsn

    def not_served(self, row: BranchRow, index_type: str) -> Exception:
        """The error for an index without a live generation that could be read."""
        check_index_type(index_type)
        reason = self._broken.get((row.number, index_type))
        if reason is not None:
            return CorruptData(
                f"{index_type} of branch {row.name!r} is not served: {reason}",
                operation="read",
                object=row.name,
                hint="rebuild it; the records are safe",
            )
        return no_index(row.name, index_type)


def _uncounted(query: str) -> None:
    """A query of a preview is not one of the live index."""
