"""A SEARCH_INDEX with the backend tantivy, through the engine: switches both ways, forks, groups, other processes."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

import pytest

from shadowswitch import Delete, Engine, Put
from tests.support.engine_helpers import KIND, TYPES

TANTIVY = {"backend": "tantivy", "shards": 2}


SEARCH = """
import sys
from pathlib import Path
from shadowswitch.engine.reader import outside_reader
from shadowswitch.storage.catalog.environment import Catalog
data = Path(sys.argv[1])
with outside_reader(data, Catalog(data / "catalog", readonly=True), "main", sys.argv[2]) as reader:
    print(len(reader.search("elm", 1000)), [hit.id for hit in reader.search("fir")])
"""


@pytest.fixture
def engine(open_engine: Any) -> Engine:
    engine: Engine = open_engine()
    engine.create_branch("main")
    engine.write("main", [Put(TYPES[0], f"r{number}", {"title": f"elm w{number}"}) for number in range(300)])
    return engine


def found(engine: Engine, branch: str, query: str) -> list[str]:
    with engine.reader(branch, KIND, min_lsn=engine.head(branch), timeout_s=30) as reader:
        return sorted(hit.id for hit in reader.search(query, 1000))


def test_switches_to_tantivy_and_back_lose_nothing(engine: Engine) -> None:
    assert engine.rebuild("main", KIND, TYPES, {"backend": "fts5"}).success
    assert engine.rebuild("main", KIND, TYPES, TANTIVY).success
    engine.write("main", [Put(TYPES[0], "r0", {"title": "fir"}), Delete(TYPES[0], "r1")])
    assert found(engine, "main", "fir") == ["r0"]
    assert len(found(engine, "main", "elm")) == 298
    begun = time.monotonic()
    assert engine.rollback("main", KIND).success
    print(f"rollback in {time.monotonic() - begun:.3f} s")
    engine.write("main", [Put(TYPES[0], "r2", {"title": "fir"})])
    assert found(engine, "main", "fir") == ["r0", "r2"]
    assert engine.rollback("main", KIND).success
    assert found(engine, "main", "fir") == ["r0", "r2"]
    assert list(engine.check()) == []


def test_a_build_with_other_weights_or_tokens_begins_with_the_rows(engine: Engine) -> None:
    steps = (({"title": 1}, "unicode61"), ({"title": 3}, "unicode61"), ({"title": 3}, "porter cjk"))
    for built, (columns, tokenizer) in enumerate(steps):
        config = {**TANTIVY, "columns": columns, "tokenizer": tokenizer}
        assert engine.rebuild("main", KIND, TYPES, config, seed="require" if built else "never").success
        engine.write("main", [Put(TYPES[0], "r5", {"title": "fir"})])
        assert (found(engine, "main", "fir"), len(found(engine, "main", "elm"))) == (["r5"], 299)
    assert list(engine.check()) == []


def test_a_fork_has_a_tantivy_index_of_its_own(engine: Engine) -> None:
    assert engine.rebuild("main", KIND, TYPES, TANTIVY).success
    engine.fork_branch("other", "main")
    engine.write("other", [Put(TYPES[0], "r0", {"title": "fir"})])
    assert (found(engine, "other", "fir"), found(engine, "main", "fir")) == (["r0"], [])
    assert len(found(engine, "other", "elm")) == 299


def test_a_group_reads_a_tantivy_index_as_of_one_lsn(engine: Engine) -> None:
    assert engine.rebuild("main", KIND, TYPES, TANTIVY).success
    assert engine.rebuild("main", "GRAPH_INDEX", TYPES, {"backend": "kv"}).success
    with engine.read_group("main", [KIND, "GRAPH_INDEX"]) as view:
        before = view[KIND].search("elm", 1000)
        engine.write("main", [Delete(TYPES[0], f"r{number}") for number in range(100)])
        assert len(found(engine, "main", "elm")) == 200
        assert view[KIND].search("elm", 1000) == before
        assert view[KIND].lsn == view["GRAPH_INDEX"].lsn


def test_fields_and_highlights_of_hits(engine: Engine) -> None:
    assert engine.rebuild("main", KIND, TYPES, TANTIVY).success
    with engine.reader("main", KIND) as reader:
        (hit,) = reader.search("w17", fields=["title"], highlight=True)
    assert hit.fields == {"title": "elm w17"}
    assert hit.highlights


def test_another_process_reads_a_tantivy_index(engine: Engine) -> None:
    assert engine.rebuild("main", KIND, TYPES, TANTIVY).success
    engine.write("main", [Put(TYPES[0], "r0", {"title": "fir"})])
    assert found(engine, "main", "fir") == ["r0"]
    command = [sys.executable, "-c", SEARCH, str(engine.path), KIND]
    said = subprocess.run(command, check=True, text=True, capture_output=True, timeout=60).stdout
    assert said == "299 ['r0']\n"
