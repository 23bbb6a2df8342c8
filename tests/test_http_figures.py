"""What `/metrics` tells beside the usual: holds on the journal, sizes on disk, and only what the caller may see."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from shadowswitch import Engine
from shadowswitch.service.http.access import Access
from shadowswitch.service.http.host import Host, Options
from shadowswitch.service.http.metrics import exposition
from tests.engine_helpers import fill, live

Rows = list[tuple[dict[str, str], float]]


def figures(engine: Engine) -> dict[str, Rows]:
    """The samples by name, each with its labels."""
    text = exposition(Host(engine, Access(), Options())).decode()
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


def test_the_size_of_the_journal_and_of_everything_beside_it_is_told(engine: Engine) -> None:
    fill(engine, 2000)
    found = figures(engine)
    assert found["journal_size_bytes"][0][1] > 4096
    sizes = {labels["database"]: size for labels, size in found["catalog_size_bytes"]}
    assert sizes["journal"] == found["journal_size_bytes"][0][1]
    assert {labels["database"]: count for labels, count in found["catalog_entries"]}["records"] == 2000
