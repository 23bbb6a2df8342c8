"""Hits that can be shown: fields of the version that was found, and highlights; library, command line."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shadowswitch import Engine, Put
from shadowswitch.model.errors import InvalidConfig
from shadowswitch.model.search.snippets import Snippet
from tests.support.cli_helpers import Cli
from tests.support.engine_helpers import KIND

TYPE = "object_type"


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with Engine.open(tmp_path / "data") as engine:
        engine.create_branch("main")
        puts = [Put(TYPE, f"id-{number:03}", {"title": f"loop {number}", "size": number}) for number in range(200)]
        engine.write("main", puts)
        yield engine


@pytest.mark.parametrize("config", [{"backend": "fts5"}, {"backend": "fts5", "columns": ["title"]}, {"backend": "kv"}])
def test_hits_have_the_fields_that_were_asked_for(engine: Engine, config: dict[str, Any]) -> None:
    assert engine.rebuild("main", KIND, [TYPE], config).success
    query = "id-" if config["backend"] == "kv" else "loop"
    with engine.reader("main", KIND) as reader:
        plain = reader.search(query, 150)
        assert all(hit.fields is None and hit.highlights is None for hit in plain)
        every = reader.search(query, 150, fields=True)
        records = {record.id: record.fields for record in engine.scan("main")}
        assert [(hit.id, hit.fields) for hit in every] == [(hit.id, records[hit.id]) for hit in plain]
        some = reader.search(query, 3, offset=1, fields=["size", "absent"], where={"size": {"gte": 100}})
        assert [hit.fields for hit in some] == [{"size": 101}, {"size": 102}, {"size": 103}]
        assert [hit.fields for hit in reader.search(query, 2, fields=[])] == [{}, {}]
        for hit in reader.search(query, 2, highlight=True):
            assert hit.fields is None
            number = int(hit.id[3:])
            expected = {} if config["backend"] == "kv" else {"title": Snippet(f"loop {number}", [(0, 4)])}
            assert hit.highlights == expected


def test_fields_are_those_of_the_version_that_was_found(engine: Engine) -> None:
    """While others write: a hit shows the fields of its LSN, never those of a later version."""
    assert engine.rebuild("main", KIND, [TYPE], {"parallel_workers": 1}).success
    stop, wrong = threading.Event(), list[str]()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            receipt = engine.write("main", [Put(TYPE, "hot", {"title": f"loop hot w{number}", "n": number})])
            written[receipt.lsn] = number

    written: dict[int, int] = {}
    thread = threading.Thread(target=write)
    thread.start()
    try:
        seen, deadline = set[int](), time.monotonic() + 60
        while len(seen) <= 5 and time.monotonic() < deadline:
            with engine.reader("main", KIND, min_lsn=engine.head("main"), timeout_s=30) as reader:
                for hit in reader.search("hot", 5, fields=["n"], highlight=True):
                    assert hit.fields is not None
                    seen.add(hit.lsn)
                    if hit.lsn in written and written[hit.lsn] != hit.fields["n"]:
                        wrong.append(f"LSN {hit.lsn} shows {hit.fields}, not {written[hit.lsn]}")
    finally:
        stop.set()
        thread.join()
    assert wrong == []
    assert len(seen) > 5


@pytest.mark.parametrize("wrong", ["title", [1], {"title": 1}, ["x"] * 101, 3])
def test_wrong_fields_are_refused(engine: Engine, wrong: Any) -> None:
    assert engine.rebuild("main", KIND, [TYPE], {"backend": "kv"}).success
    with engine.reader("main", KIND) as reader, pytest.raises(InvalidConfig, match="fields"):
        reader.search("id-", fields=wrong)


def test_the_command_line_shows_fields_and_highlights(
    engine: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.write("main", [Put(TYPE, "odd", {"title": "a\x1b[31m loop\nof it", "tags": ["x"]})])
    assert engine.rebuild("main", KIND, [TYPE]).success
    engine.close()
    cli, call = Cli(capsys), ("search", "main", "loop it", "--data", tmp_path / "data", "--highlight")
    found = cli(*call, "--fields", "tags")
    assert "object_type/odd" in found
    assert 'tags: ["x"]' in found
    assert r"title: a\u001b[31m loop of it" in found
    hit = cli.json(*call, "--fields", "*")["hits"][0]
    assert hit["fields"] == {"title": "a\x1b[31m loop\nof it", "tags": ["x"]}
    text, marks = hit["highlights"]["title"]["text"], hit["highlights"]["title"]["marks"]
    assert [text[begin:end] for begin, end in marks] == ["loop", "it"]
