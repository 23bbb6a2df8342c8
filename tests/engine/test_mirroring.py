"""Mirroring: a share of live queries is asked of a BUILT shadow, and readers do not feel it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from shadowswitch import Config, Engine, Put
from shadowswitch.engine.quality.mirroring import QUERIES_MAX, SHADOWS_MAX, Mirrors, added
from shadowswitch.model.errors import InvalidConfig, Timeout
from shadowswitch.model.records import Hit
from shadowswitch.model.search.comparison import ComparisonRow, Mirrored
from tests.support.engine_helpers import KIND, wait_until

TYPE = "object_type"
HIT = Hit(TYPE, "a", 1.0, 1)


def row(query: str, live: bool = True, shadow: bool = True, overlap: float = 1.0) -> ComparisonRow:
    return ComparisonRow(query, [HIT] * live, [HIT] * shadow, overlap, 1.0, None, 2.0, 4.0)


def _engine(path: Path, share: float) -> Engine:
    engine = Engine.open(path, Config(mirror_share=share))
    engine.create_branch("main")
    engine.write("main", [Put(TYPE, f"r{n}", {"text": f"it runs {n}"}) for n in range(50)])
    assert engine.rebuild("main", KIND, [TYPE]).success
    return engine


def _searched(engine: Engine, *queries: str) -> None:
    with engine.reader("main", KIND) as reader:
        for query in queries:
            reader.search(query)


def test_live_queries_are_summed_for_the_newest_built_shadow(tmp_path: Path) -> None:
    with _engine(tmp_path / "data", 1.0) as engine:
        shadow = engine.start_build("main", KIND, [TYPE], {"tokenizer": "porter"}).shadow_index_id
        engine.wait_for(shadow, "BUILT")
        assert engine.compare(shadow, ["x"]).mirrored is None
        _searched(engine, "runs", "run", "runs 7", "\ud800", "  ")
        found: list[Mirrored] = []

        def is_summed() -> bool:
            mirrored = engine.compare(shadow, ["x"]).mirrored
            found[:] = [mirrored] if mirrored is not None else []
            return bool(found) and found[0].queries == 3

        wait_until(is_summed, what="the mirrored queries")
        assert (found[0].live_zero, found[0].shadow_zero, found[0].lost) == (1, 0, 0)
        assert 0 < found[0].overlap < 1
        assert found[0].live_ms > 0
        with engine.reader("main", KIND, shadow_index_id=shadow) as preview:
            preview.search("runs")
        assert engine.switch(shadow).success
        _searched(engine, "runs")


def test_nothing_is_mirrored_by_default_or_without_a_shadow(tmp_path: Path) -> None:
    with _engine(tmp_path / "data", 0.0) as engine:
        shadow = engine.start_build("main", KIND, [TYPE], {"tokenizer": "porter"}).shadow_index_id
        engine.wait_for(shadow, "BUILT")
        _searched(engine, *["runs"] * 20)
        assert engine.compare(shadow, ["x"]).mirrored is None


@pytest.mark.parametrize("wrong", [-0.1, 1.1, True, "all", float("nan")])
def test_a_share_is_between_0_and_1(wrong: object) -> None:
    with pytest.raises(InvalidConfig, match="mirror_share"):
        Config(mirror_share=wrong)  # type: ignore[arg-type]


def _rounds(mirrors: Mirrors, ask: Callable[..., object]) -> None:
    """One round of what was noted, on this thread."""
    mirrors._ask = ask  # type: ignore[assignment]
    noted, mirrors._noted = mirrors._noted, {}
    for index, queries in noted.items():
        mirrors._round(index, list(queries))


def test_what_is_too_much_for_a_round_is_dropped_and_an_error_ends_nothing() -> None:
    mirrors, asked = Mirrors(1.0), list[list[str]]()
    for number in range(3 * QUERIES_MAX):
        mirrors.note((1, KIND), f"q{number}")

    def ask(index: object, queries: list[str]) -> tuple[str, list[ComparisonRow]]:
        asked.append(queries)
        return "shadow", [row(query) for query in queries]

    _rounds(mirrors, ask)
    assert asked == [[f"q{number}" for number in range(2 * QUERIES_MAX, 3 * QUERIES_MAX)]]
    mirrors.note((1, KIND), "q")

    def late(index: object, queries: list[str]) -> None:
        raise Timeout("planted")

    _rounds(mirrors, late)
    mirrors.note((1, KIND), "q")
    _rounds(mirrors, ask)
    found = mirrors.of("shadow")
    assert found is not None
    assert found.queries == QUERIES_MAX + 1
    for number in range(SHADOWS_MAX):
        mirrors.note((1, KIND), "q")
        _rounds(mirrors, lambda index, queries, number=number: (f"other-{number}", [row("q")]))
    assert mirrors.of("shadow") is None
    mirrors.close()


def test_the_sums_are_means_and_counts() -> None:
    sums = added(None, [row("a"), row("b", shadow=False, overlap=0.0)])
    sums = added(sums, [row("c", live=False, shadow=False, overlap=1.0), row("d", overlap=0.0)])
    assert sums == Mirrored(4, 0.5, 1, 2, 1, 2.0, 4.0)
    assert added(sums, []) == sums
