"""A copy for a seed is of one moment: a busy writer neither tears it nor lets it begin again and again."""

from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path

import pytest

from shadowswitch.model.digest import key_hash
from shadowswitch.model.records import Item
from shadowswitch.storage.backends.fts5 import seed
from shadowswitch.storage.backends.fts5.backend import Fts5Backend
from tests.support import inside

BACKEND = Fts5Backend()
OPTIONS = BACKEND.configure({})


def items(first: int, count: int) -> list[Item]:
    return [
        Item(n, "t", f"k{n}", key_hash("t", f"k{n}"), {"text": f"word{n} " * 40}) for n in range(first, first + count)
    ]


def test_a_copy_ends_beside_a_writer_that_never_rests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside.patch_limit(monkeypatch, inside.Limit.FTS5_COPY_PAGES, 1)
    source, target = tmp_path / "source", tmp_path / "target"
    for path in (source, target):
        BACKEND.create_shard(path, OPTIONS)
    stop = threading.Event()
    with closing(BACKEND.open_writer(source, OPTIONS)) as writer:
        writer.load(items(1, 2000), b"c")
        writer.finish_load(2000)

        def write() -> None:
            lsn = 2000
            while not stop.is_set():
                lsn += 1
                writer.apply(items(lsn, 1), lsn)

        busy = threading.Thread(target=write, daemon=True)
        copying = threading.Thread(target=seed.seed, args=(source, OPTIONS, target, OPTIONS, lambda: None), daemon=True)
        busy.start()
        copying.start()
        copying.join(120)
        ended = not copying.is_alive()
        stop.set()
        busy.join(60)
        assert ended, "the copy began again with each write"
        copying.join(60)
    with closing(BACKEND.open_writer(target, OPTIONS)) as seeded:
        assert seeded.state().digest.count >= 2000
    assert BACKEND.check(target, OPTIONS) == []
