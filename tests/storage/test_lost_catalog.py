"""A catalog that is lost, or that of another data directory, beside generations: refused, and nothing is removed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import lmdb
import pytest

from shadowswitch import CorruptData, Engine
from shadowswitch.storage.catalog.environment import Catalog
from tests.support.engine_helpers import KIND, fill, found, live, outside_environment
from tests.support.external_helpers import begin

Open = Callable[..., Engine]
COMMAND = "import sys; from shadowswitch.service.cli.app import main; sys.exit(main())"


def remove_file(catalog: Path) -> None:
    (catalog / "data.mdb").unlink()


def remove_folder(catalog: Path) -> None:
    shutil.rmtree(catalog)


def empty_file(catalog: Path) -> None:
    (catalog / "data.mdb").write_bytes(b"")


def only_headers(catalog: Path) -> None:
    """The file as LMDB makes it before the first transaction."""
    made = catalog.parent.with_name("made")
    lmdb.open(str(made), map_size=1 << 20, lib_version=0).close()
    shutil.copy(made / "data.mdb", catalog / "data.mdb")


LOSSES = pytest.mark.parametrize("lose", [remove_file, remove_folder, empty_file, only_headers])


def tree(folder: Path) -> dict[Path, bytes]:
    """Every file below a folder, with its content."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def left(open_engine: Open, data_dir: Path) -> Path:
    """A closed data directory with an index of 20 records, and a backup of its catalog beside it."""
    engine = open_engine()
    engine.create_branch("main")
    fill(engine, 20)
    live(engine)
    engine.close()
    shutil.copytree(data_dir / "catalog", data_dir.with_name("backup"))
    return data_dir


def put_back(data: Path) -> None:
    shutil.rmtree(data / "catalog", ignore_errors=True)
    shutil.copytree(data.with_name("backup"), data / "catalog")


@LOSSES
def test_a_lost_catalog_beside_generations_is_refused_and_nothing_is_changed(
    left: Path, open_engine: Open, lose: Callable[[Path], None]
) -> None:
    lose(left / "catalog")
    before, catalog = tree(left / "generations"), tree(left / "catalog")
    for _ in range(2):  # the refusal makes nothing that lets the next start in
        with pytest.raises(CorruptData, match="the catalog is lost") as caught:
            Engine.open(left)
        assert "backup" in caught.value.hint
        assert str(left / "generations") in caught.value.hint
    assert (tree(left / "generations"), tree(left / "catalog")) == (before, catalog)
    put_back(left)
    assert len(found(open_engine(), "hello")) == 20


@LOSSES
def test_commands_name_a_lost_catalog(left: Path, lose: Callable[[Path], None]) -> None:
    lose(left / "catalog")
    for command in (["status"], ["check"], ["search", "main", "hello"]):
        words = [sys.executable, "-c", COMMAND, *command, "--data", str(left)]
        done = subprocess.run(words, capture_output=True, text=True, env=outside_environment(), timeout=120)
        assert done.returncode in (1, 2), (command, done)
        assert "the catalog is lost" in done.stdout + done.stderr, (command, done)


@LOSSES
def test_a_directory_whose_generations_were_moved_away_begins_anew(
    left: Path, open_engine: Open, lose: Callable[[Path], None]
) -> None:
    lose(left / "catalog")
    (left / "generations").rename(left.with_name("moved"))
    engine = open_engine()
    assert engine.branches() == []
    engine.create_branch("main")


@pytest.mark.parametrize("lose", [remove_file, empty_file, only_headers])
def test_a_first_start_that_was_killed_goes_on(data_dir: Path, open_engine: Open, lose: Callable[[Path], None]) -> None:
    for name in ("catalog", "generations/lost+found"):
        (data_dir / name).mkdir(parents=True)
    (data_dir / "catalog" / "data.mdb").touch()
    lose(data_dir / "catalog")
    open_engine().create_branch("main")


@pytest.mark.parametrize("lose", [remove_file, empty_file, only_headers])
def test_a_reader_of_another_process_is_given_no_empty_catalog(left: Path, lose: Callable[[Path], None]) -> None:
    lose(left / "catalog")
    with pytest.raises(CorruptData, match="has no entry"):
        Catalog(left / "catalog", readonly=True)


def test_a_catalog_of_another_directory_is_refused_and_nothing_is_changed(
    left: Path, open_engine: Open, tmp_path: Path
) -> None:
    other = open_engine(tmp_path / "other")
    other.create_branch("main")
    fill(other, 5)
    live(other)
    other.close()
    shutil.copy(tmp_path / "other" / "catalog" / "data.mdb", left / "catalog" / "data.mdb")
    before = tree(left / "generations")
    with pytest.raises(CorruptData, match="is that of another data directory") as caught:
        Engine.open(left)
    assert str(left / "generations") in caught.value.hint
    assert tree(left / "generations") == before
    put_back(left)
    assert len(found(open_engine(), "hello")) == 20


def test_a_damaged_id_of_the_catalog_in_the_only_manifest_does_not_refuse_the_directory(
    left: Path, open_engine: Open
) -> None:
    manifest = next((left / "generations").rglob("manifest.json"))
    content = json.loads(manifest.read_bytes())
    damaged = "x" + content["catalog"][1:]
    manifest.write_text(json.dumps({**content, "catalog": damaged}))
    again = open_engine(sound=False)
    assert again.count("main") == 20
    with pytest.raises(CorruptData, match="another generation"):
        again.reader("main", KIND)


def test_a_manifest_that_an_external_builder_brought_along_does_not_refuse_the_directory(
    data_dir: Path, open_engine: Open
) -> None:
    engine = open_engine()
    engine.create_branch("main")
    shadow = begin(engine)
    engine.close()
    (Path(shadow.shadow_index_path) / "manifest.json").write_text(json.dumps({"catalog": "0123456789abcdef" * 2}))
    assert open_engine(sound=False).shadow(shadow.shadow_index_id).state == "BUILDING"


def test_one_generation_of_another_catalog_does_not_refuse_the_directory(left: Path, open_engine: Open) -> None:
    engine = open_engine(sound=False)
    engine.create_branch("other")
    fill(engine, 5, "other")
    live(engine, "other")
    engine.close()
    manifest = next((left / "generations" / "main").rglob("manifest.json"))
    manifest.write_text(json.dumps({**json.loads(manifest.read_bytes()), "catalog": "0" * 32}))
    again = open_engine(sound=False)
    assert len(found(again, "hello", "other")) == 5
    with pytest.raises(CorruptData, match="another generation"):
        again.reader("main", KIND)
