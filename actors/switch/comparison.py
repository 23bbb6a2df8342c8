"""The checks that compare the target of a switch with the live index.

    SIZE_COMPARISON     the sizes of both are alike
    QUERY_COMPARISON    both give like hits in a like time, on average over the queries of the request or of readers
    RELEVANCE           the target is at least as good, by the judgments of the branch (`model.search.relevance.judge`).
                        Its answer stands in the message of a switch that passes

For the last two a worker process asks both indexes (`storage.quality.comparing`), each in at most half of the time that
the switch has left.
"""

from __future__ import annotations

import logging
import statistics
from collections.abc import Sequence

import msgspec

from shadowswitch.actors.build.validator import NOTHING, ONLY_ITS_BUILDER, Validation
from shadowswitch.actors.build.worker_answers import WorkerAnswers
from shadowswitch.actors.context import EngineContext
from shadowswitch.model.errors import CorruptData, Timeout
from shadowswitch.model.search.comparison import ComparisonRow, Summary
from shadowswitch.model.search.relevance import JUDGED_MIN, NDCG_HITS, Outcome
from shadowswitch.storage.disk import directory_size_bytes
from shadowswitch.storage.generations.generation import Generation
from shadowswitch.storage.quality.comparing import QUERIES_MAX, CompareSides, Side, SidesCompared

logger = logging.getLogger("shadowswitch")

SIZE_COMPARISON, QUERY_COMPARISON, RELEVANCE = "SIZE_COMPARISON", "QUERY_COMPARISON", "RELEVANCE"
NO_QUERY = "for no reader has asked a query"
NO_JUDGED_QUERY = "for no query is judged, and no reader has asked one"
SIZE_FLOOR_BYTES = 1 << 20
"""The fixed costs of a file dominate any smaller size."""
LATENCY_FLOOR_MS = 2.0
"""A ratio of shorter times would compare noise."""
TICK_MS = 0.001
"""No query is faster."""
BUDGET_S_MAX = 60.0
GRACE_S = 15.0
"""For the start of a worker, and the last query."""


def compare_sides(
    context: EngineContext,
    answers: WorkerAnswers,
    live: Generation,
    shadow: Generation,
    queries: Sequence[str] | None,
    asked: Sequence[str],
    limit: int,
    rows_max: int,
    budget_s: float,
    deadline: float,
) -> SidesCompared:
    """The same queries of both, in a worker. Both are kept open by the caller. Raises Timeout at the (monotonic)
    deadline, and CorruptData with the path of the index."""
    task = CompareSides(
        live=_side(live),
        shadow=_side(shadow),
        branch=shadow.row.branch,
        queries=list(queries) if queries is not None else None,
        asked=list(asked),
        limit=limit,
        rows_max=rows_max,
        budget_s=budget_s,
        search_timeout_s=context.config.search_timeout_s,
    )
    found = answers.ask(task, SidesCompared, deadline)
    if found.summary is None and found.queries:
        raise Timeout(
            f"none of {found.queries} queries was answered in {budget_s:g} s",
            operation="compare",
            hint="give it more time, or ask fewer or rarer words",
        )
    return found


def _side(generation: Generation) -> Side:
    row = generation.row
    return Side(str(generation.path), row.shards, row.backend, row.query_options)


def last_asked(live: Generation) -> list[str]:
    """The last queries of the readers of a generation that a worker can be sent, the newest first, each once."""
    return list(dict.fromkeys(filter(is_unicode, list(live.asked)[::-1])))


def is_unicode(text: str) -> bool:
    """Can the text be encoded? One with a lone surrogate cannot, and finds nothing."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def compare_with_live(
    context: EngineContext,
    answers: WorkerAnswers,
    target: Generation,
    live: Generation | None,
    checks: Sequence[str],
    queries: Sequence[str],
    deadline: float,
) -> Validation:
    """The findings of those `checks` that compare. Without `queries`, the last ones of readers are asked; RELEVANCE
    asks either only where no query is judged. Raises Timeout at the (monotonic) deadline."""
    found = NOTHING
    if SIZE_COMPARISON in checks:
        problems = _unlike_sizes(target, live, context.config.size_ratio_max) if live is not None else []
        found = found.joined(_found(SIZE_COMPARISON, problems))
    for check in (QUERY_COMPARISON, RELEVANCE):
        if check in checks:
            found = found.joined(_by_queries(check, context, answers, target, live, queries, deadline))
    return found


def _unlike_sizes(target: Generation, live: Generation, ratio_max: float) -> list[str]:
    size, other = (directory_size_bytes(one.path, logs=False) for one in (target, live))
    small, large = sorted((max(size, SIZE_FLOOR_BYTES), max(other, SIZE_FLOOR_BYTES)))
    if large / small <= ratio_max:
        return []
    return [f"the shadow has {size} bytes, the live index {other}: more than {ratio_max} times apart"]


def _by_queries(
    check: str,
    context: EngineContext,
    answers: WorkerAnswers,
    target: Generation,
    live: Generation | None,
    queries: Sequence[str],
    deadline: float,
) -> Validation:
    if target.row.opaque:  # the validation of an index in an unknown format names its own checks
        return _unchecked(check, ONLY_ITS_BUILDER) if check == RELEVANCE else NOTHING
    if live is None:
        return _unchecked(check, "for there is nothing to compare with")
    if live.row.opaque:
        return _unchecked(check, "for only the builder of the live index can read it")
    budget_s = min(BUDGET_S_MAX, max(0.1, (deadline - context.clock.monotonic()) / 2))
    asked = list(filter(is_unicode, queries)) or last_asked(live)
    by_judgments = check == RELEVANCE
    with live.kept() as is_open:
        if not is_open:
            return _unchecked(check, "for the live index was closed")
        try:
            found = compare_sides(
                context, answers, live, target, None if by_judgments else asked, asked, NDCG_HITS,
                0 if by_judgments else len(asked), budget_s, deadline,
            )  # fmt: skip
        except CorruptData as error:
            if error.object != str(live.path):
                raise
            logger.error("the live index cannot be compared with generation %d: %s", target.row.number, error)
            return _unchecked(check, f"for the live index cannot be read ({error.message})")
    if found.summary is None:
        return _unchecked(check, NO_JUDGED_QUERY if by_judgments else NO_QUERY)
    if by_judgments:
        return _validation(found.summary, found.queries, budget_s)
    return _likeness(context, found, budget_s)


def _likeness(context: EngineContext, found: SidesCompared, budget_s: float) -> Validation:
    """QUERY_COMPARISON: on average, for single answers may differ."""
    config = context.config
    problems, rows = [], found.rows
    wanted = min(found.queries, QUERIES_MAX)
    if len(rows) < wanted:
        problems.append(_late(len(rows), wanted, "", budget_s))
    shares = [1 - len(row.vanished) / len(row.live) for row in rows if row.live]
    share = statistics.mean(shares) if shares else 1.0
    if share < config.query_overlap_min:
        problems.append(
            f"the shadow gives {share:.0%} of the hits of the live index for {len(shares)} queries,"
            f" {config.query_overlap_min:.0%} were expected"
        )
    before, after = _median_ms(rows)
    slow, fast = max(LATENCY_FLOOR_MS, after), max(LATENCY_FLOOR_MS, before)
    if slow / fast > config.query_latency_ratio_max:
        problems.append(f"the shadow takes {slow:.1f} ms for a query, the live index {fast:.1f} ms")
    return msgspec.structs.replace(_found(QUERY_COMPARISON, problems), improvement=before / max(after, TICK_MS))


def _median_ms(rows: Sequence[ComparisonRow]) -> tuple[float, float]:
    return statistics.median(row.live_ms for row in rows), statistics.median(row.shadow_ms for row in rows)


def _validation(summary: Summary, queries: int, budget_s: float) -> Validation:
    verdict = summary.verdict
    text = verdict.message + wrong_text(summary)
    if verdict.outcome == Outcome.TOO_FEW and queries >= JUDGED_MIN:
        return _found(RELEVANCE, [_late(summary.queries, queries, "judged ", budget_s)])
    if not verdict.passed:
        return _found(RELEVANCE, [text])
    return msgspec.structs.replace(_found(RELEVANCE, []), note=f"{RELEVANCE}: {text}")


def _late(asked: int, queries: int, kind: str, budget_s: float) -> str:
    late = f"only {asked} of {queries} {kind}queries were asked in {budget_s:.1f} s"
    return f"{late}: give the switch more time (switch_timeout_seconds)"


def wrong_text(summary: Summary) -> str:
    """The judgments that are left out, as messages name them; "" if there are none."""
    if not summary.judgments_left_out:
        return ""
    return f"; {summary.judgments_left_out} judgments are left out: {'; '.join(summary.wrong_judgments)}"


def _found(check: str, problems: list[str]) -> Validation:
    return msgspec.structs.replace(NOTHING, findings={check: problems}, errors=[f"{check}: {one}" for one in problems])


def _unchecked(check: str, why: str) -> Validation:
    return msgspec.structs.replace(NOTHING, findings={check: []}, unchecked=f"{check}, {why}")
