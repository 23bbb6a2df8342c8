"""The bounds of a search: the tokens of its query, and the time limit that stops the engine beneath it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from shadowswitch.model.errors import Timeout
from shadowswitch.model.records import Item
from shadowswitch.model.search.bounds import TimeLimit
from shadowswitch.model.search.query import TOKENS_MAX
from shadowswitch.storage.backends.fts5.options import Layout
from shadowswitch.storage.backends.fts5.query import parse
from shadowswitch.storage.backends.fts5.reader import Fts5Reader
from shadowswitch.storage.backends.kv.backend import KvBackend
from shadowswitch.storage.backends.kv.reader import SLICE_ROWS
from tests.support.fts5_index import BACKEND, Index, put

KV = KvBackend()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shard-000"


class Looks:
    """A time limit that is over when it is looked at for the last time of so many. Counts the looks."""

    def __init__(self, last: int) -> None:
        self.count = -1  # the first look is that of the limit itself, when it begins
        self._last = last
        self.limit = TimeLimit(1, self._monotonic)

    def _monotonic(self) -> float:
        self.count += 1
        return 2.0 if self.count >= self._last else 0.0


FOREVER = 1 << 30


@pytest.mark.parametrize(
    ("tokenizer", "most", "more"),
    [
        ("unicode61", "a." * TOKENS_MAX, "a." * (TOKENS_MAX + 1)),
        ("unicode61", "é/가" * (TOKENS_MAX // 2), "é/가/" * TOKENS_MAX),
        ("porter", '"' + "run-" * TOKENS_MAX + '"', '"' + "run-" * (TOKENS_MAX + 1) + '"'),
        ("ascii", "a-" * TOKENS_MAX, "a-" * TOKENS_MAX + "b*"),
        ("unicode61", "word" * 900, "+ " * (TOKENS_MAX * 2) + "a " * (TOKENS_MAX + 1)),
        ("trigram", "x" * (TOKENS_MAX + 2), "x" * (TOKENS_MAX + 3)),
    ],
)
def test_the_tokens_of_a_query_are_bounded_also_within_one_word(
    path: Path, tokenizer: str, most: str, more: str
) -> None:
    with closing(Index(path, tokenizer=tokenizer)) as index:
        index.add(a=most)
        assert index.find(most) == ["a"]
        expression = parse(more, Layout(index.options)).match  # without the word that is beyond the bound
        assert len(re.findall(r"\w+", expression)) <= TOKENS_MAX
        assert index.find(more) == (["a"] if expression else [])


@pytest.mark.parametrize(
    ("tokenizer", "query"),
    [
        ("unicode61", "user"),
        ("unicode61", "us*"),
        ("unicode61", ".".join(["user"] * 200)),
        ("unicode61", " ".join(["user", "asks"] * 8)),
        ("trigram", "er"),
        ("trigram", "user as er"),
    ],
)
def test_a_search_that_is_stopped_at_any_point_is_a_timeout_and_no_damage(
    path: Path, tokenizer: str, query: str
) -> None:
    with closing(Index(path, tokenizer=tokenizer)) as index, closing(Fts5Reader([path], index.options, 40)) as reader:
        for first in range(0, 120, 30):  # several segments
            index.add(**{f"r{first + number}": "user asks " * 20 for number in range(30)})
        looks = Looks(FOREVER)
        everything = reader.search(query, 1000, time_limit=looks.limit)
        total, stopped = looks.count, 0
        assert total > 10
        for last in range(1, total, max(1, total // 30)):
            looks = Looks(last)
            with pytest.raises(Timeout):
                reader.search(query, 1000, time_limit=looks.limit)
            stopped += 1
            assert looks.count == last  # nothing goes on once it was stopped
            assert reader.search(query, 1000) == everything
        assert stopped > 5
        index.add(new="user asks", other="user asks")  # no transaction was left open
        assert reader.applied_lsn() == index.lsn


@pytest.fixture
def kv(path: Path) -> Iterator[tuple[Any, Any]]:
    options = KV.configure({"map_size_mib": 64})
    KV.create_shard(path, options)
    with closing(KV.open_writer(path, options)) as writer, closing(KV.open_reader([path], options)) as reader:
        yield writer, reader


@pytest.mark.parametrize(
    ("query", "made"),
    [
        ("id", lambda number: put(number, f"id{number}")),
        ("x", lambda number: put(number, "x" * 600 + str(number))),  # one group of keys that are stored by hash
        ("z", lambda number: Item(number, f"type{number}", "a", number, {})),  # nothing matches, in many types
    ],
)
def test_the_walk_over_a_kv_index_goes_in_slices(kv: tuple[Any, Any], query: str, made: Any) -> None:
    writer, reader = kv
    rows = 10 * SLICE_ROWS
    writer.apply([made(number) for number in range(1, rows + 1)], rows)
    looks = Looks(FOREVER)
    everything = reader.search(query, 10 * rows, time_limit=looks.limit)
    assert looks.count >= 10
    for last in count(1):
        if last >= looks.count:
            break
        with pytest.raises(Timeout):
            reader.search(query, 10 * rows, time_limit=Looks(last).limit)
    assert reader.search(query, 10 * rows) == everything


def test_a_word_that_is_repeated_often_counts_once(path: Path) -> None:
    """Each of 200 words at 2,000 places: bm25 would make 400,000 steps for each of them, in one step of SQLite."""
    variants = ["user", "User", "USER", '"user"', "üser", "users"]
    with closing(Index(path, tokenizer="porter unicode61")) as index:
        layout = Layout(index.options)
        assert parse(" ".join(variants * 30), layout).match == '"user"'
        assert parse(" ".join(["us*", "us", *variants * 30]), layout).match == '("us"* AND "us" AND "user")'
        assert parse(" ".join(["+", "-", *variants * 30, "+"]), layout).match == '"user"'
        assert parse("user User", layout).match == '("user" AND "User")'
        assert parse(" OR ".join(variants * 30), layout).match.count('"') < 64
        assert parse(" ".join(["(user OR x)"] * 30), layout).match.count('"user"') <= 17
        index.add(a="user asks " * 2000)
        looks = Looks(FOREVER)
        assert [hit.id for hit in index.reader.search("user " * 200, 10, time_limit=looks.limit)] == ["a"]


def test_a_query_has_no_more_tokens_than_its_tokenizer_makes(path: Path) -> None:
    words = " ".join(f"word{number:04}" for number in range(TOKENS_MAX))
    assert len(words) > 2 * TOKENS_MAX
    with closing(Index(path)) as index:
        index.add(a=words)
        assert index.find(words) == ["a"]
    assert BACKEND.check(path, index.options) == []
