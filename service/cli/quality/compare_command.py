"""`shadowswitch compare`: the same queries of the live index and of a shadow, in two columns."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import App, Parameter
from cyclopts.validators import Number

from shadowswitch.engine.quality.comparing import LIMIT_MAX, TIMEOUT_S_MAX
from shadowswitch.model.search.comparison import AskedFrom, Comparison, ComparisonRow, Mirrored, Summary, keys_of
from shadowswitch.model.search.relevance import Key
from shadowswitch.service.cli import output
from shadowswitch.service.cli.builds import full_id
from shadowswitch.service.cli.directory import Data, Json, ShadowId, open_engine

SHOWN_MAX = 10
"""Tables on a terminal; `--json` has every row."""
SOURCES = {
    AskedFrom.CALLER: "given",
    AskedFrom.JUDGMENTS: "judged",
    AskedFrom.READERS: "last asked by readers",
}


def add_to(app: App) -> None:
    """Register the command."""
    app.command(compare)


def compare(
    shadow_id: ShadowId,
    *queries: str,
    data: Data,
    limit: Annotated[int, Parameter(validator=Number(gte=1, lte=LIMIT_MAX))] = 10,
    timeout: Annotated[float, Parameter(validator=Number(gt=0, lte=TIMEOUT_S_MAX))] = 30,
    json: Json = False,
) -> None:
    """Ask the live index and a shadow the same queries: two columns, what moved, what vanished, and a verdict.

    Without queries they are the judged ones of the branch: records of the type judgment. Without judgments they are the
    last ones that readers of a running server have asked.

    Example: `shadowswitch compare 5f0c... "event loop" "run" --data ./data`

    Parameters
    ----------
    queries
        The queries.
    limit
        Hits of each query.
    timeout
        Seconds; queries for which there is no time are counted and left out.
    """
    shadow_id = full_id(data, shadow_id)
    with open_engine(data) as engine:
        found = engine.compare(shadow_id, list(queries) or None, limit, timeout)
    if json:
        output.print_json(found)
        return
    for row in found.rows[:SHOWN_MAX]:
        _print_row(row)
    if len(found.rows) > SHOWN_MAX:
        output.say(f"{len(found.rows) - SHOWN_MAX} more queries: --json has them")
    output.say(*summary_lines(found))


def _print_row(row: ComparisonRow) -> None:
    before, after = keys_of(row.live), keys_of(row.shadow)
    ranks = {key: rank for rank, key in enumerate(before, 1)}
    rows = []
    for rank in range(1, max(len(before), len(after)) + 1):
        old, new = (keys[rank - 1] if rank <= len(keys) else None for keys in (before, after))
        rows.append([rank, _name(old), _name(new), _change(ranks, new, rank)])
    ndcg = f", nDCG {row.ndcg.live:.2f} -> {row.ndcg.shadow:.2f}" if row.ndcg is not None else ""
    figures = f"overlap {row.overlap:.0%}, rbo {row.rbo:.2f}{ndcg}, {row.live_ms:.1f} -> {row.shadow_ms:.1f} ms"
    output.print_table(f"{row.query}  ({figures})", ["", "live", "shadow", "in the shadow"], rows)
    if row.vanished:
        output.say(f"vanished: {', '.join(map(_name, row.vanished))}")
    if row.stopped:
        output.say(f"no answer: {row.stopped}")


def _name(key: Key | None) -> str:
    return " ".join(key) if key is not None else ""


def _change(ranks: dict[Key, int], key: Key | None, rank: int) -> str:
    if key is None:
        return ""
    before = ranks.get(key)
    return "new" if before is None else "" if before == rank else f"was {before}"


def summary_lines(found: Comparison) -> list[str]:
    """What a comparison says in all."""
    summary = found.summary
    ndcg = f", nDCG {summary.ndcg.live:.3f} -> {summary.ndcg.shadow:.3f}" if summary.ndcg is not None else ""
    zero, left = summary.zero_results, f", {summary.left_out} left out" if summary.left_out else ""
    asked = output.counted(summary.queries, "query", "queries")
    return [
        f"{asked} ({SOURCES[summary.asked_from]}{left}) of generation {found.live_generation}, live, and"
        f" {found.shadow_generation}: overlap {summary.overlap:.0%}, rbo {summary.rbo:.2f}{ndcg},"
        f" {summary.live_ms:.1f} -> {summary.shadow_ms:.1f} ms",
        f"without hits: {zero.live} in the live index, {zero.shadow} in the shadow, {zero.lost} in the shadow alone",
        *_mirrored(found.mirrored),
        *_wrong(summary),
        summary.verdict.message,
    ]


def _mirrored(found: Mirrored | None) -> list[Any]:
    if found is None:
        return []
    return [
        f"{output.counted(found.queries, 'mirrored query', 'mirrored queries')}: overlap {found.overlap:.0%},"
        f" {found.lost} without hits in the shadow alone, {found.live_ms:.1f} -> {found.shadow_ms:.1f} ms"
    ]


def _wrong(summary: Summary) -> list[Any]:
    if not summary.judgments_left_out:
        return []
    return [f"{summary.judgments_left_out} judgments are left out: {'; '.join(summary.wrong_judgments)}"]
