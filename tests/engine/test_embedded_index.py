"""A VECTOR_INDEX that embeds texts: what it embeds, what it does not embed again, and an embedder that fails."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from shadowswitch import Delete, Engine, InvalidConfig, Put, SwitchRequest, Timeout, UnknownIndex
from tests.support.embedder import DIMENSIONS, LOG, REFUSED
from tests.support.engine_helpers import wait_until

VECTOR, N = "VECTOR_INDEX", 40
MODEL: dict[str, Any] = {
    "backend": "vector", "embedder": "tests.support.embedder:embed", "field": ["title", "body"],
    "dimensions": DIMENSIONS, "shards": 2,
}  # fmt: skip
OTHER = {**MODEL, "embedder": "tests.support.embedder:embed_backwards"}
WORDS = ("alder", "birch", "cedar", "dogwood", "elm", "fir", "ginkgo", "hazel")


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(LOG, str(tmp_path / "embedded"))
    monkeypatch.setenv(REFUSED, str(tmp_path / "refused"))
    return tmp_path / "embedded"


@pytest.fixture
def engine(open_engine: Any, log: Path) -> Engine:
    engine: Engine = open_engine()
    engine.create_branch("main")
    engine.write("main", [put(number) for number in range(N)])
    return engine


def put(number: int, text: str = "") -> Put:
    return Put(
        "doc", f"d{number}", {"title": f"number{number}", "body": text or WORDS[number % len(WORDS)], "n": number}
    )


def embedded(log: Path) -> int:
    """The texts that were embedded since the last call."""
    if not log.exists():
        return 0
    count = len(log.read_text("utf-8").splitlines())
    log.unlink()
    return count


def near(engine: Engine, query: Any, branch: str = "main", **how: Any) -> list[str]:
    with engine.reader(branch, VECTOR, min_lsn=engine.head(branch), timeout_s=60) as reader:
        return [hit.id for hit in reader.vector.nearest(query, **{"limit": 3, "timeout_s": 60, **how})]


def test_a_text_is_embedded_once_and_an_edit_embeds_one_record(engine: Engine, log: Path) -> None:
    assert engine.rebuild("main", VECTOR, ["doc"], MODEL).success
    assert embedded(log) == N
    engine.write("main", [put(7, "fir fir fir")])
    assert near(engine, ("doc", "d7"), limit=1) == ["d7"]
    assert embedded(log) == 1
    engine.write(
        "main", [put(7), Put("doc", "d8", {"title": "number8", "body": "alder", "n": 99}), Delete("doc", "d9")]
    )
    assert len(near(engine, ("doc", "d7"), limit=50)) == N - 1
    assert embedded(log) == 0  # a text that was there before, an edit of another field, a delete
    assert engine.rebuild("main", VECTOR, ["doc"], {**MODEL, "shards": 1}).success
    assert engine.rollback("main", VECTOR).success
    assert near(engine, ("doc", "d7"), limit=1) == ["d7"]
    engine.fork_branch("feature", "main")
    assert near(engine, ("doc", "d7"), "feature", limit=1) == ["d7"]
    assert embedded(log) == 0
    assert list(engine.check()) == []


def test_a_text_without_a_vector_is_near_to_none_and_holds_nothing_up(engine: Engine, log: Path) -> None:
    nothing = [Put("doc", f"x{number}", fields) for number, fields in enumerate(({}, {"title": " "}, {"title": "?"}))]
    engine.write("main", nothing)
    assert engine.rebuild("main", VECTOR, ["doc"], MODEL).success
    assert embedded(log) == N + 1
    with engine.reader("main", VECTOR) as reader:
        assert (reader.count(), reader.vector.size()) == (N + 3, N)
        for query in ("?", " ", ""):
            with pytest.raises(InvalidConfig):
                reader.vector.nearest(query, timeout_s=60)
    assert engine.rebuild("main", VECTOR, ["doc"], {**MODEL, "shards": 1}).success
    assert embedded(log) == 0


def test_another_model_is_a_rebuild_and_both_are_kept_up_until_the_way_back(engine: Engine, log: Path) -> None:
    assert engine.rebuild("main", VECTOR, ["doc"], MODEL).success
    shadow = engine.start_build("main", VECTOR, ["doc"], OTHER)
    engine.wait_for(shadow.shadow_index_id, "BUILT", timeout_s=60)
    assert embedded(log) == 2 * N
    engine.write("main", [put(100, "fir ginkgo")])
    lsn = engine.head("main")
    with engine.reader("main", VECTOR, shadow_index_id=shadow.shadow_index_id, min_lsn=lsn, timeout_s=60) as preview:
        assert preview.vector.nearest("number100 fir ginkgo", limit=1, timeout_s=60)[0].id == "d100"
    assert near(engine, "number100 fir ginkgo", limit=1) == ["d100"]
    assert embedded(log) == 4  # the record by both models, and the query by both
    assert engine.switch(shadow.shadow_index_id).success
    assert engine.rollback("main", VECTOR).success
    assert near(engine, ("doc", "d100"), limit=1) == ["d100"]
    assert embedded(log) == 0


def test_an_engine_that_is_opened_again_embeds_nothing(open_engine: Any, engine: Engine, log: Path) -> None:
    assert engine.rebuild("main", VECTOR, ["doc"], MODEL).success
    engine.close()
    again = open_engine()
    assert "d3" in near(again, ("doc", "d3"), limit=N)
    assert embedded(log) == N
    assert again.rebuild("main", VECTOR, ["doc"], {**MODEL, "shards": 1}).success
    assert embedded(log) == 0


def test_a_cache_that_is_lost_or_damaged_costs_time_and_no_vector(engine: Engine, log: Path, tmp_path: Path) -> None:
    assert engine.rebuild("main", VECTOR, ["doc"], MODEL).success
    (cache,) = tmp_path.rglob("embeddings/*.sqlite")
    with closing(sqlite3.connect(cache)) as connection, connection:
        connection.execute("UPDATE vectors SET floats = zeroblob(length(floats))")
    assert engine.rebuild("main", VECTOR, ["doc"], {**MODEL, "shards": 1}).success
    assert embedded(log) == 2 * N
    assert near(engine, "number5 fir", limit=1) == ["d5"]


def test_an_embedder_that_fails_ends_the_build_and_says_why(engine: Engine) -> None:
    refused = engine.start_build("main", VECTOR, ["doc"], {**MODEL, "embedder": "tests.support.embedder:embed_wrong"})
    status = engine.wait_for(refused.shadow_index_id, "FAILED", timeout_s=60)
    assert f"gave 2 numbers for a text, not {DIMENSIONS}" in str(status.error)
    missing = engine.start_build("main", VECTOR, ["doc"], {**MODEL, "embedder": "tests.support.embedder:absent"})
    assert "absent" in str(engine.wait_for(missing.shadow_index_id, "FAILED", timeout_s=60).error)


def test_an_index_whose_embedder_fails_stands_still_and_goes_on_later(engine: Engine, tmp_path: Path) -> None:
    assert engine.rebuild("main", VECTOR, ["doc"], MODEL).success
    (tmp_path / "refused").touch()
    engine.write("main", [put(200, "hazel hazel")])
    wait_until(lambda: "the model is away" in str(engine.index("main", VECTOR).error), 60)
    with engine.reader("main", VECTOR) as reader:
        assert reader.get("doc", "d200") is None
    (tmp_path / "refused").unlink()
    assert near(engine, ("doc", "d200"), limit=1) == ["d200"]
    assert list(engine.check()) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"embedder": "no_such_module:embed"},
        {"embedder": "tests.support.embedder"},
        {"embedder": 7},
        {"embedder_version": 2},
        {"field": []},
        {"field": None},
        {"field": [""]},
        {"vector_field": "v"},
        {"dimensions": None},
    ],
)
def test_a_wrong_option_is_refused(engine: Engine, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfig) as refused:
        engine.start_build("main", VECTOR, ["doc"], {**MODEL, **wrong})
    assert refused.value.hint


def test_words_and_meaning_are_one_search_of_one_moment(engine: Engine) -> None:
    assert engine.rebuild("main", VECTOR, ["doc"], MODEL).success
    assert engine.rebuild("main", "SEARCH_INDEX", ["doc"], {}).success
    merged = engine.search_many("number5 fir", ["main", ("main", VECTOR)], 5, fields=["n"], timeout_s=60)
    assert merged[0].hit.id == "d5"
    assert merged[0].index_types == ("SEARCH_INDEX", VECTOR)
    assert merged[0].hit.fields == {"n": 5}
    with engine.read_group("main", ["SEARCH_INDEX", VECTOR], timeout_s=60) as view:
        engine.write("main", [Delete("doc", "d5")])
        assert "d5" not in near(engine, "number5 fir", limit=N)
        assert view.search("number5", limit=1, timeout_s=60)[0].hit.id == "d5"
        words = view.search("number5", ["SEARCH_INDEX"], where={"n": 5})
        assert [one.index_types for one in words] == [("SEARCH_INDEX",)]
        with pytest.raises(UnknownIndex, match="GRAPH_INDEX"):
            view.search("number5", ["GRAPH_INDEX"])
        with pytest.raises(Timeout):
            view.search("number5", timeout_s=1e-9)


def test_two_models_are_compared_and_judged_as_analyzers_are(engine: Engine) -> None:
    for n in range(25):
        judged = {"query": f"number{n} {WORDS[n % len(WORDS)]}", "resource_type": "doc", "id": f"d{n}", "grade": 3}
        engine.write("main", [Put("judgment", f"j{n}", judged)])
    assert engine.rebuild("main", VECTOR, ["doc"], MODEL).success
    shadow = engine.start_build("main", VECTOR, ["doc"], OTHER).shadow_index_id
    engine.wait_for(shadow, "BUILT", timeout_s=60)
    compared = engine.compare(shadow, ["number5 fir", "number6 ginkgo"], 3)
    assert [row.live[0].id for row in compared.rows] == ["d5", "d6"]
    assert all(row.overlap == 1.0 for row in compared.rows)  # the same words, turned around
    request = SwitchRequest(validation_checks=("RELEVANCE",), switch_timeout_seconds=60)
    assert engine.switch(shadow, request).success
    with engine.reader("main", VECTOR) as reader:
        page = reader.search("number5 fir", 2, offset=0, where={"n": {"gte": 5}}, fields=["n"], timeout_s=60)
        assert page[0].fields == {"n": 5}


def models_stopped() -> int:
    """Let every process of an embedder of this process stand still; returns their number."""
    count = 0
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and b"serve_vectors" in (folder / "cmdline").read_bytes():
                status = (folder / "status").read_text()
                if f"PPid:\t{os.getpid()}\n" in status:
                    os.kill(int(folder.name), signal.SIGSTOP)
                    count += 1
        except OSError:
            continue
    return count


def test_a_model_that_hangs_holds_up_no_writer_and_no_close(open_engine: Any, engine: Engine) -> None:
    assert engine.rebuild("main", VECTOR, ["doc"], MODEL).success
    shadow = engine.start_build("main", VECTOR, ["doc"], OTHER).shadow_index_id
    engine.wait_for(shadow, "BUILT", timeout_s=60)
    engine.write("main", [put(100, "fir")])
    head = engine.head("main")
    for id in (None, shadow):  # both models are loaded
        with engine.reader("main", VECTOR, min_lsn=head, timeout_s=60, shadow_index_id=id):
            pass
    assert models_stopped() >= 2
    engine.write("main", [put(101, "elm")])
    with contextlib.suppress(Timeout):
        assert not engine.switch(shadow, SwitchRequest(switch_timeout_seconds=1)).success
    for number in range(200, 220):
        engine.write("main", [put(number, "hazel")], timeout_s=10)
    with engine.reader("main", VECTOR) as reader:
        with pytest.raises(Timeout):
            reader.search("elm", timeout_s=0.2)
        assert reader.vector.nearest(("doc", "d100"), limit=1)[0].id == "d100"
    engine.close()
    again = open_engine()
    assert near(again, ("doc", "d219"), limit=1, where={"n": 219}) == ["d219"]
    assert again.switch(shadow, SwitchRequest(switch_timeout_seconds=60)).success
    assert list(again.check()) == []
