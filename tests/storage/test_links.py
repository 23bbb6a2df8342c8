"""The engine follows no symbolic link that was planted inside the data directory."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from shadowswitch import CorruptData, Engine, SwitchRequest
from shadowswitch.storage.catalog.rows import GenerationRow
from tests.support import inside
from tests.support.engine_helpers import KIND, TYPES, fill, found, live, wait_until

Open = Callable[..., Engine]


def treasure(folder: Path) -> Path:
    """A directory outside that looks like a generation."""
    (folder / "shard-000").mkdir(parents=True)
    for name in ("shard-000/shard.sqlite", "shard-000/note", "manifest.json", "PINS"):
        (folder / name).write_text("mine")
    return folder


def content(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}


def retiring(row: GenerationRow) -> GenerationRow:
    return msgspec.structs.replace(row, role="retiring")


@pytest.mark.parametrize("where", ["the generation", "its branch"])
def test_the_target_of_a_link_is_not_removed_with_a_generation(open_engine: Open, tmp_path: Path, where: str) -> None:
    engine = open_engine(sound=False)
    engine.create_branch("main")
    fill(engine, 10)
    live(engine)
    path = Path(engine.index("main", KIND).path)
    engine.rebuild("main", KIND, TYPES, request=SwitchRequest())
    outside = treasure(tmp_path / "outside" / KIND / path.name)
    before = content(outside)
    place, target = (path, outside) if where == "the generation" else (path.parents[1], outside.parents[1])
    shutil.move(place, tmp_path / "elsewhere")
    place.symlink_to(target)
    if where == "the generation":
        engine.rebuild("main", KIND, TYPES)  # the first generation retires
    else:
        inside.transact(engine, lambda c: c.put_generation(retiring(c.generation(1))), "test")
    for _ in range(3):
        engine.clean_up()
    assert content(outside) == before
    if where == "the generation":
        wait_until(lambda: not path.is_symlink())


@pytest.mark.parametrize("name", ["", "shard-000", "shard-000/shard.sqlite"])
def test_an_index_behind_a_link_is_not_opened(open_engine: Open, tmp_path: Path, name: str) -> None:
    engine = open_engine(sound=False)
    engine.create_branch("main")
    fill(engine, 10)
    live(engine, shards=1)
    path = Path(engine.index("main", KIND).path)
    engine.close()
    shutil.move(path / name, tmp_path / "outside")
    (path / name).symlink_to(tmp_path / "outside")
    again = open_engine(sound=False)
    with pytest.raises(CorruptData, match="is a symbolic link"):
        found(again, "hello")
    again.rebuild("main", KIND, TYPES)
    assert len(found(again, "hello")) == 10


def test_a_build_does_not_write_behind_a_link(open_engine: Open, tmp_path: Path) -> None:
    engine = open_engine()
    engine.create_branch("main")
    fill(engine, 10)
    (tmp_path / "outside").mkdir()
    (engine.path / "generations" / "main").symlink_to(tmp_path / "outside")
    shadow = engine.start_build("main", KIND, TYPES)
    wait_until(lambda: engine.shadow(shadow.shadow_index_id).state == "FAILED")
    assert "is a symbolic link" in (engine.shadow(shadow.shadow_index_id).error or "")
    assert list((tmp_path / "outside").iterdir()) == []
    (engine.path / "generations" / "main").unlink()
    engine.cancel_build(shadow.shadow_index_id)
    assert engine.rebuild("main", KIND, TYPES).success
