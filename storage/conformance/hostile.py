"""Unusual names, values and queries."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from shadowswitch.model.errors import InvalidConfig, Timeout
from shadowswitch.model.search.bounds import QUERY_CHARS_MAX, TimeLimit
from shadowswitch.storage.backends.protocol import Backend, IndexReader, ShardWriter
from shadowswitch.storage.conformance.base import Shards
from shadowswitch.storage.conformance.expected import Expected, item

CONTROL = "".join(map(chr, range(1, 32))) + "\x7f\x85\u2028"
IDS = (
    "",
    " ",
    "a",
    "A",
    "é",
    "e\u0301",
    "日本語",
    "👩‍👩‍👧‍👦",
    "\U0010ffff",
    "\ufeff",
    CONTROL,
    "'; DROP TABLE docs; --",
    '"quoted" `ticks` [brackets] {"json": 1}',
    "a/b/../../c%2F\\",
    "x" * 459,
    "x" * 460,
    "x" * 461,
    "x" * 499,
    "x" * 1000,
    "x" * 999 + "y",
    "é" * 1000,
    "👍" * 1000,
    "0",
    "00",
    "1e3",
    "null",
)
TYPES = ("t", "object_type", "Тип", "type with 'quotes'")
QUERIES = (
    "", " ", "\0", "\0elm\0", "\ud800", "elm\udfff", '"', '""', '"elm', 'elm"', '"elm" "', "*", "**", "elm*", '"elm"*',
    "-", "elm -", "-elm", "+elm", "^elm", "elm AND", "AND", "OR", "NOT elm", "NEAR(elm fir, 2)", "title:elm", "{a b}:c",
    "(", "((((", "elm)", "\\", "'", "';--", "%", "_", "?", ":x", "@x", "$x", "elm\nfir", "日本語", "👍", "\u0301",
    "x" * 100_000, "x " * 300, '"' * 1001, "\x01\x02", "\u2028", "a" * 40_000 + "*",
)  # fmt: skip


class Hostile(Shards):
    """Every name and value is read as it was written; every query has an answer (BK-6)."""

    def test_every_id_is_a_record_of_its_own(
        self, backend: Backend, options: dict[str, Any], path: Path, writer: ShardWriter
    ) -> None:
        expected = Expected()
        keys = [(resource_type, id) for resource_type in TYPES for id in IDS]
        items = [item(lsn, *key, self.fields_for(f"w{lsn}")) for lsn, key in enumerate(keys, 1)]
        for shard in (writer, expected):
            shard.load(items[::2], b"c")
            shard.finish_load(0)
            shard.apply(items, len(items))
        self.assert_same(backend, options, path, writer, expected)
        changes = [item(1000 + one.lsn, one.resource_type, one.id, None) for one in items[::3]]
        for shard in (writer, expected):
            shard.apply(changes, 2000)
        self.assert_same(backend, options, path, writer, expected)

    def test_every_record_is_found_by_a_query_of_its_own(self, writer: ShardWriter, reader: IndexReader) -> None:
        ids = [id for id in IDS if id.strip() == id and id and "\n" not in id]
        items = [item(lsn, "t", id, self.fields_for(f"unique{lsn}")) for lsn, id in enumerate(ids, 1)]
        writer.apply(items, len(items))
        for one in items:
            found = reader.search(self.query_for("t", one.id, f"unique{one.lsn}"), 1000)
            assert one.id in {hit.id for hit in found}

    def test_large_and_unusual_fields_are_read_as_projected(
        self, backend: Backend, options: dict[str, Any], path: Path, writer: ShardWriter
    ) -> None:
        deep: Any = "bottom"
        for _ in range(60):
            deep = {"d": [deep]}
        strange: list[dict[str, Any]] = [
            {},
            {"title": ""},
            {"title": "long " * 400_000},
            {f"field {number}": f"value {number}" for number in range(2000)},
            {"title": None, "nested": {"tags": [True, 1.5, -(2**63), 2**64 - 1, [], {}, None]}},
            {"title": CONTROL + "'\"\\", "nested": deep},
            {"": "empty name", 'c0"; DROP TABLE docs; --': "x", "title": "日本語 👩‍👩‍👧‍👦 e\u0301"},
            {"title": "\0in\0side\0", "nested": ["\0"]},
        ]
        expected = Expected()
        items = [item(lsn, "t", f"id-{lsn}", fields) for lsn, fields in enumerate(strange, 1)]
        for shard in (writer, expected):
            shard.apply(items, len(items))
        self.assert_same(backend, options, path, writer, expected)
        changes = [item(100 + one.lsn, "t", one.id, {"title": "now plain"}) for one in items]
        for shard in (writer, expected):
            shard.apply(changes, 200)
        self.assert_same(backend, options, path, writer, expected)

    def test_a_query_beyond_the_bound_of_its_length_has_an_answer(
        self, writer: ShardWriter, reader: IndexReader
    ) -> None:
        writer.apply([item(1, "t", "elm", self.fields_for("elm"))], 1)
        query = self.query_for("t", "elm", "elm")
        found = [reader.search(longer, 10) for longer in (query + " " * QUERY_CHARS_MAX, query * QUERY_CHARS_MAX)]
        assert all(hit.id == "elm" for hits in found for hit in hits)
        with pytest.raises(InvalidConfig):
            reader.search(b"elm", 10)  # type: ignore[arg-type]

    def test_a_search_ends_when_its_time_is_over_and_the_next_one_is_answered(
        self, writer: ShardWriter, reader: IndexReader
    ) -> None:
        names = [f"elm{number}" for number in range(600)]
        writer.apply([item(lsn, "t", id, self.fields_for("elm")) for lsn, id in enumerate(names, 1)], len(names))
        query = self.query_for("t", "elm", "elm")
        everything = reader.search(query, 1000)
        assert len(everything) == len(names)
        stopped = 0
        for looks in range(8):
            clock = iter([0.0] * (looks + 1))
            try:
                found = reader.search(query, 1000, time_limit=TimeLimit(1, lambda: next(clock, 2.0)))  # noqa: B023
                assert found == everything
            except Timeout:
                stopped += 1
            assert reader.search(query, 1000) == everything
        assert stopped

    def test_every_query_has_an_answer(self, writer: ShardWriter, reader: IndexReader) -> None:
        names = ("elm", "fir", "elm fir", "日本語", "👍", "x")
        writer.apply([item(lsn, "t", word, self.fields_for(word)) for lsn, word in enumerate(names, 1)], len(names))
        source = random.Random(51)
        alphabet = "elmfir \"'*()-+^:{}[]\\\0\ud800é日👍\n"
        random_queries = ["".join(source.choices(alphabet, k=source.randint(1, 20))) for _ in range(500)]
        for query in (*QUERIES, *random_queries):
            try:
                hits = reader.search(query, 10)
            except Exception as error:
                pytest.fail(f"{query[:80]!r} raised {error!r}")
            assert all(hit.id in names for hit in hits)
