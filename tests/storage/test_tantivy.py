"""What a tantivy index finds: the same records as fts5, whatever is in the words, in the delta, or gone."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from shadowswitch.model.digest import key_hash
from shadowswitch.model.errors import Timeout
from shadowswitch.model.records import Hit, Item
from shadowswitch.model.search.bounds import TimeLimit
from shadowswitch.storage.backends.fts5.backend import Fts5Backend
from shadowswitch.storage.backends.protocol import Backend, IndexReader, Reuse
from shadowswitch.storage.backends.tantivy.backend import TantivyBackend
from shadowswitch.storage.backends.tantivy.matching import within
from shadowswitch.storage.backends.tantivy.writer import TantivyWriter
from tests.support import inside

BACKEND = TantivyBackend()
WORDS = [
    *(
        "alpha",
        "beta",
        "gamma",
        "alphabet",
        "be",
        "Élan",
        "elan",
        "C++",
        "c",
        "C#",
        "c++17",
        "x2",
        "user_name",
        "a.b@c.d",
    ),
    *("getUserName", "사용자가", "사용자", "사용", "권한을", "日本語", "日本", "語", "don't", "HTTPServer2"),
]
QUERIES = [*WORDS, "alph*", "사용자*", "b*", '"alpha beta"', '"alpha be"*', "title:alpha", 'body:"beta gamma"', "name"]


def put(lsn: int, id: str, /, resource_type: str = "t", **fields: Any) -> Item:
    return Item(lsn, resource_type, id, key_hash(resource_type, id), fields)


@contextmanager
def opened(backend: Backend, path: Path, **build_config: Any) -> Iterator[tuple[Any, IndexReader]]:
    options = backend.configure(build_config)
    backend.create_shard(path, options)
    with closing(backend.open_writer(path, options)) as writer, closing(backend.open_reader([path], options)) as reader:
        yield writer, reader
    assert backend.check(path, options) == []


def ids(hits: list[Hit]) -> list[str]:
    return sorted(hit.id for hit in hits)


def carry_all(writer: TantivyWriter) -> None:
    """Bring every row into the words."""
    for _ in range(3):
        writer.flush()
        writer.carrier.wait()


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each flush carries what waits."""
    inside.patch_limit(monkeypatch, inside.Limit.WORDS_CARRY_ROWS, 1)
    inside.patch_limit(monkeypatch, inside.Limit.WORDS_CARRY_S, 0)


def random_text(chance: random.Random) -> str:
    return " ".join(chance.choices(WORDS, k=chance.randint(0, 6)))


def random_query(chance: random.Random, depth: int = 0) -> str:
    kind = chance.random()
    if depth > 2 or kind < 0.4:
        return chance.choice(QUERIES)
    one, two = random_query(chance, depth + 1), random_query(chance, depth + 1)
    if kind < 0.6:
        return f"({one} OR {two})"
    if kind < 0.8:
        return f"({one} {two})"
    return f"({one} NOT {two})"


@pytest.mark.parametrize("tokenizer", ["unicode61", "unicode61 cjk code"])
@pytest.mark.parametrize("columns", [None, {"title": 2.0, "body": 1.0}])
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.usefixtures("eager")
def test_fts5_and_tantivy_find_the_same_records(
    tmp_path: Path, tokenizer: str, columns: dict[str, float] | None, seed: int
) -> None:
    chance = random.Random(seed)
    config = {
        "tokenizer": tokenizer,
        "columns": columns,
        "synonyms": [["alpha", "gamma"]],
        "stop_words": ["be"],
    }
    with (
        opened(Fts5Backend(), tmp_path / "fts5", **config) as (fts5, expected),
        opened(BACKEND, tmp_path / "tantivy", **config) as (writer, reader),
    ):
        lsn = 0
        for number in range(12):
            items = []
            for id in chance.sample(range(40), 8):
                lsn += 1
                fields = {"title": random_text(chance), "body": random_text(chance)}
                key = (chance.choice(("t", "u")), f"r{id}")
                items.append(Item(lsn, *key, key_hash(*key), None if chance.random() < 0.3 else fields))
            for one in (fts5, writer):
                one.apply(items, lsn)
            if number % 3 == 1:
                writer.flush()
            if number % 4 == 2:
                carry_all(writer)
            for _ in range(25):
                query = random_query(chance)
                types = chance.choice((None, None, ["t"]))
                found = reader.search(query, 1000, resource_types=types)
                assert ids(found) == ids(expected.search(query, 1000, resource_types=types)), query
                assert reader.search(query, 3, offset=2, resource_types=types) == found[2:5], query


@pytest.mark.usefixtures("eager")
def test_a_row_has_about_the_same_score_before_and_after_it_is_carried(tmp_path: Path) -> None:
    chance = random.Random(4)
    texts = {f"r{number}": " ".join(chance.choices(WORDS, k=chance.randint(1, 80))) for number in range(300)}
    with opened(BACKEND, tmp_path / "shard", tokenizer="unicode61 cjk") as (writer, reader):
        writer.load([put(lsn, id, body=text) for lsn, (id, text) in enumerate(texts.items(), 1)], b"c")
        writer.finish_load(300)
        for query in ("alpha", "alpha beta", '"alpha beta"', "alph*", "사용", "C++", "alpha OR 日本"):
            carried = {hit.id: hit.score for hit in reader.search(query, 1000)}
            writer.apply([put(1001, "r0", body=texts["r0"])], 1001)
            for hit in reader.search(query, 1000):
                assert hit.score == pytest.approx(carried[hit.id], rel=0.02), (query, hit)
            carry_all(writer)


@pytest.mark.usefixtures("eager")
def test_a_reader_beside_a_writer_finds_each_record_once(tmp_path: Path) -> None:
    chance, wrong, stop = random.Random(5), list[str](), threading.Event()
    with opened(BACKEND, tmp_path / "shard") as (writer, reader):
        writer.load([put(lsn, f"r{lsn}", body=f"always w{lsn}") for lsn in range(1, 201)], b"c")
        writer.finish_load(200)
        expected = sorted(f"r{lsn}" for lsn in range(1, 201))

        def read() -> None:
            while not stop.is_set():
                found = ids(reader.search("always", 1000))
                if found != expected:
                    wrong.append(f"{len(found)} hits, missing {set(expected) - set(found)}")

        thread = threading.Thread(target=read)
        thread.start()
        try:
            lsn, ends = 200, time.monotonic() + 3
            while time.monotonic() < ends:
                items = []
                for id in chance.sample(expected, 20):
                    lsn += 1
                    items.append(put(lsn, id, body=f"always w{lsn}"))
                writer.apply(items, lsn)
                writer.flush()
        finally:
            stop.set()
            thread.join()
        assert wrong == []
        assert len(reader.search("always", 1000)) == 200


@pytest.mark.usefixtures("eager")
def test_a_frozen_reader_shows_one_moment_whatever_is_carried(tmp_path: Path) -> None:
    options = BACKEND.configure({})
    with opened(BACKEND, tmp_path / "shard") as (writer, _):
        writer.apply([put(lsn, f"r{lsn}", body="elm") for lsn in range(1, 11)], 10)
        carry_all(writer)
        writer.apply([put(11, "r11", body="elm")], 11)
        with closing(BACKEND.open_freezing([tmp_path / "shard"], options)) as frozen:
            frozen.freeze()
            before = frozen.search("elm", 100)
            for lsn in range(12, 20):
                writer.apply([Item(lsn, "t", f"r{lsn - 10}", key_hash("t", f"r{lsn - 10}"), None)], lsn)
                carry_all(writer)
            assert frozen.search("elm", 100) == before
            frozen.freeze()
            assert len(frozen.search("elm", 100)) == 3


def test_ties_are_broken_by_the_key_also_at_the_edge_of_a_page(tmp_path: Path) -> None:
    names = [f"r{number:04}" for number in range(700)]
    random.Random(6).shuffle(names)
    with opened(BACKEND, tmp_path / "shard") as (writer, reader):
        writer.load([put(lsn, id, body="elm fir") for lsn, id in enumerate(names, 1)], b"c")
        writer.finish_load(700)
        assert [hit.id for hit in reader.search("elm", 5)] == sorted(names)[:5]
        assert [hit.id for hit in reader.search("elm fir", 5, offset=300)] == sorted(names)[300:305]


def test_a_prefix_of_many_words_finds_all_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(BACKEND, tmp_path / "shard") as (writer, reader):
        writer.load([put(lsn, f"r{lsn}", body=f"word{lsn} on") for lsn in range(1, 501)], b"c")
        writer.finish_load(500)
        writer.apply([put(501, "r501", body="word501 on")], 501)
        for scored in (100, 1000):
            inside.patch_limit(monkeypatch, inside.Limit.WORDS_TERMS_SCORED, scored)
            assert len(reader.search("wor*", 1000)) == 501
            assert len(reader.search("word1*", 1000)) == 111
            assert ids(reader.search("word500*", 10)) == ["r500"]
            assert len(reader.search('"word50 o"*', 1000)) == 1
        assert ids(reader.search('"word5 on" OR "on word"*', 10)) == ["r5"]
        assert reader.search("x" * 3000 + "*", 10) == []


def test_a_search_that_cannot_be_stopped_does_not_keep_its_caller() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def work() -> int:
        begun.set()
        go_on.wait(30)
        return 7

    with pytest.raises(Timeout):
        within(TimeLimit(0.1, time.monotonic), True, work)
    assert begun.is_set()
    go_on.set()
    assert within(TimeLimit(60, time.monotonic), True, work) == 7
    with pytest.raises(ZeroDivisionError):
        within(TimeLimit(60, time.monotonic), True, lambda: 1 // 0)


def test_what_a_shard_can_take_over_from_another_one() -> None:
    plain = BACKEND.configure({"columns": ["title", "body"]})
    for config, reuse in (
        ({"columns": {"title": 3, "body": 1}, "cjk": "word"}, Reuse.SETTINGS),
        ({"columns": ["title", "body"], "tokenizer": "porter cjk"}, Reuse.REINDEX),
        ({"columns": ["title"]}, Reuse.NOTHING),
        ({}, Reuse.NOTHING),
    ):
        assert BACKEND.plan(plain, BACKEND.configure(config)) is reuse


def test_a_shard_with_other_tokens_is_seeded_with_the_rows(tmp_path: Path) -> None:
    stems = BACKEND.configure({"tokenizer": "porter"})
    with opened(BACKEND, tmp_path / "shard") as (writer, reader):
        writer.load([put(lsn, f"r{lsn}", body="indexes") for lsn in range(1, 101)], b"c")
        writer.finish_load(100)
        writer.apply([put(101, "r101", body="indexed"), Item(102, "t", "r1", key_hash("t", "r1"), None)], 102)
        assert reader.search("index", 200) == []
        BACKEND.create_shard(tmp_path / "other", stems)
        BACKEND.seed(tmp_path / "shard", BACKEND.configure({}), tmp_path / "other", stems, lambda: None)
    with closing(BACKEND.open_writer(tmp_path / "other", stems)) as other:
        assert other.state().digest.count == 100
        with closing(BACKEND.open_reader([tmp_path / "other"], stems)) as seeded:
            assert len(seeded.search("index", 200)) == 100
    assert BACKEND.check(tmp_path / "other", stems) == []


def test_without_its_package_the_backend_is_refused_with_the_command_that_installs_it() -> None:
    script = (
        "import sys; sys.modules['tantivy'] = None\n"
        "from shadowswitch import InvalidConfig\n"
        "from shadowswitch.storage.backends import registry\n"
        "try: registry.backend('tantivy')\n"
        "except InvalidConfig as error: print(error.hint)\n"
    )
    said = subprocess.run([sys.executable, "-c", script], check=True, text=True, capture_output=True, timeout=60)
    assert said.stdout == "pip install 'shadowswitch[tantivy]'\n"
