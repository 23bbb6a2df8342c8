"""Compare: a shadow and the live index are asked the same queries, in a worker process."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import ExitStack

from shadowswitch.actors.build.worker_answers import WorkerAnswers
from shadowswitch.actors.context import EngineContext
from shadowswitch.actors.switch.comparison import GRACE_S, compare_sides, is_unicode, last_asked
from shadowswitch.actors.switch.live_index import LiveIndexes
from shadowswitch.engine.arguments import check_seconds, check_whole
from shadowswitch.engine.branch_directory import BranchDirectory
from shadowswitch.engine.calls.indexes import IndexCalls
from shadowswitch.engine.open_state import OpenState
from shadowswitch.engine.quality.mirroring import Mirrors
from shadowswitch.engine.quality.preview import Previews
from shadowswitch.model.errors import BuildCancelled, EngineClosed, InvalidConfig, InvalidTransition, Timeout, no_shadow
from shadowswitch.model.search.bounds import QUERY_CHARS_MAX, check_query
from shadowswitch.model.search.comparison import Comparison, ComparisonRow
from shadowswitch.model.shadow_state import ShadowState
from shadowswitch.storage.catalog.rows import ShadowRow
from shadowswitch.storage.generations.generation import Generation

QUERIES_MAX, LIMIT_MAX, ROWS_MAX = 200, 100, 200
TIMEOUT_S_MAX = 600.0
MIRROR_S, MIRROR_HITS = 20.0, 10
"""Of one round of mirrored queries: its time, and the hits of each query."""
AT_ONCE = 2
"""Comparisons that run at one time: each has a worker process of its own."""
NO_QUERY = "no query is judged, and no reader of the live index has asked one"


class CompareCalls:
    """The comparison of a shadow with the live index. Any thread; a call blocks for as long as its queries take."""

    def __init__(
        self,
        context: EngineContext,
        state: OpenState,
        branches: BranchDirectory,
        indexes: LiveIndexes,
        calls: IndexCalls,
        previews: Previews,
        answers: WorkerAnswers,
        mirrors: Mirrors,
    ) -> None:
        self._context = context
        self._state = state
        self._branches = branches
        self._indexes = indexes
        self._calls = calls
        self._previews = previews
        self._answers = answers
        self._mirrors = mirrors
        self._places = threading.BoundedSemaphore(AT_ONCE)

    def compare(
        self,
        shadow_index_id: str,
        queries: Sequence[str] | None = None,
        limit: int = 10,
        timeout_s: float = 30,
    ) -> Comparison:
        """Ask the live index and a shadow the same queries: hits side by side, the likeness of both, and a verdict.

        Without `queries` they are the judged ones of the branch; without judgments, the last ones of the readers of the
        live index. The verdict is that of the check RELEVANCE, see docs/is-the-new-index-better.md. A worker process
        asks, for at most `timeout_s`: `summary.left_out` counts the queries for which there was no time. Raises
        UnknownShadow, UnknownIndex without a live index, InvalidTransition for a shadow that cannot be read or that is
        live, InvalidConfig, Timeout, CorruptData.
        """
        self._state.check()
        asked = _checked(queries)
        check_whole("limit", limit, 1)
        if limit > LIMIT_MAX:
            raise InvalidConfig(f"limit is {limit}", operation="compare", hint=f"use at most {LIMIT_MAX}")
        if not 0 < check_seconds("timeout_s", timeout_s) <= TIMEOUT_S_MAX:
            raise InvalidConfig(f"timeout_s must be above 0 and at most {TIMEOUT_S_MAX:g}, not {timeout_s!r:.80}")
        row, deadline = self._row(shadow_index_id), self._context.clock.monotonic() + timeout_s
        if not self._places.acquire(timeout=timeout_s):
            raise Timeout(f"{AT_ONCE} other comparisons are under way", operation="compare", hint="try again")
        try:
            return self._compare(row, asked, limit, deadline)
        except BuildCancelled as error:
            raise EngineClosed("the engine is closed", operation="compare", hint="open it again") from error
        finally:
            self._places.release()

    def _row(self, shadow_index_id: str) -> ShadowRow:
        if not isinstance(shadow_index_id, str):
            raise InvalidConfig(f"the id of a shadow is a text, not {shadow_index_id!r:.80}")
        row = self._context.catalog.shadow(shadow_index_id)
        if self._branches.is_dropped(row.branch):
            raise no_shadow(shadow_index_id)
        return row

    def _compare(self, row: ShadowRow, asked: list[str] | None, limit: int, deadline: float) -> Comparison:
        with ExitStack() as pinned:
            shadow, live = self._pin(row, self._left_s(deadline), pinned)
            try:
                found = compare_sides(
                    self._context, self._answers, live, shadow, asked, last_asked(live), limit, ROWS_MAX,
                    self._left_s(deadline), deadline + GRACE_S,
                )  # fmt: skip
            except Timeout as error:
                if error.operation == "compare":
                    raise
                hint = "give it more time (timeout_s), or fewer queries"
                raise Timeout("the comparison did not end in time", operation="compare", hint=hint) from error
        if found.summary is None:
            raise InvalidConfig(
                f"there is nothing to compare: {NO_QUERY}",
                operation="compare",
                object=row.id,
                hint="give queries, or write judgments",
            )
        return Comparison(
            row.id, row.branch_name, row.index_type, live.row.number, shadow.row.number, found.rows, found.summary,
            self._mirrors.of(row.id),
        )  # fmt: skip

    def mirror(self, index: tuple[int, str], queries: Sequence[str]) -> tuple[str, list[ComparisonRow]] | None:
        """Ask the live index and its newest BUILT shadow what readers have asked; None without one.

        Raises as `compare`. On the thread of `Mirrors`.
        """
        self._state.check()
        branch, index_type = index
        built = self._context.shadows.pages(branch, ShadowState.BUILT, 0, None, True, None)
        newest = next((row for row in built if row.index_type == index_type and not row.external), None)
        if newest is None or self._branches.is_dropped(branch):
            return None
        deadline = self._context.clock.monotonic() + MIRROR_S
        try:
            return newest.id, self._compare(newest, list(dict.fromkeys(queries)), MIRROR_HITS, deadline).rows
        except BuildCancelled as error:
            raise EngineClosed("the engine is closed", operation="compare", hint="open it again") from error

    def _left_s(self, deadline: float) -> float:
        return max(0.1, deadline - self._context.clock.monotonic())

    def _pin(self, row: ShadowRow, timeout_s: float, pinned: ExitStack) -> tuple[Generation, Generation]:
        """The shadow and the live generation, until the stack is left."""
        branch = self._branches.row(row.branch_name)
        shadow = self._previews.pin(branch, row.index_type, row.id, 0, timeout_s)
        pinned.callback(shadow.unpin)
        live = self._indexes.of(row.branch, row.index_type).pin(0, timeout_s)
        if live is None:
            raise self._calls.not_served(branch, row.index_type)
        pinned.callback(live.unpin)
        if live is shadow:
            raise InvalidTransition(
                f"shadow {row.id} is live: it would be compared with itself",
                operation="compare",
                object=row.id,
                hint="compare one that is BUILT, or the one that soaks behind it",
            )
        if live.row.opaque:
            raise InvalidConfig(
                f"the live {row.index_type} has a format that only its builder knows",
                operation="compare",
                hint="compare them with the program that built it",
            )
        return shadow, live


def _checked(queries: Sequence[str] | None) -> list[str] | None:
    if queries is None:
        return None
    if isinstance(queries, str) or not isinstance(queries, Sequence):
        raise InvalidConfig(f"queries is a list of texts, not {queries!r:.80}", operation="compare")
    found = [check_query(query)[:QUERY_CHARS_MAX] for query in queries]
    if not all(map(is_unicode, found)):
        raise InvalidConfig("a query is not valid Unicode", operation="compare", hint="remove lone surrogates")
    if not 1 <= len(found) <= QUERIES_MAX or not all(query.strip() for query in found):
        raise InvalidConfig(
            f"{len(found)} queries, of which {sum(not query.strip() for query in found)} are blank",
            operation="compare",
            hint=f"give 1 to {QUERIES_MAX} queries, or none for the judged ones",
        )
    return found
