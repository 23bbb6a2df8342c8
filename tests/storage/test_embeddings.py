"""The cache of embeddings: many processes that begin at once, damage, and no room for it."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from shadowswitch.storage.backends.vector.cache import Cache, data_of, hash_of
from tests.support.engine_helpers import outside_environment

SIZE = 16
KEYS = [hash_of(str(number)) for number in range(500)]
FLOATS = {key: key[:SIZE] for key in KEYS}
MANY = """
import sys
from pathlib import Path
from shadowswitch.storage.backends.vector.cache import Cache, hash_of
cache = Cache(Path(sys.argv[1]), 16)
input()
keys = [hash_of(str(number)) for number in range(500)]
for first in range(0, 500, 50):
    part = keys[first : first + 50]
    cache.keep({key: key[:16] for key in part}, 1.0, False)
    assert len(cache.find(part)) == 50
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "embeddings" / "model.sqlite"


def test_what_is_kept_is_found_by_every_cache_of_the_file(path: Path) -> None:
    with closing(Cache(path, SIZE)) as one, closing(Cache(path, SIZE)) as other:
        assert one.find(KEYS) == {}
        one.keep(FLOATS, 1.0, False)
        assert other.find([*KEYS[:3], hash_of("absent")]) == {key: FLOATS[key] for key in KEYS[:3]}
    with closing(Cache(path, SIZE)) as again:
        assert again.find(KEYS) == FLOATS
    with closing(Cache(None, SIZE)) as nothing:
        nothing.keep(FLOATS, 1.0, False)
        assert nothing.find(KEYS) == {}


def test_processes_that_begin_at_once_share_it(path: Path) -> None:
    command = [sys.executable, "-c", MANY, str(path)]
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=outside_environment())
        for _ in range(4)
    ]
    for process in started:
        assert process.stdin
        process.stdin.write(b"\n")
        process.stdin.flush()
    for process in started:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()
        assert errors == b""
    with closing(Cache(path, SIZE)) as cache:
        assert cache.find(KEYS) == FLOATS


@pytest.mark.parametrize("content", [b"", b"no database" * 1000, b"SQLite format 3\0" + b"\xff" * 9000])
def test_a_file_that_is_damaged_is_made_anew(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with closing(Cache(path, SIZE)) as cache:
        for _ in range(2):  # the first call may only find out
            cache.find(KEYS)
            cache.keep(FLOATS, 1.0, False)
        assert cache.find(KEYS) == FLOATS


def test_a_place_that_cannot_be_used_keeps_nothing_and_raises_nothing(tmp_path: Path) -> None:
    (tmp_path / "embeddings").write_text("a file in its place")
    with closing(Cache(tmp_path / "embeddings" / "model.sqlite", SIZE)) as cache:
        cache.keep(FLOATS, 1.0, False)
        assert cache.find(KEYS) == {}


def test_the_newest_batches_say_what_a_text_takes(path: Path) -> None:
    with closing(Cache(path, SIZE)) as cache:
        assert cache.text_s() is None
        cache.keep({KEYS[0]: KEYS[0][:SIZE]}, 8.0, True)
        assert cache.text_s() == 8.0
        cache.keep(dict(list(FLOATS.items())[1:11]), 5.0, True)  # another process loads the model
        assert cache.text_s() == 8.0
        for _ in range(100):
            cache.keep(dict(list(FLOATS.items())[:10]), 5.0, False)
        assert cache.text_s() == pytest.approx(0.5, rel=0.01)
    with closing(Cache(path, SIZE)) as again:
        assert again.text_s() == pytest.approx(0.5, rel=0.01)
        assert again.known([*KEYS[:11], KEYS[20]]) == set(KEYS[:11])


def test_the_data_directory_of_a_shard_is_found(tmp_path: Path) -> None:
    shard = tmp_path / "data" / "generations" / "main" / "VECTOR_INDEX" / "1" / "shard-000"
    assert data_of(shard) is None
    (tmp_path / "data" / "catalog").mkdir(parents=True)
    assert data_of(shard) == tmp_path / "data"


@pytest.mark.parametrize("stands_in", [False, True])
def test_nothing_is_written_into_what_takes_the_place_of_the_directory(tmp_path: Path, stands_in: bool) -> None:
    data, away = tmp_path / "data", tmp_path / "away"
    data.mkdir()
    path = data / "embeddings" / "model.sqlite"
    with closing(Cache(path, SIZE)) as before, closing(Cache(path, SIZE)) as unopened:
        before.keep(FLOATS, 1.0, False)
        data.rename(away)
        if stands_in:
            data.mkdir()
        for cache in (before, unopened):
            cache.keep(FLOATS, 1.0, False)
            assert cache.find(KEYS) == {}
        assert list(data.rglob("*")) == []
        if stands_in:
            data.rmdir()
        away.rename(data)
        for cache in (before, unopened):
            assert cache.find(KEYS) == FLOATS


def test_a_folder_or_a_file_that_leads_elsewhere_is_not_followed(tmp_path: Path, path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    path.parent.symlink_to(elsewhere)
    with closing(Cache(path, SIZE)) as cache:
        cache.keep(FLOATS, 1.0, False)
        assert cache.find(KEYS) == {}
    assert list(elsewhere.iterdir()) == []
