"""External builds: no file of a builder is opened by the engine before a worker has opened a private copy of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shadowswitch import CompletionRefused, Engine, ResourceExhausted, ShadowIndex
from shadowswitch.model.digest import key_hash
from shadowswitch.model.records import Item
from shadowswitch.storage.backends import registry
from shadowswitch.storage.generations.adoption import Adopt
from tests.support import inside
from tests.support.damage_helpers import DAMAGES, deadly_backend
from tests.support.engine_helpers import KIND, put
from tests.support.external_helpers import begin, complete, write_manifest

OpenEngine = Callable[..., Engine]
RECORDS = 400


def _built(engine: Engine, shadow: ShadowIndex) -> Path:
    """Build a `kv` index as another program would; its data file."""
    backend = registry.backend("kv")
    shard = Path(shadow.shadow_index_path) / "shard-000"
    writer = backend.open_writer(shard, backend.configure({}))
    items = [
        Item(record.lsn, record.resource_type, record.id, key_hash(record.resource_type, record.id), record.fields)
        for record in engine.scan("main", "object_type")
    ]
    writer.load(items, b"done")
    writer.finish_load(shadow.start_lsn)
    writer.flush()
    writer.close()
    return shard / "kv" / "data.mdb"


def _begun(engine: Engine, backend: str = "kv") -> tuple[ShadowIndex, Path]:
    engine.write("main", [put(str(n), "x" * 200) for n in range(RECORDS)])
    shadow = begin(engine, backend=backend)
    return shadow, _built(engine, shadow)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_with_the_right_checksum_is_refused(engine: Engine, damage: Callable[[Path], None]) -> None:
    shadow, file = _begun(engine)
    whole = file.read_bytes()
    damage(file)
    write_manifest(shadow, shadow.start_lsn, RECORDS)
    with pytest.raises(CompletionRefused, match="cannot be opened as an index of kv: shard-000: "):
        complete(engine, shadow)
    assert engine.shadow(shadow.shadow_index_id).state == "BUILDING"
    file.write_bytes(whole)  # the builder mends it
    write_manifest(shadow, shadow.start_lsn, RECORDS)
    assert complete(engine, shadow).state == "BUILT"
    assert engine.switch(shadow.shadow_index_id).success


def test_a_file_that_ends_its_reader_is_refused_with_the_signal(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shadow, file = _begun(engine, deadly_backend(tmp_path, monkeypatch))
    (file.parents[1] / "DEADLY").touch()
    write_manifest(shadow, shadow.start_lsn, RECORDS)
    with pytest.raises(CompletionRefused, match=r"shard-000 is damaged: its reader ended by SIGABRT") as refused:
        complete(engine, shadow)
    assert len(refused.value.problems) == 1
    assert engine.trouble() == ""
    (file.parents[1] / "DEADLY").unlink()
    write_manifest(shadow, shadow.start_lsn, RECORDS)
    assert complete(engine, shadow).state == "BUILT"


def test_a_file_that_is_still_open_in_its_builder_cannot_change_what_the_engine_reads(engine: Engine) -> None:
    shadow, file = _begun(engine)
    write_manifest(shadow, shadow.start_lsn, RECORDS)
    with file.open("r+b") as kept:
        assert complete(engine, shadow).state == "BUILT"
        kept.truncate(0)
    assert not (Path(shadow.shadow_index_path) / "private").exists()
    assert engine.switch(shadow.shadow_index_id).success
    with engine.reader("main", KIND) as reader:
        assert reader.count() == sum(1 for _ in reader.scan()) == RECORDS


def test_a_refusal_after_the_adoption_leaves_what_was_delivered(engine: Engine) -> None:
    shadow, file = _begun(engine)
    delivered = file.read_bytes()
    write_manifest(shadow, shadow.start_lsn, RECORDS - 1)
    identity = os.stat(file).st_ino
    engine.write("main", [put("more")])
    backend = registry.backend("kv")
    writer = backend.open_writer(file.parents[1], backend.configure({}))
    writer.apply([], shadow.start_lsn + 1)  # it says that it has the change, and has not
    writer.flush()
    writer.close()
    delivered = file.read_bytes()
    write_manifest(shadow, shadow.start_lsn + 1, RECORDS)
    with pytest.raises(CompletionRefused, match="DIGEST"):
        complete(engine, shadow)
    assert (file.read_bytes(), os.stat(file).st_ino) == (delivered, identity)
    with pytest.raises(CompletionRefused, match="DIGEST"):
        complete(engine, shadow)


@pytest.mark.parametrize("moved", [False, True])
def test_an_adoption_that_was_cut_off_is_undone_at_the_next_start(open_engine: OpenEngine, moved: bool) -> None:
    engine = open_engine()
    engine.create_branch("main")
    shadow, file = _begun(engine)
    write_manifest(shadow, shadow.start_lsn, RECORDS)
    engine.close()
    shard, private = file.parents[1], Path(shadow.shadow_index_path) / "private"
    (private / "delivered").mkdir(parents=True)
    shard.rename(private / "delivered" / shard.name)  # as `adopt` has it after its first rename
    if moved:
        (shard / "kv").mkdir(parents=True)
    again = open_engine()
    assert file.is_file()
    assert not private.exists()
    assert complete(again, shadow).state == "BUILT"


def test_a_link_in_the_place_of_the_private_folder_is_not_followed(engine: Engine, tmp_path: Path) -> None:
    shadow, file = _begun(engine)
    write_manifest(shadow, shadow.start_lsn, RECORDS)
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "delivered" / "shard-000").mkdir(parents=True)
    private = Path(shadow.shadow_index_path) / "private"
    private.symlink_to(elsewhere)
    assert complete(engine, shadow).state == "BUILT"
    assert file.is_file()
    assert [path.name for path in elsewhere.rglob("*")] == ["delivered", "shard-000"]


def test_a_shortage_refuses_nothing_and_what_was_delivered_is_put_back(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    shadow, file = _begun(engine)
    write_manifest(shadow, shadow.start_lsn, RECORDS)
    identity = os.stat(file).st_ino

    def ask(ordinary: Callable[..., Any], answers: Any, task: Any, *more: Any, **how: Any) -> Any:
        found = ordinary(answers, task, *more, **how)
        if isinstance(task, Adopt):
            raise ResourceExhausted("injected", resource="open files")
        return found

    with monkeypatch.context() as patch:
        inside.wrap(patch, inside.Step.RECOVERY_ASK_WORKER, ask)
        with pytest.raises(ResourceExhausted):
            complete(engine, shadow)
    assert os.stat(file).st_ino == identity
    assert not (Path(shadow.shadow_index_path) / "private").exists()
    assert engine.shadow(shadow.shadow_index_id).state == "BUILDING"
    assert complete(engine, shadow).state == "BUILT"
