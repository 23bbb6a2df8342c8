"""Builds that begin with the rows of a generation that is there."""

from __future__ import annotations

import contextlib
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from shadowswitch import BuildFailed, Delete, Engine, GroupMember, InvalidConfig, Put, UnknownIndex
from shadowswitch.model.views import ShadowIndex
from tests.support import inside
from tests.support.engine_helpers import wait_until

KIND, TYPES = "SEARCH_INDEX", ["object_type", "link_type"]
BACKENDS: dict[str, dict[str, Any]] = {"fts5": {"backend": "fts5"}, "kv": {"backend": "kv"}}


def fill(engine: Engine, branch: str, count: int = 300) -> None:
    engine.create_branch(branch, exist_ok=True)
    for name in TYPES:
        engine.write(branch, [Put(name, f"k{n}", {"text": f"word{n} common", "n": n}) for n in range(count)])


def shown(engine: Engine, branch: str, query: str = "") -> dict[tuple[str, str], int]:
    """What the index holds, which must be what the branch holds."""
    with engine.reader(branch, KIND, min_lsn=engine.head(branch), timeout_s=30) as reader:
        rows = {(row.resource_type, row.id): row.lsn for row in reader.scan()}
        types = set(engine.index(branch, KIND).resource_types)
    assert rows == {(r.resource_type, r.id): r.lsn for r in engine.scan(branch) if r.resource_type in types}
    assert list(engine.check()) == []
    return rows


def live(engine: Engine, branch: str, **more: Any) -> ShadowIndex:
    """Build and switch; what the status said when it was BUILT."""
    shadow = engine.start_build(branch, KIND, more.pop("types", TYPES), **more).shadow_index_id
    built = engine.wait_for(shadow, "BUILT", timeout_s=60)
    result = engine.switch(shadow)
    assert result.success, result.message
    return built


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_refresh_takes_the_files_of_the_live_generation(engine: Engine, backend: str) -> None:
    fill(engine, "main")
    first = live(engine, "main", build_config=BACKENDS[backend])
    assert first.seeded_from is None
    engine.write("main", [Put("object_type", "k1", {"text": "changed"}), Delete("link_type", "k2")])
    again = live(engine, "main", build_config=BACKENDS[backend], seed="require")
    assert again.seeded_from == first.generation
    assert ("link_type", "k2") not in shown(engine, "main")


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_index_of_a_fork_is_that_of_its_parent_without_what_came_later(engine: Engine, backend: str) -> None:
    fill(engine, "main")
    live(engine, "main", build_config=BACKENDS[backend])
    engine.fork_branch("fork", "main")
    engine.write("fork", [Put("object_type", "k1", {"text": "ours"}), Delete("object_type", "k3")])
    engine.write("main", [Put("object_type", "k1", {"text": "theirs"}), Put("object_type", "new", {"text": "theirs"})])
    engine.write("main", [Delete("link_type", f"k{n}") for n in range(50)])
    engine.write("fork", [Put("link_type", "k7", {"text": "ours"})])
    with engine.reader("main", KIND, min_lsn=engine.head("main"), timeout_s=30):
        pass  # the parent's index has what the fork must not show
    assert live(engine, "fork", build_config=BACKENDS[backend], seed="require").seeded_from
    rows = shown(engine, "fork")
    assert ("object_type", "new") not in rows
    assert ("object_type", "k3") not in rows
    assert ("link_type", "k9") in rows
    shown(engine, "main")


def test_a_fork_of_a_fork_takes_what_the_nearest_ancestor_serves(engine: Engine) -> None:
    fill(engine, "main")
    first = live(engine, "main")
    engine.fork_branch("a", "main")
    engine.write("a", [Put("object_type", "k1", {"text": "a"})])
    engine.fork_branch("b", "a")
    engine.write("b", [Delete("object_type", "k1"), Put("link_type", "b", {"text": "b"})])
    assert live(engine, "b", seed="require").seeded_from == first.generation
    shown(engine, "b")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"tokenizer": "unicode61"}, {"tokenizer": "porter"}),
        ({}, {"prefix": [2, 3]}),
        ({"columns": {"text": 1.0}}, {"columns": {"text": 4.0}}),
    ],
    ids=["tokenizer", "prefix", "weights"],
)
def test_other_words_of_the_same_texts_are_indexed_in_a_copy(
    engine: Engine, old: dict[str, Any], new: dict[str, Any]
) -> None:
    fill(engine, "main")
    first = live(engine, "main", build_config=old)
    engine.write("main", [Put("object_type", "k1", {"text": "running"})])
    assert live(engine, "main", build_config=new, seed="require").seeded_from == first.generation
    shown(engine, "main")
    with engine.reader("main", KIND) as reader:
        assert len(reader.search("common", limit=1000)) == 599
        assert len(reader.search("runs" if new.get("tokenizer") == "porter" else "running")) == 1


def test_a_type_more_and_a_type_less(engine: Engine) -> None:
    fill(engine, "main")
    live(engine, "main", types=TYPES[:1])
    both = live(engine, "main", seed="require")
    assert both.seeded_from
    assert len(shown(engine, "main")) == 600
    assert live(engine, "main", types=TYPES[1:], seed="require").seeded_from == both.generation
    assert len(shown(engine, "main")) == 300


def test_what_cannot_be_taken_over_is_refused_with_the_reason(engine: Engine) -> None:
    fill(engine, "main", 10)
    with pytest.raises(InvalidConfig, match="neither the branch nor one that it was forked from serves"):
        engine.start_build("main", KIND, TYPES, seed="require")
    live(engine, "main", build_config={"shards": 2})
    for config, reason in (
        ({"shards": 1}, "has 2 shards, and the build 1"),
        ({"columns": ["text"], "shards": 2}, "leave nothing to take over"),
        ({"backend": "kv", "shards": 2}, "its backend is fts5"),
        ({"full_rebuild": True}, "begins from the records"),
    ):
        with pytest.raises(InvalidConfig, match=reason):
            engine.start_build("main", KIND, TYPES, config, seed="require")
    for seed in ("sometimes", "clone"):
        with pytest.raises(InvalidConfig, match="seed is one of auto, never, require"):
            engine.start_build("main", KIND, TYPES, seed=seed)
    assert [shadow.state for shadow in engine.shadows()] == ["ACTIVE"]


def test_a_small_index_is_built_from_the_records_unless_a_seed_is_required(engine: Engine) -> None:
    fill(engine, "main", 10)
    live(engine, "main")
    assert live(engine, "main").seeded_from is None
    assert live(engine, "main", seed="never").seeded_from is None


def alter(engine: Engine, branch: str, statement: str) -> None:
    """Change rows of the live generation without the backend."""
    for file in Path(engine.index(branch, KIND).path).glob("shard-*/shard.sqlite"):
        with closing(sqlite3.connect(file, timeout=30)) as connection, connection:
            connection.execute(statement)


def test_a_copy_of_damage_is_found_and_the_build_begins_again_from_the_records(
    open_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside.patch_limit(monkeypatch, inside.Limit.SEED_ROWS_MIN, 1)
    engine: Engine = open_engine(sound=False)
    fill(engine, "main")
    live(engine, "main")
    alter(engine, "main", "UPDATE docs SET c0 = 'altered' WHERE id IN ('k5', 'k6')")
    built = live(engine, "main")
    assert built.seeded_from is None
    (entry,) = [entry for entry in engine.audit() if entry.type.endswith("build.unseeded")]
    assert "INTEGRITY_CHECK" in entry.data["reason"]
    with engine.reader("main", KIND) as reader:
        assert reader.count() == 600
        assert not reader.search("altered")
    assert inside.check_generation(engine, built.generation, "INTEGRITY_CHECK").errors == []


def test_a_required_seed_that_is_damaged_fails_the_build(open_engine: Any) -> None:
    engine: Engine = open_engine(sound=False)
    fill(engine, "main")
    live(engine, "main")
    alter(engine, "main", "UPDATE docs SET c0 = 'altered' WHERE id IN ('k5', 'k6')")
    shadow = engine.start_build("main", KIND, TYPES, seed="require").shadow_index_id
    with pytest.raises(BuildFailed, match="did not pass its validation"):
        engine.wait_for(shadow, timeout_s=60)


def test_a_generation_that_is_removed_before_the_copy_leaves_a_build_from_the_records(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside.patch_limit(monkeypatch, inside.Limit.SEED_ROWS_MIN, 1)
    fill(engine, "main")
    live(engine, "main")
    engine.fork_branch("fork", "main")
    path = Path(engine.index("main", KIND).path)

    def remove() -> None:
        if path.exists():
            with contextlib.suppress(UnknownIndex):
                engine.drop_index("main", KIND)
            engine.clean_up(60)
            wait_until(lambda: not path.exists())

    inside.before(monkeypatch, inside.Step.BUILD_FAILPOINT, remove)
    shadow = engine.start_build("fork", KIND, TYPES)
    assert shadow.seeded_from
    built = engine.wait_for(shadow.shadow_index_id, timeout_s=60)
    assert built.seeded_from is None
    assert built.record_count == 600


def test_a_member_of_a_group_with_full_rebuild_reads_every_record(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside.patch_limit(monkeypatch, inside.Limit.SEED_ROWS_MIN, 1)
    fill(engine, "main")
    first = live(engine, "main")
    for config, seeded_from in (({}, first.generation), ({"full_rebuild": True}, None)):
        group = engine.start_group("one", [GroupMember("main", KIND, TYPES, config)])
        built = engine.wait_for(group.members[0].shadow_index_id, timeout_s=60)
        assert built.seeded_from == seeded_from
        engine.cancel_build(built.shadow_index_id)
