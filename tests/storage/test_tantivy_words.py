"""The words of a tantivy shard: carried from the rows beside the writer, lost, damaged, and made anew."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from shadowswitch.model.digest import key_hash
from shadowswitch.model.errors import CorruptData, StorageFull
from shadowswitch.model.records import Item
from shadowswitch.storage.backends.tantivy.backend import TantivyBackend
from shadowswitch.storage.backends.tantivy.writer import TantivyWriter
from shadowswitch.storage.conformance import process
from shadowswitch.storage.conformance.expected import WORDS, Expected
from shadowswitch.storage.failpoints import plan_points
from tests.support import inside

BACKEND = TantivyBackend()
OPTIONS = BACKEND.configure({})
TEMPLATE = '{"title": "WORD"}'


def put(lsn: int, id: str, text: str) -> Item:
    return Item(lsn, "t", id, key_hash("t", id), {"title": text})


def delete(lsn: int, id: str) -> Item:
    return Item(lsn, "t", id, key_hash("t", id), None)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty shard; each flush carries what waits."""
    inside.patch_limit(monkeypatch, inside.Limit.WORDS_CARRY_ROWS, 1)
    inside.patch_limit(monkeypatch, inside.Limit.WORDS_CARRY_S, 0)
    BACKEND.create_shard(tmp_path / "shard-000", OPTIONS)
    return tmp_path / "shard-000"


def found(path: Path, query: str) -> list[str]:
    with closing(BACKEND.open_reader([path], OPTIONS)) as reader:
        return sorted(hit.id for hit in reader.search(query, 10_000))


def carry(writer: TantivyWriter) -> None:
    writer.flush()
    writer.carrier.wait()


STEPS = [("words.begun", 1), ("words.synced", 1), ("words.added", 1), ("words.committed", 1)]
STEPS += [
    ("words.begun", 2),
    ("words.synced", 2),
    ("words.added", 2),
    ("words.committed", 2),
    ("words.settling", 1),
    ("words.settling", 2),
    ("words.settled", 1),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "nth"), STEPS, ids=[f"{name}@{nth}" for name, nth in STEPS])
def test_a_kill_at_each_step_of_carrying_loses_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch, name: str, nth: int
) -> None:
    """The first pass is at the end of the load, the second one beside the writer."""
    monkeypatch.setenv("SHADOWSWITCH_POINTS", f"{name}=kill@{nth}")
    seed = 100 + nth
    spec = "shadowswitch.storage.backends.tantivy.backend:TantivyBackend"
    with process.start("write", spec, OPTIONS, path, TEMPLATE, str(seed)) as victim:
        assert victim.stdout
        acknowledged = [int(line) for line in victim.stdout]
    assert victim.returncode == -9, "the process never passed the step"
    expected, steps = Expected(), list(process.steps(seed, process.fields_maker(TEMPLATE)))
    done = len(acknowledged)
    for step in steps[:done]:
        step(expected)
    with closing(BACKEND.open_writer(path, OPTIONS)) as writer:
        while writer.state() != expected.state:
            steps[done](expected)
            done += 1
        _assert_found(path, expected)
        for step in steps[done:]:
            step(writer)
            step(expected)
        _assert_found(path, expected)
        carry(writer)
        carry(writer)
        _assert_found(path, expected)
    assert BACKEND.check(path, OPTIONS) == []


def _assert_found(path: Path, expected: Expected) -> None:
    if not expected.loaded:
        return
    for word in WORDS:
        assert found(path, word) == sorted(
            id for (_, id), (_, fields) in expected.rows.items() if word in fields["title"]
        )


def test_carrying_empties_the_delta_and_forgets_what_is_gone(path: Path) -> None:
    with closing(BACKEND.open_writer(path, OPTIONS)) as writer:
        writer.apply([put(lsn, f"r{lsn}", "elm") for lsn in range(1, 51)], 50)
        carry(writer)
        writer.apply([put(51, "r1", "fir"), delete(52, "r2")], 52)
        assert found(path, "fir") == ["r1"]
        assert len(found(path, "elm")) == 48
        for _ in range(3):
            carry(writer)
        assert writer.waiting == 0
        assert found(path, "fir") == ["r1"]
        assert len(found(path, "elm")) == 48
    assert BACKEND.check(path, OPTIONS) == []


def test_an_index_is_sound_while_a_reader_looks_at_words_with_rows_that_are_gone(path: Path) -> None:
    with (
        closing(BACKEND.open_writer(path, OPTIONS)) as writer,
        closing(BACKEND.open_reader([path], OPTIONS)) as reader,
    ):
        writer.apply([put(1, "r1", "elm"), put(2, "r2", "elm")], 2)
        carry(writer)
        carry(writer)
        assert len(reader.search("elm", 10)) == 2
        writer.apply([delete(3, "r1")], 3)
        carry(writer)
        carry(writer)
        assert [hit.id for hit in reader.search("elm", 10)] == ["r2"]
        assert BACKEND.check(path, OPTIONS) == []


@pytest.mark.parametrize("name", ["words.begun", "words.synced", "words.added", "words.committed"])
def test_a_carrying_that_finds_no_room_is_raised_and_tried_again(path: Path, name: str) -> None:
    with closing(BACKEND.open_writer(path, OPTIONS)) as writer:
        writer.apply([put(lsn, f"r{lsn}", "elm") for lsn in range(1, 51)], 50)
        plan_points(f"{name}=raise:ENOSPC@1")
        try:
            carry(writer)
        finally:
            plan_points("")
        writer.apply([put(51, "r51", "elm"), delete(52, "r1")], 52)
        with pytest.raises(StorageFull):
            writer.flush()
        assert len(found(path, "elm")) == 50
        for _ in range(4):
            carry(writer)
        assert writer.waiting == 0
        assert len(found(path, "elm")) == 50
    assert BACKEND.check(path, OPTIONS) == []


def test_a_commit_that_could_not_be_settled_is_settled_before_the_next_one(path: Path) -> None:
    """The words have rows that the settled state does not cover: they are added no second time, and deleted."""
    with closing(BACKEND.open_writer(path, OPTIONS)) as writer:
        writer.apply([put(lsn, f"r{lsn}", "elm") for lsn in range(1, 51)], 50)
        plan_points("words.committed=raise:ENOSPC@1;words.settling=raise:ENOSPC@1")
        try:
            carry(writer)
            with pytest.raises(StorageFull):
                writer.flush()
        finally:
            plan_points("")
        writer.apply([delete(51, "r1"), put(52, "r2", "fir")], 52)
        for _ in range(4):
            carry(writer)
        assert writer.waiting == 0
        assert (len(found(path, "elm")), found(path, "fir")) == (48, ["r2"])
    assert BACKEND.check(path, OPTIONS) == []


def test_the_rowid_of_a_removed_row_is_not_given_to_another_one(path: Path) -> None:
    with closing(BACKEND.open_writer(path, OPTIONS)) as writer:
        writer.apply([put(1, "a", "elm"), put(2, "b", "elm")], 2)
        carry(writer)
        carry(writer)
        writer.apply([delete(3, "a"), delete(4, "b")], 4)
    with closing(BACKEND.open_writer(path, OPTIONS)) as writer:
        writer.apply([put(5, "c", "fir"), put(6, "d", "fir")], 6)
        assert (found(path, "elm"), found(path, "fir")) == ([], ["c", "d"])
        carry(writer)
        carry(writer)
        assert (found(path, "elm"), found(path, "fir")) == ([], ["c", "d"])


def _missing(words: Path) -> None:
    shutil.rmtree(words)


def _replace(file: Path, content: bytes) -> None:
    """A file of its own: a thread that merges may still read the old one, and its pages must not go."""
    file.with_suffix(".new").write_bytes(content)
    file.with_suffix(".new").replace(file)


def _cut(words: Path) -> None:
    for file in words.glob("*.term"):
        _replace(file, file.read_bytes()[:20])


def _flipped(words: Path) -> None:
    for file in words.glob("*.idx"):
        content = bytearray(file.read_bytes())
        content[len(content) // 3] ^= 0x10
        _replace(file, bytes(content))


def _of_another_shard(words: Path) -> None:
    other = words.parent.parent / "other"
    BACKEND.create_shard(other, OPTIONS)
    shutil.rmtree(words)
    shutil.copytree(other / "words", words)


def _older(words: Path) -> None:
    shutil.rmtree(words)
    shutil.copytree(words.parent.parent / "older", words)


DAMAGES: list[Callable[[Path], None]] = [_missing, _cut, _flipped, _of_another_shard, _older]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_words_are_found_and_made_anew_from_the_rows(path: Path, damage: Callable[[Path], None]) -> None:
    chance = random.Random(7)
    with closing(BACKEND.open_writer(path, OPTIONS)) as writer:
        writer.apply([put(lsn, f"r{lsn}", " ".join(chance.choices(WORDS, k=9))) for lsn in range(1, 301)], 300)
        carry(writer)
        carry(writer)
        shutil.copytree(path / "words", path.parent / "older")
        writer.apply([put(301, "r301", "elm"), delete(302, "r1")], 302)
        carry(writer)
        carry(writer)
    expected = found(path, "elm")
    damage(path / "words")
    assert BACKEND.check(path, OPTIONS)
    with pytest.raises(CorruptData), closing(BACKEND.open_reader([path], OPTIONS)) as reader:
        reader.search("elm", 10)
    with closing(BACKEND.open_writer(path, OPTIONS)) as writer:
        assert found(path, "elm") == expected
        writer.apply([put(303, "r303", "elm")], 303)
    assert found(path, "elm") == sorted([*expected, "r303"])
    assert BACKEND.check(path, OPTIONS) == []


def test_a_power_cut_that_takes_the_newest_rows_leaves_words_that_fit(path: Path, tmp_path: Path) -> None:
    """What is durable: the words with their commit, and the log of the rows as it was when the commit began."""
    with closing(BACKEND.open_writer(path, OPTIONS)) as writer:
        writer.apply([put(lsn, f"r{lsn}", "elm") for lsn in range(1, 51)], 50)
        writer.flush()
        writer.carrier.wait()
        durable = {file.name: file.read_bytes() for file in path.glob("shard.sqlite*") if "shm" not in file.name}
        writer.apply([put(51, "r51", "elm"), delete(52, "r1")], 52)
        after = tmp_path / "after"
        shutil.copytree(path, after, ignore=shutil.ignore_patterns("*.lock", "shard.sqlite*"))
        for name, content in durable.items():
            (after / name).write_bytes(content)
    with closing(BACKEND.open_writer(after, OPTIONS)) as writer:
        assert writer.state().applied_lsn == 50
        writer.apply([put(51, "r51", "elm"), delete(52, "r1")], 52)
        assert found(after, "elm") == sorted([f"r{lsn}" for lsn in range(2, 52)])
        carry(writer)
        carry(writer)
        assert len(found(after, "elm")) == 50
    assert BACKEND.check(after, OPTIONS) == []


def test_a_flush_waits_for_no_commit_of_the_words(path: Path) -> None:
    plan_points("words.added=sleep:1.5")
    try:
        with closing(BACKEND.open_writer(path, OPTIONS)) as writer:
            writer.apply([put(1, "a", "elm")], 1)
            writer.flush()
            for lsn in range(2, 6):
                writer.apply([put(lsn, "a", "elm")], lsn)
                writer.flush()
                assert writer.carrier.is_busy, "the calls ended before the commit did"
                assert found(path, "elm") == ["a"]
    finally:
        plan_points("")
