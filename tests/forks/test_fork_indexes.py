"""The index of a fork is there when it is first asked for."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from shadowswitch import BuildFailed, CorruptData, Delete, Engine, Put, SwitchRequest, Timeout, UnknownIndex
from tests.support import inside
from tests.support.engine_helpers import wait_until
from tests.support.fork_tree import TYPES as TREE_TYPES
from tests.support.fork_tree import Tree
from tests.support.patience import unless_in_use

KIND, TYPES = "SEARCH_INDEX", ["object_type"]


@pytest.fixture
def served(engine: Engine) -> Engine:
    """A branch with an index, and a fork of it."""
    engine.create_branch("main", exist_ok=True)
    engine.write("main", [Put("object_type", f"k{n}", {"text": f"word{n} common"}) for n in range(200)])
    assert engine.rebuild("main", KIND, TYPES, {"tokenizer": "porter"}).success
    engine.fork_branch("fork", "main")
    return engine


def shown(engine: Engine, branch: str) -> set[str]:
    with engine.reader(branch, KIND, min_lsn=engine.head(branch), timeout_s=30) as reader:
        return {hit.id for hit in reader.search("common", limit=1000)}


def test_the_first_reader_of_a_fork_has_its_index_made(served: Engine) -> None:
    served.write("fork", [Put("object_type", "ours", {"text": "common"}), Delete("object_type", "k1")])
    served.write("main", [Put("object_type", "theirs", {"text": "common"}), Delete("object_type", "k2")])
    assert shown(served, "fork") == {"ours", *(f"k{n}" for n in range(200) if n != 1)}
    assert shown(served, "main") == {"theirs", *(f"k{n}" for n in range(200) if n != 2)}
    info = served.index("fork", KIND)
    assert info.build_config["tokenizer"] == "porter", "it has the options of its parent's"
    assert list(served.check()) == []


def test_its_index_follows_the_fork_alone(served: Engine) -> None:
    shown(served, "fork")
    served.write("main", [Put("object_type", "theirs", {"text": "common"})])
    served.write("fork", [Put("object_type", "ours", {"text": "common"})])
    assert "ours" in shown(served, "fork")
    assert "theirs" not in shown(served, "fork")


def test_many_first_readers_have_one_index_made(served: Engine) -> None:
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(len(shown(served, "fork")))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [200] * 8
    assert len([shadow for shadow in served.shadows() if shadow.branch_name == "fork"]) == 1


def test_a_fork_of_a_fork_has_what_the_nearest_ancestor_serves(served: Engine) -> None:
    served.write("fork", [Put("object_type", "ours", {"text": "common"})])
    served.fork_branch("deep", "fork")
    served.write("fork", [Put("object_type", "later", {"text": "common"})])
    assert shown(served, "deep") == {"ours", *(f"k{n}" for n in range(200))}


def test_a_reader_without_patience_leaves_a_build_that_goes_on(served: Engine) -> None:
    with pytest.raises(Timeout, match=r"was not there after 0\.0 s: shadow .* try again"):
        served.reader("fork", KIND, timeout_s=0)
    wait_until(lambda: served.indexes("fork"))
    assert len(shown(served, "fork")) == 200


def test_a_start_goes_on_with_the_index_that_a_reader_asked_for(served: Engine, open_engine: Any) -> None:
    with pytest.raises(Timeout):
        served.reader("fork", KIND, timeout_s=0)
    served.close()
    again: Engine = open_engine()
    wait_until(lambda: again.indexes("fork"))
    assert len(shown(again, "fork")) == 200


def test_an_index_that_no_ancestor_serves_is_unknown(served: Engine) -> None:
    with pytest.raises(UnknownIndex):
        served.reader("fork", "GRAPH_INDEX", timeout_s=0)
    assert not [shadow for shadow in served.shadows() if shadow.branch_name == "fork"]


def test_a_build_of_a_caller_is_waited_for_and_named(served: Engine) -> None:
    shadow = served.start_build("fork", KIND, TYPES).shadow_index_id
    served.wait_for(shadow, timeout_s=60)
    with pytest.raises(Timeout, match=f"shadow {shadow} is BUILT.*another caller began that build"):
        served.reader("fork", KIND, timeout_s=0.2)
    assert served.switch(shadow).success
    assert len(shown(served, "fork")) == 200


def test_a_dropped_index_of_a_fork_comes_back_when_it_is_read(served: Engine) -> None:
    shown(served, "fork")
    wait_until(unless_in_use(served.drop_index, "fork", KIND))
    assert len(shown(served, "fork")) == 200


def test_a_stop_before_the_backend_has_checked_a_clone_leaves_the_check_to_the_next_start(
    served: Engine, open_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parent's words are damaged. The clone is served as the parent is, and found unsound behind that."""
    served.close()
    with monkeypatch.context() as patch:
        inside.replace(patch, inside.Step.RECHECK, lambda scrubber: None)
        engine: Engine = open_engine(sound=False)
        for file in Path(engine.index("main", KIND).path).glob("shard-*/shard.sqlite"):
            with closing(sqlite3.connect(file, timeout=30)) as connection, connection:
                connection.execute("UPDATE docs SET c0 = 'altered' WHERE id = 'k7'")
        engine.write("fork", [Put("object_type", "ours", {"text": "common"})])
        with engine.reader("fork", KIND, timeout_s=30) as reader:
            assert reader.count() == 200 or reader.count() == 201
        wait_until(lambda: not inside.switches_under_way(engine))
        engine.close()
    again: Engine = open_engine(sound=False)
    wait_until(lambda: any(row.type.endswith("index.unsound") for row in again.audit()), 60.0)
    wait_until(lambda: not inside.catalog(again).indexes()[-1].unread)


def test_an_index_that_cannot_be_made_is_not_tried_again_by_each_reader(
    served: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read() -> None:
        with pytest.raises(BuildFailed, match="planted"):
            served.reader("fork", KIND, timeout_s=30)

    with monkeypatch.context() as patch:

        def refuse(*given: Any, **how: Any) -> None:
            raise CorruptData("planted")

        inside.replace(patch, inside.Step.VALIDATE_SHADOW, refuse)
        for _ in range(3):
            read()
        (first,) = [shadow for shadow in served.shadows() if shadow.branch_name == "fork"]
        inside.patch_limit(patch, inside.Limit.FORK_INDEX_AGAIN_S, 0)
        read()
    inside.patch_limit(monkeypatch, inside.Limit.FORK_INDEX_AGAIN_S, 0)
    assert len(shown(served, "fork")) == 200
    wait_until(lambda: not Path(first.shadow_index_path).exists(), 60.0)
    assert len([shadow for shadow in served.shadows() if shadow.branch_name == "fork"]) == 3


def test_an_archived_fork_gets_no_index(served: Engine) -> None:
    served.archive_branch("fork", by="alice", reason="done")
    with pytest.raises(UnknownIndex):
        served.reader("fork", KIND, timeout_s=5)


def test_a_clone_needs_the_room_of_its_parents_index_and_not_that_of_the_catalog(
    served: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.create_branch("large")
    for start in range(20):
        served.write("large", [Put("object_type", f"{start}-{n}", {"text": "x" * 5000}) for n in range(100)])
    room = 2 * sum(file.stat().st_size for file in Path(served.index("main", KIND).path).rglob("*") if file.is_file())
    assert room < served.stats()["catalog"]["map_used_bytes"]
    inside.replace(monkeypatch, inside.Step.FREE_BYTES, lambda root: room + (1 << 20))
    assert len(shown(served, "fork")) == 200


@pytest.mark.parametrize("seed", range(3))
def test_indexes_of_random_trees_show_what_their_branches_show(engine: Engine, seed: int) -> None:
    tree = Tree(engine, seed, branches_max=5)
    tree.write(tree.root)
    assert engine.rebuild(tree.root, KIND, list(TREE_TYPES), request=SwitchRequest(allow_empty=True)).success
    for _ in range(6):
        for _ in range(8):
            tree.step()
        name = tree.chance.choice(list(tree.copies))
        with engine.reader(name, KIND, min_lsn=engine.head(name), timeout_s=60) as reader:
            rows = {(row.resource_type, row.id) for row in reader.scan()}
        assert rows == set(tree.shown(name)), name
        wait_until(lambda: not inside.switches_under_way(engine))
    assert list(engine.check()) == []
