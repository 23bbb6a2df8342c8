"""Records go out as lines and come in again: the same records, wrong lines named, an import that goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from shadowswitch import Delete, Engine, Put
from tests.support.cli_helpers import Cli, spawn
from tests.support.http_helpers import serving

N = 1200
ODD = {
    "none": None,
    "list": [1, "two", {"three": 3.5}],
    "text": "x" * 200_000 + 'a "line"\nwith ends, ümläut 한국어',
    "true": True,
}


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A branch `main` with two types."""
    with Engine.open(tmp_path / "data") as engine:
        engine.create_branch("main")
        for first in range(0, N, 400):
            engine.write(
                "main", [Put("page", f"p{n}", {"title": f"page {n}", "n": n}) for n in range(first, first + 400)]
            )
        engine.write("main", [Put("odd", "o/1", ODD), Delete("page", "p0")])
    return tmp_path / "data"


def content(data: Path, branch: str = "main") -> dict[tuple[str, str], Any]:
    with Engine.open(data) as engine:
        return {(one.resource_type, one.id): one.fields for one in engine.scan(branch)}


def test_an_export_is_imported_as_the_same_records(cli: Cli, data: Path, tmp_path: Path) -> None:
    file, other = tmp_path / "records.jsonl", tmp_path / "other"
    assert "1200 records written" in cli("export", "main", "--output", file, "--data", data)
    assert len(file.read_bytes().splitlines()) == N
    found = cli.json("import", "copy", file, "--data", other)
    assert (found["records"], found["unchanged"]) == (N, 0)
    assert content(other, "copy") == content(data)
    again = cli.json("import", "copy", file, "--data", other)
    assert (again["records"], again["unchanged"], again["lsn"]) == (0, N, 0)


def test_it_goes_through_a_pipe_beside_a_host_and_to_one(data: Path, tmp_path: Path) -> None:
    before = content(data)
    with Engine.open(tmp_path / "other"):
        pass
    with serving(data, "--quiet"), serving(tmp_path / "other", "--quiet"):
        exported = spawn("export", "main", "--data", data)
        imported = subprocess.run(
            [*exported.args[:-4], "import", "main", "-", "--data", str(tmp_path / "other")],  # type: ignore[index]
            stdin=exported.stdout, capture_output=True, text=True, timeout=120, env=os.environ,
        )  # fmt: skip
        assert imported.returncode == 0, imported.stderr
        assert exported.wait(60) == 0
    assert content(tmp_path / "other") == before


def test_csv_goes_out_with_a_column_for_each_field_and_comes_in_as_texts(cli: Cli, data: Path, tmp_path: Path) -> None:
    file, other = tmp_path / "pages.csv", tmp_path / "other"
    cli("export", "main", "--format", "csv", "--output", file, "--data", data)
    assert file.read_text("utf-8").startswith("resource_type,id,")
    cli("import", "main", file, "--data", other)
    found = content(other)
    assert len(found) == N
    assert found["page", "p7"] == {"title": "page 7", "n": "7"}
    assert found["odd", "o/1"] == {
        "list": json.dumps(ODD["list"], separators=(",", ":")),
        "text": ODD["text"],
        "true": "true",
    }


def test_objects_of_strangers_become_records(cli: Cli, tmp_path: Path) -> None:
    lines, table, data = tmp_path / "things.ndjson", tmp_path / "table.csv", tmp_path / "data"
    lines.write_bytes(
        b'\xef\xbb\xbf{"sku": 17, "name": "bolt"}\n\n{"sku": "x", "fields": {"a": 1}, "resource_type": "nut"}\n'
    )
    table.write_text('\ufeffid,title,body\r\n1,"a, b",\r\n2,,"two\nlines"\r\n', "utf-8")
    cli("import", "main", lines, "--resource-type", "part", "--id-field", "sku", "--data", data)
    cli("import", "main", table, "--resource-type", "row", "--data", data)
    assert content(data) == {
        ("part", "17"): {"name": "bolt"},
        ("nut", "x"): {"fields": {"a": 1}},
        ("row", "1"): {"title": "a, b"},
        ("row", "2"): {"body": "two\nlines"},
    }


WRONG = [
    ("a.jsonl", b'{"id": "a"', "it is no JSON"),
    ("a.jsonl", b"[1]", "it is no object"),
    ("a.jsonl", b'{"title": "x"}', "it has no 'id'"),
    ("a.jsonl", b'{"id": true, "title": "x"}', "not a text or a whole number"),
    ("a.jsonl", b'{"id": "a", "resource_type": 7}', "it has no resource_type"),
    ("a.jsonl", b'{"id": "a", "resource_type": "%s"' % (b"t" * 400) + b', "fields": {}}', "line 3"),
    ("a.jsonl", b"\xff\xfe", "it is no JSON"),
    ("a.csv", b"1,2,3", "it has 3 cells, and the head has 2"),
    ("a.csv", b"\xff,2", "it is no CSV in UTF-8"),
]


@pytest.mark.parametrize(("name", "line", "text"), WRONG)
def test_a_wrong_line_is_named_and_what_is_before_it_stays(
    cli: Cli, tmp_path: Path, name: str, line: bytes, text: str
) -> None:
    good = b"id,title\n1,one\n" if name.endswith("csv") else b'{"id": 1, "title": "one"}\n{"id": 2, "title": "two"}\n'
    file, data = tmp_path / name, tmp_path / "data"
    file.write_bytes(good + line + b"\n")
    error = cli.error("import", "main", file, "--resource-type", "t", "--data", data, status=2)
    assert text in error
    if "UTF-8" not in text:
        assert f"{file}, line 3" in error
    file.write_bytes(good)
    cli("import", "main", file, "--resource-type", "t", "--data", data)
    assert content(data)["t", "1"] == {"title": "one"}


def test_the_last_of_two_lines_for_a_record_counts(cli: Cli, tmp_path: Path) -> None:
    file, data = tmp_path / "a.jsonl", tmp_path / "data"
    file.write_text("".join(f'{{"id": {n % 3}, "n": {n}}}\n' for n in range(10)))
    cli("import", "main", file, "--resource-type", "t", "--data", data)
    assert content(data) == {("t", "0"): {"n": 9}, ("t", "1"): {"n": 7}, ("t", "2"): {"n": 8}}


def test_an_import_that_is_killed_is_begun_again(cli: Cli, tmp_path: Path) -> None:
    file, data = tmp_path / "a.jsonl", tmp_path / "data"
    file.write_text("".join(f'{{"id": {n}, "text": "{"x" * 300}"}}\n' for n in range(40_000)))
    running = spawn("import", "main", file, "--resource-type", "t", "--data", data, "--json")
    while running.poll() is None and not (data / "catalog" / "data.mdb").exists():
        pass
    try:
        running.wait(0.8)
    except subprocess.TimeoutExpired:
        running.send_signal(signal.SIGKILL)
        running.wait(30)
    found = cli.json("import", "main", file, "--resource-type", "t", "--data", data)
    assert found["records"] + found["unchanged"] == 40_000
    assert len(content(data)) == 40_000


def test_what_an_export_cannot_do_is_refused(cli: Cli, data: Path, tmp_path: Path) -> None:
    there = tmp_path / "there.jsonl"
    there.write_text("mine")
    assert "is there already" in cli.error("export", "main", "--output", there, "--data", data, status=2)
    assert there.read_text() == "mine"
    assert "give --output" in cli.failure("export", "main", "--data", data, status=2)["message"]
    cli.error("export", "absent", "--data", data, status=1)
    with Engine.open(data) as engine:
        engine.write("main", [Put("page", "p1", {"id": "another"})])
    refused = cli.error("export", "main", "--format", "csv", "--output", tmp_path / "a.csv", "--data", data, status=2)
    assert "use --format jsonl" in refused
    assert sorted(path.name for path in tmp_path.glob("a.csv*")) == []


def test_what_an_import_cannot_do_is_refused(cli: Cli, tmp_path: Path) -> None:
    data = tmp_path / "data"
    (tmp_path / "a.txt").write_text("")
    assert "is not a folder, nor a file" in cli.error("import", "main", tmp_path / "absent", "--data", data, status=2)
    assert "say --format" in cli.error("import", "main", tmp_path / "a.txt", "--data", data, status=2)
    assert "are for a file" in cli.error("import", "main", tmp_path, "--id-field", "x", "--data", data, status=2)
    (tmp_path / "empty.jsonl").write_text("")
    assert "0 records written" in cli("import", "main", tmp_path / "empty.jsonl", "--data", data)


def test_parquet_keeps_every_value_and_its_type(cli: Cli, data: Path, tmp_path: Path) -> None:
    mixed = {"n": 1.5, "huge": 1 << 63, "flag": True, "ratio": 0.5, "empty": {}}
    with Engine.open(data) as engine:
        engine.write("main", [Put("odd", "mixed", mixed), Put("odd", "nothing", {})])
    file, other = tmp_path / "records.parquet", tmp_path / "other"
    cli("export", "main", "--format", "parquet", "--output", file, "--data", data)
    schema = pyarrow.parquet.read_schema(file)
    types = {name: str(schema.field(name).type) for name in ("title", "flag", "ratio", "n", "huge", "list")}
    assert types == {
        "title": "string", "flag": "bool", "ratio": "double", "n": "string", "huge": "string", "list": "string"
    }  # fmt: skip
    assert cli.json("import", "main", file, "--data", other)["records"] == N + 2
    assert content(other) == content(data)
    assert cli.json("import", "main", file, "--data", other)["unchanged"] == N + 2


def test_parquet_of_another_program_becomes_records(cli: Cli, tmp_path: Path) -> None:
    table = {"slug": ["a", "b"], "on": [date(2026, 11, 30), None], "price": [Decimal("1.50"), None], "k": [1, 2]}
    pyarrow.parquet.write_table(pyarrow.table(table), tmp_path / "of.parquet")
    shape = ("--resource-type", "page", "--id-field", "slug", "--data", tmp_path / "data")
    cli("import", "main", tmp_path / "of.parquet", *shape)
    wanted = {("page", "a"): {"on": "2026-11-30", "price": "1.50", "k": 1}, ("page", "b"): {"k": 2}}
    assert content(tmp_path / "data") == wanted
    pyarrow.parquet.write_table(pyarrow.table({"slug": ["a"], "b": [b"\xff"]}), tmp_path / "bytes.parquet")
    assert "line 1" in cli.error("import", "main", tmp_path / "bytes.parquet", *shape, status=2)
    (tmp_path / "no.parquet").write_text("nothing")
    assert "it is no Parquet" in cli.error("import", "main", tmp_path / "no.parquet", *shape, status=2)
    assert "from a file" in cli.error("import", "main", "-", "--format", "parquet", "--data", tmp_path / "d", status=2)
