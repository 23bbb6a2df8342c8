"""A `kv` index after a power cut: the engine checks it before it serves it, and never serves a torn one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shadowswitch import CorruptData, Engine
from shadowswitch.storage import disk
from tests.support import inside
from tests.support.engine_helpers import KIND, TYPES, fill

Open = Callable[..., Engine]


def stamps(engine: Engine) -> set[str]:
    return {row.boot_id for row in inside.catalog(engine).generations()}


@pytest.fixture
def left(open_engine: Open, tmp_path: Path) -> Path:
    """The disk of a host that was not closed: a live and a soaking `kv` index."""
    engine = open_engine()
    engine.create_branch("main")
    fill(engine, 200)
    for _ in range(2):
        engine.rebuild("main", KIND, TYPES, {"backend": "kv", "shards": 2})
    assert stamps(engine) == {disk.boot_id()}
    for generation in inside.open_generations(engine).values():
        generation.writer.flush()
    return shutil.copytree(engine.path, tmp_path / "left", symlinks=True)


def tear(data: Path, number: int) -> None:
    """Restore the old pages of the rows, and leave the new pages that refer to them."""
    file = next(data.glob(f"generations/main/*/{number:08d}/shard-001/kv/data.mdb"))
    content = bytearray(file.read_bytes())
    pages = [p for p in range(2, len(content) // 4096) if b"hello word" in content[p * 4096 : (p + 1) * 4096]]
    assert pages
    for page in pages:
        content[page * 4096 + 16 : (page + 1) * 4096] = bytes(4096 - 16)
    file.write_bytes(content)


def booted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    inside.replace(monkeypatch, inside.Step.BOOT_ID, lambda: "the next boot")


def test_a_sound_index_is_served_after_a_power_cut(
    open_engine: Open, left: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    booted_again(monkeypatch)
    engine = open_engine(left)
    assert stamps(engine) == {"the next boot"}
    assert engine.audit()[-1].type == "recovery.checked"
    with engine.reader("main", KIND) as reader:
        assert reader.count() == 200
    assert engine.index("main", KIND).previous_generation == 1


def test_a_torn_live_index_is_not_served_until_it_is_rebuilt(
    open_engine: Open, left: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    booted_again(monkeypatch)
    tear(left, 2)
    engine = open_engine(left, sound=False)
    with pytest.raises(CorruptData, match="the machine stopped while it was open, and it is torn"):
        engine.reader("main", KIND)
    assert engine.rebuild("main", KIND, TYPES, {"backend": "kv"}).success
    with engine.reader("main", KIND) as reader:
        assert reader.count() == 200


def test_a_torn_soaking_index_is_given_up(open_engine: Open, left: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    booted_again(monkeypatch)
    tear(left, 1)
    engine = open_engine(left)
    assert engine.index("main", KIND).previous_generation is None
    assert "generation.condemned" in [entry.type for entry in engine.audit()]
    with engine.reader("main", KIND) as reader:
        assert reader.count() == 200


def test_the_rows_of_an_index_that_was_closed_are_not_checked(
    open_engine: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_engine()
    engine.create_branch("main")
    fill(engine, 50)
    engine.rebuild("main", KIND, TYPES, {"backend": "kv"})
    engine.close()
    booted_again(monkeypatch)
    asked: list[bool] = []

    def ask(ordinary: Callable[..., Any], answers: Any, task: Any, *more: Any, **how: Any) -> Any:
        asked.append(task.probe)
        return ordinary(answers, task, *more, **how)

    inside.wrap(monkeypatch, inside.Step.RECOVERY_ASK_WORKER, ask)
    again = open_engine()
    assert asked == [True], "the pages are probed before the host opens them"
    with again.reader("main", KIND) as reader:
        assert reader.count() == 50
