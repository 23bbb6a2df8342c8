"""`/metrics`: holds on the journal, sizes on disk, and the rows that a caller may see."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from shadowswitch import Engine
from shadowswitch.service.http.access import LOCAL, Access, Caller, Scope
from shadowswitch.service.http.host import Host, Options
from shadowswitch.service.http.routes.metrics import exposition
from tests.support.engine_helpers import TYPES, fill, live, wait_until

Rows = list[tuple[dict[str, str], float]]


def figures(engine: Engine, caller: Caller = LOCAL) -> dict[str, Rows]:
    """The samples by name, each with its labels."""
    text = exposition(Host(engine, Access(), Options()), caller).decode()
    found: dict[str, Rows] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name.removeprefix("shadowswitch_"), []).append((sample.labels, sample.value))
    return found


def test_a_hold_on_the_journal_is_a_row_beside_the_generations(engine: Engine) -> None:
    fill(engine, 20)
    live(engine)
    engine.hold_changes("reports", "main", 5)
    held = figures(engine)["journal_held_changes"]
    assert {labels["role"] for labels, _ in held} == {"live", "hold"}
    assert [(labels["hold"], value) for labels, value in held if labels["role"] == "hold"] == [("reports", 15)]


def test_metrics_have_the_size_of_every_database_of_the_catalog(engine: Engine) -> None:
    fill(engine, 2000)
    found = figures(engine)
    assert found["journal_size_bytes"][0][1] > 4096
    sizes = {labels["database"]: size for labels, size in found["catalog_size_bytes"]}
    assert sizes["journal"] == found["journal_size_bytes"][0][1]
    assert {labels["database"]: count for labels, count in found["catalog_entries"]}["records"] == 2000


def test_a_caller_with_a_branch_pattern_sees_no_figure_of_other_branches(engine: Engine) -> None:
    engine.create_branch("feature/a")
    for branch in ("main", "feature/a"):
        fill(engine, 10, branch)
        live(engine, branch)
        engine.hold_changes(f"hold of {branch}", branch, 5)
        engine.start_build(branch, "GRAPH_INDEX", TYPES, external=True)
        engine.acquire_lock(branch, "BACKUP", "alice")
    wait_until(lambda: engine.stats()["counters"].get("readings") == 2)  # the Scrubber's: a metric comes with the first
    of_all, of_some = figures(engine), figures(engine, Caller("carol", frozenset({Scope.READ}), ("feature/*",)))
    assert of_all.keys() == of_some.keys()
    assert "main" not in str(of_some)
    assert (of_all["locks"][0][1], of_some["locks"][0][1]) == (2, 1)
    assert sum(value for _, value in of_some["shadows"]) == 2
    assert {labels["branch"] for labels, _ in of_some["branch_head_lsn"]} == {"feature/a"}
