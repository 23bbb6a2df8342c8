"""A catalog that is older than its indexes, as when only `catalog/` is put back from a backup.

LSNs are given again then. An index that is ahead of its branch would skip the changes that get them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from shadowswitch import CorruptData, Engine, UnknownIndex
from tests.support.cli_helpers import spawn
from tests.support.engine_helpers import KIND, TYPES, built, fill, found, live, put

Open = Callable[..., Engine]
BACKENDS = pytest.mark.parametrize("backend", ["fts5", "kv"])


def backed_up(engine: Engine) -> Path:
    """A backup of the catalog of a closed engine."""
    return shutil.copytree(engine.path / "catalog", engine.path.with_name("backup"))


def put_back(data: Path) -> None:
    shutil.rmtree(data / "catalog")
    data.with_name("backup").rename(data / "catalog")


def write_on(engine: Engine, count: int = 100) -> None:
    """Writes that the backup does not have; the index has them when this returns."""
    lsn = engine.write("main", [put(f"lost{number}", "lost") for number in range(count)]).lsn
    with engine.reader("main", KIND, min_lsn=lsn):
        pass


def write_and_put_back(engine: Engine, open_engine: Open) -> None:
    """Close the engine, keep its catalog, let the index go on without it, and put the older catalog back."""
    engine.close()
    backed_up(engine)
    with open_engine(sound=False) as ahead:
        write_on(ahead)
    put_back(engine.path)


@pytest.fixture
def begun(open_engine: Open) -> Callable[[str], Engine]:
    def begin(backend: str) -> Engine:
        engine = open_engine(sound=False)
        engine.create_branch("main")
        fill(engine, 50)
        live(engine, backend=backend, shards=2)
        return engine

    return begin


@BACKENDS
def test_a_live_index_ahead_of_its_branch_is_not_served_until_it_is_rebuilt(
    begun: Callable[[str], Engine], open_engine: Open, backend: str
) -> None:
    engine = begun(backend)
    write_and_put_back(engine, open_engine)
    again = open_engine()
    with pytest.raises(CorruptData, match="the catalog is older than the index"):
        again.reader("main", KIND)
    receipt = again.write("main", [put("new", "fresh")])
    assert receipt.lsn == 51, "the LSN is given again"
    assert again.rebuild("main", KIND, TYPES, {"backend": backend}).success
    with again.reader("main", KIND, min_lsn=receipt.lsn) as reader:
        assert reader.count() == 51
        assert reader.get("object_type", "lost0") is None
        assert reader.get("object_type", "new") is not None


@BACKENDS
def test_an_index_ahead_of_its_branch_is_not_served_either_when_new_writes_have_passed_its_lsn(
    begun: Callable[[str], Engine], open_engine: Open, backend: str
) -> None:
    engine = begun(backend)
    live(engine, backend=backend)
    write_and_put_back(engine, open_engine)
    again = open_engine()
    again.write("main", [put(f"new{number}", "fresh") for number in range(300)])
    again.close()
    last = open_engine()
    with pytest.raises(CorruptData, match="the catalog is older than the index"):
        last.reader("main", KIND)
    assert "the catalog is older than the index" in str(last.health().unserved), "also after a further start"
    assert "generation.condemned" in [entry.type for entry in last.audit()]
    assert last.rebuild("main", KIND, TYPES, {"backend": backend}).success
    assert last.health().ready
    with last.reader("main", KIND, min_lsn=last.head("main")) as reader:
        assert reader.count() == 350
        assert reader.get("object_type", "lost0") is None
        assert reader.get("object_type", "new0") is not None


def test_an_index_that_is_not_served_any_more_can_be_dropped(begun: Callable[[str], Engine], open_engine: Open) -> None:
    engine = begun("fts5")
    write_and_put_back(engine, open_engine)
    open_engine().close()
    last = open_engine()
    assert not last.health().ready
    assert last.count_indexes() == len(last.indexes())
    last.drop_index("main", KIND)
    assert last.count_indexes() == len(last.indexes()) == 0
    assert last.health().ready
    with pytest.raises(UnknownIndex):
        last.reader("main", KIND)
    last.close()
    assert open_engine().health().ready


@BACKENDS
def test_a_waiting_and_a_failed_shadow_ahead_of_their_branch_begin_again(
    begun: Callable[[str], Engine], open_engine: Open, data_dir: Path, backend: str
) -> None:
    engine = begun(backend)
    shadow = built(engine, backend=backend).shadow_index_id
    engine.close()
    backed_up(engine)
    engine = open_engine(sound=False)
    write_on(engine)
    engine.wait_for(shadow, "BUILT")
    engine.close()
    put_back(data_dir)
    again = open_engine()
    if again.shadow(shadow).state == "FAILED":
        assert "the catalog is older than the index" in str(again.shadow(shadow).error)
        fill(again, 200, text="given again")
        again.retry_build(shadow)
    again.wait_for(shadow, "BUILT", timeout_s=60)
    assert again.switch(shadow).success
    with again.reader("main", KIND, min_lsn=again.head("main")) as reader:
        assert reader.get("object_type", "lost0") is None


def test_a_generation_that_soaks_ahead_of_its_branch_is_no_way_back(
    begun: Callable[[str], Engine], open_engine: Open
) -> None:
    engine = begun("fts5")
    live(engine)
    write_and_put_back(engine, open_engine)
    again = open_engine()
    with pytest.raises(UnknownIndex):
        again.rollback("main", KIND)
    live(again)
    assert found(again, "lost") == set()


def test_a_build_that_goes_on_begins_again_where_it_is_ahead_of_its_branch(open_engine: Open, data_dir: Path) -> None:
    engine = open_engine(sound=False)
    engine.create_branch("main")
    fill(engine, 500)
    shadow = engine.start_build("main", KIND, TYPES, {"backend": "kv"}).shadow_index_id
    engine.wait_for(shadow, "BUILDING", "BUILT")
    engine.pause_build(shadow)
    engine.close()
    backed_up(engine)
    engine = open_engine(sound=False)
    engine.write("main", [put("lost", "lost")])
    engine.resume_build(shadow)
    engine.wait_for(shadow, "BUILT", timeout_s=60)
    engine.close()
    put_back(data_dir)
    again = open_engine()
    again.write("main", [put("lost", "given again")])
    again.resume_build(shadow)
    again.wait_for(shadow, "BUILT", timeout_s=60)
    assert again.switch(shadow).success
    with again.reader("main", KIND, min_lsn=again.head("main")) as reader:
        record = reader.get("object_type", "lost")
        assert record is not None
        assert "given again" in record.fields["text"]


def test_check_finds_an_index_ahead_of_its_branch(
    begun: Callable[[str], Engine], open_engine: Open, data_dir: Path
) -> None:
    engine = begun("fts5")
    write_and_put_back(engine, open_engine)
    output, errors = spawn("check", "--data", data_dir).communicate(timeout=120)
    assert "ahead of its branch" in output, errors
