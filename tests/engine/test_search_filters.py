"""Filters and pages of a search: by resource type, by the values of fields, beyond the first thousand hits."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shadowswitch import Config, Delete, Engine, Put, SwitchRequest
from shadowswitch.engine.reader import Reader
from shadowswitch.model.errors import CorruptData, InvalidConfig, InvalidName, JournalTrimmed, Timeout
from shadowswitch.model.search.where import parse_where
from shadowswitch.storage.catalog import keys
from tests.support import inside
from tests.support.cli_helpers import Cli
from tests.support.damage import flip, record_key
from tests.support.engine_helpers import KIND, wait_until

TYPES = ["link_type", "object_type"]
CONFIGS: list[dict[str, Any]] = [
    {"backend": "fts5", "parallel_workers": 1, "shards": 1},
    {"backend": "fts5", "parallel_workers": 1, "shards": 3},
    {"backend": "kv", "parallel_workers": 1, "shards": 2},
    {"backend": "kv", "parallel_workers": 1, "fields": ["text"]},
]


@pytest.mark.parametrize(
    ("where", "fields", "passes"),
    [
        ({"a": 1}, {"a": 1}, True),
        ({"a": 1}, {"a": 1.0}, True),
        ({"a": 1}, {"a": True}, False),
        ({"a": True}, {"a": 1}, False),
        ({"a": None}, {"a": None}, True),
        ({"a": None}, {}, False),
        ({"a": "x"}, {"a": ["x"]}, False),
        ({"a": ["x", {"in": 1}]}, {"a": ["x", {"in": 1.0}]}, True),
        ({"a": ["x", {"in": 1}]}, {"a": ["x", {"in": True}]}, False),
        ({"a": {"gte": 2, "lt": 3}}, {"a": 2}, True),
        ({"a": {"gte": 2, "lt": 3}}, {"a": 3}, False),
        ({"a": {"gt": 2}}, {"a": 2}, False),
        ({"a": {"lte": 2}}, {"a": 2.5}, False),
        ({"a": {"gte": "2026-01-01"}}, {"a": "2026-01-02"}, True),
        ({"a": {"gte": 0}}, {"a": "1"}, False),
        ({"a": {"gte": 0}}, {"a": True}, False),
        ({"a": {"lt": 9}}, {}, False),
        ({"a": {"in": [1, "x", {"b": 2}]}}, {"a": {"b": 2}}, True),
        ({"a": {"in": [1, "x"]}}, {"a": True}, False),
        ({"a": {"in": []}}, {"a": 1}, False),
        ({"a": {"exists": True}}, {"a": None}, True),
        ({"a": {"exists": False}}, {"a": None}, False),
        ({"a": {"exists": False}}, {"b": 1}, True),
        ({"a": 1, "b": {"gt": 1}}, {"a": 1, "b": 1}, False),
    ],
)
def test_a_filter_compares_json_values(where: dict[str, Any], fields: dict[str, Any], passes: bool) -> None:
    found = parse_where(where)
    assert found is not None
    assert found.matches(fields) is passes


@pytest.mark.parametrize(
    "wrong",
    [
        "text", [], {1: 2}, {"a": {}}, {"a": {"near": 1}}, {"a": {"gte": None}}, {"a": {"gte": True}},
        {"a": {"lt": [1]}}, {"a": {"gte": float("nan")}}, {"a": {"in": "text"}}, {"a": {"in": [0] * 1001}},
        {"a": {"exists": 1}}, {"a": object()}, {"a": "\ud800"}, {str(n): n for n in range(101)}, {"a": "x" * 70_000},
    ],
)  # fmt: skip
def test_a_wrong_filter_is_refused(wrong: Any) -> None:
    with pytest.raises(InvalidConfig, match=r"where|exists|in of|gte|lt"):
        parse_where(wrong)


def test_no_filter_lets_everything_pass() -> None:
    assert parse_where(None) is None
    assert parse_where({}) is None


@pytest.fixture(params=CONFIGS, ids=lambda config: "-".join(map(str, config.values())))
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """An index of 2,400 records of two types. A query `user` finds all of them."""
    with Engine.open(tmp_path / "data") as engine:
        engine.create_branch("main")
        chance = random.Random(3)
        for start in range(0, 2400, 800):
            puts = [_record(number, chance) for number in range(start, start + 800)]
            engine.write("main", puts)
        assert engine.rebuild("main", KIND, TYPES, request.param).success
        yield engine
        assert engine.check() == []


def _record(number: int, chance: random.Random) -> Put:
    fields: dict[str, Any] = {"text": "user " * chance.randint(1, 3), "size": number, "tags": ["even", number % 2]}
    if number % 3 == 0:
        fields["third"] = f"t{number % 30:02}"
    return Put(TYPES[number % 2], f"user-{number:04}", fields)


def test_pages_and_filters_give_what_the_whole_list_of_hits_gives(engine: Engine) -> None:
    records = {(one.resource_type, one.id): one.fields for one in engine.scan("main")}
    with engine.reader("main", KIND, min_lsn=engine.head("main")) as reader:
        everything = reader.search("user", 5000)
        assert len(everything) == len(records) == 2400
        order = [(-hit.score, hit.resource_type, hit.id) for hit in everything]
        assert order == sorted(order)
        pages = [reader.search("user", 700, offset=offset) for offset in range(0, 3500, 700)]
        assert [hit for page in pages for hit in page] == everything
        for offset, limit in ((999, 2), (1000, 1), (2399, 10), (2400, 1), (10**30, 10**30)):
            assert reader.search("user", limit, offset=offset) == everything[offset : offset + limit]
        wheres: list[dict[str, Any] | None] = [
            None, {}, {"size": {"gte": 100, "lt": 1300}}, {"third": "t06"}, {"third": {"exists": False}, "size": 7},
            {"tags": ["even", 1]}, {"nowhere": 1}, {"nowhere": {"exists": False}}, {"size": {"in": [1, 2399, "2"]}},
        ]  # fmt: skip
        for where in wheres:
            passing = parse_where(where)
            for types in (None, ["link_type"], TYPES, ["object_type"]):
                expected = [
                    hit
                    for hit in everything
                    if (types is None or hit.resource_type in types)
                    and (passing is None or passing.matches(records[hit.resource_type, hit.id]))
                ]
                for offset, limit in ((0, 5000), (3, 4), (300, 50)):
                    found = reader.search("user", limit, offset=offset, resource_types=types, where=where)
                    assert found == expected[offset : offset + limit], (where, types, offset, limit)


def test_wrong_pages_and_types_are_refused(engine: Engine) -> None:
    with engine.reader("main", KIND) as reader:
        for offset in (-1, 1.5, True, "1"):
            with pytest.raises(InvalidConfig, match="offset"):
                reader.search("user", offset=offset)  # type: ignore[arg-type]
        with pytest.raises(InvalidConfig, match="resource_types"):
            reader.search("user", resource_types="object_type")
        with pytest.raises(InvalidConfig, match="0 resource types"):
            reader.search("user", resource_types=[])
        with pytest.raises(InvalidName):
            reader.search("user", resource_types=["bad\ntype"])
        with pytest.raises(InvalidConfig, match="operator"):
            reader.search("user", where={"size": {"near": 1}})


def test_a_search_for_a_type_that_the_index_was_built_without_is_refused(engine: Engine) -> None:
    """No hit would look as if no such record matched."""
    engine.write("main", [Put("object_typ", "later", {"text": "user"})])  # of the branch, not of the index
    with engine.reader("main", KIND) as reader:
        with pytest.raises(InvalidConfig, match=r"without the resource type 'object_typ' .did you mean 'object_type'"):
            reader.search("user", resource_types=["link_type", "object_typ"])
        with pytest.raises(InvalidConfig, match="'none_such'; it has link_type, object_type") as refused:
            reader.search("user", resource_types=["none_such"], where={"size": 1})
        assert (refused.value.operation, "did you mean" in str(refused.value)) == ("search", False)


def test_a_type_of_the_index_without_records_has_no_hits(tmp_path: Path) -> None:
    with Engine.open(tmp_path / "data") as engine:
        engine.create_branch("main")
        engine.write("main", [_sized(1, 1)])
        assert engine.rebuild("main", KIND, TYPES, CONFIGS[0], SwitchRequest(allow_empty=True)).success
        with engine.reader("main", KIND) as reader:
            assert reader.search("user", resource_types=["link_type"]) == []
            assert len(reader.search("user", resource_types=TYPES)) == 1


# -- the version that the index shows --------------------------------------------------------------------------------

COUNT = 400
SHORT = Config(journal_keep_changes=0, janitor_interval_s=0.02, flush_interval_s=0.05, flush_changes=1)


@pytest.fixture
def short(tmp_path: Path) -> Iterator[Engine]:
    """An index of 400 records, and a journal that keeps only what no index shows."""
    with Engine.open(tmp_path / "data", SHORT) as engine:
        engine.create_branch("main")
        engine.write("main", [_sized(number, number) for number in range(COUNT)])
        assert engine.rebuild("main", KIND, TYPES, CONFIGS[0], SwitchRequest(allow_empty=True)).success
        yield engine
        assert engine.check() == []


def _sized(number: int, size: int) -> Put:
    return Put("object_type", f"{number:03}", {"text": "user", "size": size})


def _ids(reader: Reader, where: dict[str, Any], **how: Any) -> list[str]:
    return [hit.id for hit in reader.search("user", 1000, where=where, **how)]


def _is_trimmed(engine: Engine) -> bool:
    try:
        engine.changes("main", 0)
    except JournalTrimmed:
        return True
    return False


def test_a_filter_is_answered_from_the_version_that_the_index_shows(tmp_path: Path) -> None:
    """The catalog has the versions that came later; the journal has the ones that the index shows."""
    with Engine.open(tmp_path / "data") as engine:
        engine.create_branch("main")
        engine.write("main", [_sized(number, number) for number in range(20)])
        assert engine.rebuild("main", KIND, ["object_type"], CONFIGS[0]).success
        with engine.reader("main", KIND) as reader:
            with inside.pause_apply(engine, reader.generation):
                engine.write("main", [_sized(3, 99), Delete("object_type", "004"), _sized(20, 4)])
                engine.write("main", [_sized(3, 4)])
                assert _ids(reader, {"size": {"in": [4, 99]}}) == ["004"]
                assert _ids(reader, {"size": {"lte": 4}}) == ["000", "001", "002", "003", "004"]
                shown = reader.search("user", 3, offset=2, fields=["size"])
                assert [(hit.id, hit.fields) for hit in shown] == [(f"00{n}", {"size": n}) for n in (2, 3, 4)]
            with engine.reader("main", KIND, min_lsn=engine.head("main")):
                assert _ids(reader, {"size": {"in": [4, 99]}}) == ["003", "020"]


def test_a_filter_waits_for_the_index_when_the_version_that_it_shows_is_gone(short: Engine) -> None:
    wait_until(lambda: _is_trimmed(short), what="the trimming of the journal")
    found: list[list[str]] = []
    with short.reader("main", KIND) as reader:
        with inside.pause_apply(short, reader.generation):
            short.write("main", [_sized(7, 1000)])
            with pytest.raises(Timeout, match=r"written again.*try again"):
                _ids(reader, {"size": {"gte": 398}}, timeout_s=0.2)
            assert _ids(reader, {"size": 399}, resource_types=["link_type"]) == []
            searching = threading.Thread(target=lambda: found.append(_ids(reader, {"size": {"gte": 398}})))
            searching.start()
            searching.join(0.2)
            assert found == []
        searching.join(60)
        assert found == [["007", "398", "399"]]


def test_a_damaged_record_is_no_damage_of_the_index(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with Engine.open(data) as engine:
        engine.create_branch("main")
        engine.write("main", [_sized(number, number) for number in range(20)])
        assert engine.rebuild("main", KIND, ["object_type"], CONFIGS[0]).success
        live = engine.index("main", KIND).generation
    flip(data, "records", record_key("007"), keys.RECORD_HEADER.size + keys.CHECKSUM.size + 1)
    with Engine.open(data) as engine, engine.reader("main", KIND) as reader:
        with pytest.raises(CorruptData, match=r"object_type.*is damaged"):
            _ids(reader, {"size": 8})
        assert len(reader.search("user", 1000)) == 20
        assert engine.index("main", KIND).generation == live == reader.generation


def test_filters_and_pages_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli, data = Cli(capsys), tmp_path / "data"
    with Engine.open(data) as engine:
        engine.create_branch("main")
        engine.write("main", [_sized(number, number) for number in range(COUNT)])
        assert engine.rebuild("main", KIND, TYPES, CONFIGS[1], SwitchRequest(allow_empty=True)).success
    call = ["search", "main", "user", "--data", data]
    where = json.dumps({"size": {"gte": 100}})
    found = cli.json(*call, "--type", "object_type", "--type", "link_type", "--offset", 298, "--where", where)
    assert [hit["id"] for hit in found["hits"]] == ["398", "399"]
    assert cli.json(*call, "--type", "link_type")["hits"] == []
    said = "the index was built without the resource type 'object_typ' (did you mean 'object_type'?); it has link_type"
    assert said in cli.error(*call, "--type", "object_typ", status=2)
    assert said in cli.error(*call, "--type", "link_type", "--type", "object_typ", status=2)
    for wrong in ("text", "[1]", "{", '{"size": {"near": 1}}'):
        assert "where" in cli.error(*call, "--where", wrong, status=2)
    cli.error(*call, "--offset", -1, status=2)
