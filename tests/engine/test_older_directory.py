"""The code of today opens, checks and continues data directories of commit c1abf58; see tests/fixtures/README.md.

The script that made the directories wrote the expectations from its own ledger. The directories name a boot id that no
machine has, so each open in these tests is the first one on another machine.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from shadowswitch import Delete, JournalTrimmed, LockConflict, LockLost, Put, UnknownIndex, WriteBlocked
from tests.support.cli_helpers import Cli
from tests.support.engine_helpers import wait_until
from tests.support.external_helpers import write_files, write_manifest
from tests.support.older_directory import (
    FEATURE,
    LINK,
    LINKS,
    MAIN,
    NOTE,
    OBJECT,
    RELEASE,
    SEARCH,
    VARIANTS,
    Older,
    OpenEngine,
    as_written,
    beginning_with,
    found_by,
    same_lock,
    shows_everything,
    unpacked,
)


@pytest.fixture(params=VARIANTS)
def older(request: pytest.FixtureRequest, tmp_path: Path, open_engine: OpenEngine) -> Older:
    """The closed directory, then the killed one."""
    return unpacked(request.param, tmp_path, open_engine)


# -- records and indexes -------------------------------------------------------------------------------------------


def test_branches_heads_and_records_are_as_they_were_written(older: Older) -> None:
    engine = older.open()
    assert engine.check() == []
    assert [info.name for info in engine.branches()] == [MAIN, FEATURE, RELEASE]
    for name, expected in older["branches"].items():
        info = engine.branch(name)
        assert (info.head_lsn, info.oldest_lsn) == (expected["head_lsn"], expected["oldest_lsn"])
        assert info.state == expected["state"]
        assert engine.head(name) == expected["head_lsn"]
        records = older.records(name)
        assert engine.count(name) == info.record_count == len(records)
        assert {(r.resource_type, r.id): (r.fields, r.lsn) for r in engine.scan(name)} == records
        for (kind, id), (fields, lsn) in records.items():
            record = engine.get(name, kind, id)
            assert record is not None
            assert (record.fields, record.lsn) == (fields, lsn)
    assert engine.get(MAIN, OBJECT, "object-7") is None
    assert engine.get(MAIN, LINK, "owns/größe-2") is None


def test_live_indexes_give_the_hits_that_they_must(older: Older) -> None:
    engine = older.open()
    assert len(engine.indexes()) == len(older["indexes"]) == 3
    for index in older["indexes"]:
        info = engine.index(index["branch"], index["index_type"])
        assert (info.generation, info.previous_generation) == (index["generation"], index["previous_generation"])
        assert sorted(info.resource_types) == sorted(index["types"])
        shows_everything(older, engine, index)
    for kind in (SEARCH, LINKS):
        outside = older.path / "published" / MAIN / kind
        assert outside.resolve() == Path(engine.index(MAIN, kind).path).resolve()


def test_the_journal_is_kept_from_the_hold_on_and_trimmed_before_it(older: Older) -> None:
    engine = older.open()
    holds = {hold.name: hold for hold in engine.changes_holds(MAIN)}
    assert sorted(holds) == sorted([*older["holds"], *older["given_up"]])
    ((name, held),) = older["holds"].items()
    assert (holds[name].after_lsn, holds[name].given_up) == (held, "")
    assert "held back" in holds["too slow"].given_up
    changes = engine.changes(MAIN, after=held)
    assert [[c.lsn, c.kind, c.resource_type, c.id, c.fields] for c in changes] == older["changes"]
    with pytest.raises(JournalTrimmed, match="too slow"):
        engine.changes(MAIN, after=0)
    head = older["branches"][MAIN]["head_lsn"]
    assert engine.hold_changes(name, MAIN, head).after_lsn == head
    assert engine.release_changes(name, MAIN) is True


def test_events_and_audit_are_as_they_were_written_and_go_on_without_a_gap(older: Older) -> None:
    engine = older.open()
    events, audit = older["events"], older["audit"]
    assert as_written(engine.events(after=0, limit=len(events)), events) == events
    assert as_written(engine.audit(after=0, limit=len(audit)), audit) == audit
    assert engine.event_span()[0] == 1
    for name, sequence in older["positions"].items():
        assert engine.event_position(name) == sequence
    assert "mallory left: größe" in [entry["data"].get("reason") for entry in audit]
    engine.create_branch("after")
    engine.acquire_lock("after", "MANUAL", "erin")
    later = engine.events(after=len(events))
    assert [event.sequence for event in later] == list(range(len(events) + 1, len(events) + 1 + len(later)))
    assert later[-1].data["owner"] == "erin"


# -- builds --------------------------------------------------------------------------------------------------------


def test_shadows_are_in_the_states_in_which_they_were(older: Older) -> None:
    engine = older.open()
    for id, (state, branch, index_type, error) in older["shadows"].items():
        shadow = engine.shadow(id)
        assert (shadow.branch_name, shadow.index_type, shadow.error) == (branch, index_type, error)
        if id != older.expected.get("copying"):
            assert shadow.state == state
    for id, lsn in older["start_lsns"].items():
        assert engine.shadow(id).start_lsn == lsn


@pytest.mark.parametrize("name", ["shadows", "indexes", "branches", "changes_holds"])
def test_each_view_is_as_the_older_version_gave_it(older: Older, name: str) -> None:
    engine = older.open()
    expected = older["views"][name]
    for one in expected:
        one.pop("soak_until", None)  # stored as a wall time; the soak begins again
    found = as_written(getattr(engine, name)(), expected)
    moving = {older.expected.get("copying")}
    assert [one for one in found if one.get("shadow_index_id") not in moving] == [
        one for one in expected if one.get("shadow_index_id") not in moving
    ]


def test_rollback_goes_back_and_forth_and_loses_nothing(older: Older) -> None:
    engine = older.open()
    carol = older["short_locks"]["short"]
    engine.write(MAIN, [Put(OBJECT, "neu", {"title": "x", "body": "zebra"}), Delete(OBJECT, "object-6")])
    receipt = engine.write(MAIN, [Put(LINK, "owns/neu", {"n": 1})], owner=carol["owner"], tokens=[carol["token"]])
    for index in older["indexes"][:2]:
        kind, there, back = index["index_type"], index["generation"], index["previous_generation"]
        for wanted in (back, there, back):
            result = engine.rollback(MAIN, kind)
            assert result.success, result.message
            assert engine.index(MAIN, kind).generation == result.generation == wanted
            with engine.reader(MAIN, kind, min_lsn=receipt.lsn) as reader:
                if kind == LINKS:
                    links = beginning_with(older.records(MAIN), "owns/")
                    assert found_by(reader, "owns/") == links | {(LINK, "owns/neu", receipt.lsn)}
                else:
                    assert found_by(reader, "zebra") == {(OBJECT, "neu", receipt.lsn - 2)}
                    assert reader.get(OBJECT, "object-6") is None
                    hits = {tuple(hit) for hit in index["hits"]["größe"] if hit[1] != "object-6"}
                    assert found_by(reader, "größe") == hits
    with pytest.raises(UnknownIndex):
        engine.rollback(FEATURE, SEARCH)


def test_the_built_shadow_has_waited_and_can_be_switched_to_after_a_write(older: Older) -> None:
    engine = older.open()
    id = older.shadow_id(SEARCH)
    assert engine.shadow(id).switch_ready
    receipt = engine.write(MAIN, [Put(OBJECT, "neu", {"title": "x", "body": "zebra"})])
    result = engine.switch(id)
    assert result.success, result.message
    (index,) = [index for index in older["indexes"] if (index["branch"], index["index_type"]) == (MAIN, SEARCH)]
    assert engine.index(MAIN, SEARCH).shadow_index_id == id
    assert engine.index(MAIN, SEARCH).previous_generation == index["generation"]
    with engine.reader(MAIN, SEARCH, min_lsn=receipt.lsn) as reader:
        assert found_by(reader, "zebra") == {(OBJECT, "neu", receipt.lsn)}
        for word, hits in index["hits"].items():
            assert found_by(reader, word) == {tuple(hit) for hit in hits}


def test_the_external_build_is_reported_on_completed_and_switched_to(older: Older) -> None:
    engine = older.open()
    id = older.shadow_id("GRAPH_INDEX")
    shadow = engine.shadow(id)
    assert (shadow.external, shadow.service_name, shadow.build_config) == (True, "graph-größe", {"edges": "größe"})
    assert shadow.build_progress_percent == older["external_progress"]
    folder = Path(shadow.shadow_index_path)
    assert (folder / "shard-000" / "half.bin").read_bytes() == b"half"
    assert engine.report_progress(id, 80, 1, 9).build_progress_percent == 80
    content = {"shard-000/half.bin": b"half and half", "shard-000/größe/edges.bin": b"edges" * 20}
    write_files(folder, content)
    count, head = engine.count(MAIN, LINK), engine.head(MAIN)
    write_manifest(shadow, head, count)
    done = engine.complete_build(id, sum(map(len, content.values())), count, head)
    assert done.state == "BUILT"
    result = engine.switch(id)
    assert result.success, result.message
    assert engine.index(MAIN, "GRAPH_INDEX").path == str(folder)


def test_a_failed_build_can_be_retried_and_its_event_is_not_dealt_with_twice(older: Older) -> None:
    engine = older.open()
    outcome = engine.receive_event(older["event"])
    assert (outcome.duplicate, outcome.outcome) == (True, older["outcome"])
    again = engine.retry_build(older.shadow_id("VECTOR_INDEX"))
    assert (again.state, again.retry_count) == ("BUILDING", 1)
    assert Path(again.shadow_index_path).is_dir()


@pytest.mark.parametrize("older", ["killed"], indirect=True)
def test_the_build_that_copied_when_its_host_was_killed_goes_on(older: Older) -> None:
    engine = older.open()
    found = {(entry.type, entry.subject) for entry in engine.audit(after=len(older["audit"]))}
    assert ("recovery.resumed", older["copying"]) in found
    built = engine.wait_for(older["copying"], "BUILT", timeout_s=60)
    objects = {key: value for key, value in older.records(MAIN).items() if key[0] == OBJECT}
    assert built.record_count == len(objects)
    result = engine.switch(built.shadow_index_id)
    assert result.success, result.message
    with engine.reader(MAIN, "TYPE_INDEX", min_lsn=engine.head(MAIN)) as reader:
        assert {(r.resource_type, r.id): r.lsn for r in reader.scan()} == {
            key: lsn for key, (_, lsn) in objects.items()
        }


@pytest.mark.parametrize(("older", "checked"), [("closed", 0), ("killed", 2)], indirect=["older"])
def test_kv_shards_are_read_whole_on_another_machine_unless_they_were_closed(older: Older, checked: int) -> None:
    engine = older.open()
    found = [
        entry.data["generation"]
        for entry in engine.audit(after=len(older["audit"]))
        if entry.type == "recovery.checked"
    ]
    (links,) = [index for index in older["indexes"] if index["index_type"] == LINKS]
    assert sorted(found) == [links["previous_generation"], links["generation"]][:checked]


# -- locks ---------------------------------------------------------------------------------------------------------


def test_locks_are_held_under_their_owners_and_tokens(older: Older) -> None:
    engine = older.open()
    held = {**older["locks"], **older["short_locks"]}
    locks = {lock.lock_id: lock for lock in engine.locks()}
    assert len(locks) == len(held) == 4
    for expected in held.values():
        assert same_lock(locks[expected["lock_id"]], expected)
        assert engine.heartbeat(expected["lock_id"], expected["token"], 60).progress_percent == 60
        with pytest.raises(LockLost):
            engine.heartbeat(expected["lock_id"], expected["token"] + 1000)
    for id, token in older["lost_locks"]:
        with pytest.raises(LockLost):
            engine.release_lock(id, token)
    beating = held["beating"]
    change = [Put(OBJECT, beating["resource_id"], {"title": "t", "body": "zebra"})]
    with pytest.raises(WriteBlocked, match="Zoë"):
        engine.write(MAIN, change)
    receipt = engine.write(MAIN, change, owner=beating["owner"], tokens=[beating["token"]])
    assert receipt.lsn == older.last_lsn + 1
    with pytest.raises(LockConflict):
        engine.acquire_lock(FEATURE, "BACKUP", "erin")
    engine.release_lock(held["long"]["lock_id"], held["long"]["token"])
    assert engine.write(FEATURE, [Delete(OBJECT, "日本-2")]).lsn == older.last_lsn + 2
    tokens = [lock["token"] for lock in held.values() if lock["branch"] == MAIN]
    assert engine.acquire_lock(MAIN, "MANUAL", "erin", "RESOURCE", OBJECT, "x").token > max(tokens)


def test_a_lock_without_news_of_its_holder_ends_when_its_remaining_time_is_over(older: Older) -> None:
    engine = older.open(lock_grace_s=0.05)
    staying = {lock["lock_id"] for lock in older["locks"].values()}
    wait_until(lambda: {lock.lock_id for lock in engine.locks()} == staying, what="the end of the short locks")
    for lock in older["short_locks"].values():
        with pytest.raises(LockLost):
            engine.heartbeat(lock["lock_id"], lock["token"])
    assert engine.write(MAIN, [Put(LINK, "owns/x", {}), Put(OBJECT, "object-4", {})]).lsn == older.last_lsn + 2


# -- going on ------------------------------------------------------------------------------------------------------


def test_writing_building_and_switching_go_on_where_they_ended(older: Older) -> None:
    engine = older.open()
    receipt = engine.write(MAIN, [Put(OBJECT, "neu", {"title": "x", "body": "zebra größe"}), Delete(NOTE, "Ärger 3")])
    assert (receipt.count, receipt.lsn) == (2, older.last_lsn + 2)
    result = engine.rebuild(MAIN, "NEW_INDEX", [OBJECT, NOTE], {"backend": "fts5"}, timeout_s=60)
    assert result.success, result.message
    generations = [index["generation"] for index in older["indexes"]]
    assert result.generation > max(generations)
    records = {key: lsn for key, (_, lsn) in older.records(MAIN).items() if key[0] in (OBJECT, NOTE)}
    records = {**records, (OBJECT, "neu"): older.last_lsn + 1}
    del records[NOTE, "Ärger 3"]
    with engine.reader(MAIN, "NEW_INDEX", min_lsn=receipt.lsn) as reader:
        assert {(r.resource_type, r.id): r.lsn for r in reader.scan()} == records
        assert found_by(reader, "zebra") == {(OBJECT, "neu", older.last_lsn + 1)}
    engine.clean_up()
    assert engine.check() == []


def test_it_can_be_closed_and_opened_again(older: Older) -> None:
    older.open().close()
    engine = older.open()
    assert engine.check() == []
    assert engine.event_position("webhook größe") == older["positions"]["webhook größe"]
    assert {lock.lock_id for lock in engine.locks()} >= {lock["lock_id"] for lock in older["locks"].values()}
    for index in older["indexes"]:
        shows_everything(older, engine, index)


# -- the command line ----------------------------------------------------------------------------------------------


def test_the_command_line_reads_the_older_directory_without_a_host(
    older: Older, capsys: pytest.CaptureFixture[str]
) -> None:
    cli = Cli(capsys)
    status = cli.json("status", "--data", older.path)
    assert status["host"] is None
    assert [branch["name"] for branch in status["branches"]] == [MAIN, FEATURE, RELEASE]
    for branch in status["branches"]:
        expected = older["branches"][branch["name"]]
        assert (branch["head_lsn"], branch["oldest_lsn"]) == (expected["head_lsn"], expected["oldest_lsn"])
        assert (branch["record_count"], branch["state"]) == (len(expected["records"]), expected["state"])
    live = {(row["branch_name"], row["index_type"]): row for row in status["indexes"]}
    for index in older["indexes"]:
        row = live[index["branch"], index["index_type"]]
        assert row["generation"] == index["generation"]
        assert row["record_count"] == sum(key[0] in index["types"] for key in older.records(index["branch"]))
    shadows = {row["shadow_index_id"]: row for row in status["shadows"]}
    for id, (state, *_, error) in older["shadows"].items():
        assert (shadows[id]["state"], shadows[id]["error"]) == (state, error)
    held = {(lock["owner"], lock["lock_type"]) for lock in status["locks"]}
    assert held >= {(lock["owner"], lock["lock_type"]) for lock in older["locks"].values()}
    (index,) = [index for index in older["indexes"] if index["branch"] == FEATURE]
    hits = cli.json("search", FEATURE, "größe", "--data", older.path)["hits"]
    assert {(hit["resource_type"], hit["id"], hit["lsn"]) for hit in hits} == set(map(tuple, index["hits"]["größe"]))
    assert cli.json("check", "--data", older.path) == []
