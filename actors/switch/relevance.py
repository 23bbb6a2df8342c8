"""RELEVANCE: is the target of a switch at least as good as the live index? By the judgments of the branch.

A worker process asks both indexes (`storage.quality.comparing`); the rules are `model.search.relevance.judge`. The
check takes at most half of the time that the switch has left. Its answer stands in the message of a switch that passes.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import msgspec

from shadowswitch.actors.build.validator import ONLY_ITS_BUILDER, Validation
from shadowswitch.actors.build.worker_answers import WorkerAnswers
from shadowswitch.actors.context import EngineContext
from shadowswitch.model.errors import CorruptData, Timeout
from shadowswitch.model.search.comparison import Summary
from shadowswitch.model.search.relevance import JUDGED_MIN, NDCG_HITS, Outcome
from shadowswitch.storage.generations.generation import Generation
from shadowswitch.storage.quality.comparing import CompareSides, Side, SidesCompared

logger = logging.getLogger("shadowswitch")

RELEVANCE = "RELEVANCE"
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


def examine_relevance(
    context: EngineContext,
    answers: WorkerAnswers,
    target: Generation,
    live: Generation | None,
    queries: Sequence[str],
    deadline: float,
) -> Validation:
    """The findings of RELEVANCE. `queries` are asked where no query is judged, in place of the last ones of readers."""
    if target.row.opaque or (live is not None and live.row.opaque):
        return _unchecked(ONLY_ITS_BUILDER)
    if live is None:
        return _unchecked("for there is nothing to compare with")
    budget_s = min(BUDGET_S_MAX, max(0.1, (deadline - context.clock.monotonic()) / 2))
    asked = list(filter(is_unicode, queries)) or last_asked(live)
    with live.kept() as is_open:
        if not is_open:
            return _unchecked("for the live index was closed")
        try:
            found = compare_sides(context, answers, live, target, None, asked, NDCG_HITS, 0, budget_s, deadline)
        except CorruptData as error:
            if error.object != str(live.path):
                raise
            logger.error("the live index cannot be compared with generation %d: %s", target.row.number, error)
            return _unchecked(f"for the live index cannot be read ({error.message})")
    if found.summary is None:
        return _unchecked("for no query is judged, and no reader has asked one")
    return _validation(found.summary, found.queries, budget_s)


def _validation(summary: Summary, queries: int, budget_s: float) -> Validation:
    verdict = summary.verdict
    text = verdict.message + wrong_text(summary)
    if verdict.outcome == Outcome.TOO_FEW and queries >= JUDGED_MIN:
        late = f"only {summary.queries} of {queries} judged queries were asked in {budget_s:.1f} s"
        return _found([f"{late}: give the switch more time (switch_timeout_seconds)"], "")
    if not verdict.passed:
        return _found([text], "")
    return _found([], f"{RELEVANCE}: {text}")


def wrong_text(summary: Summary) -> str:
    """The judgments that are left out, as messages name them; "" if there are none."""
    if not summary.judgments_left_out:
        return ""
    return f"; {summary.judgments_left_out} judgments are left out: {'; '.join(summary.wrong_judgments)}"


def _found(problems: list[str], note: str) -> Validation:
    errors = [f"{RELEVANCE}: {problem}" for problem in problems]
    return msgspec.structs.replace(_NOTHING, findings={RELEVANCE: problems}, errors=errors, note=note)


def _unchecked(why: str) -> Validation:
    return msgspec.structs.replace(_NOTHING, findings={RELEVANCE: []}, unchecked=f"{RELEVANCE}, {why}")


_NOTHING = Validation({}, [], [], 0, 0)
