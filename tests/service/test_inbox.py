"""The inbox: it takes a complete file once; a rejected file lies in `rejected` beside its reason."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from shadowswitch import Engine
from shadowswitch.service.daemon.inbox import Inbox
from shadowswitch.storage import failpoints
from tests.support.engine_helpers import KIND, fill, wait_until
from tests.support.external_helpers import begin, delivered, incoming

OpenEngine = Callable[..., Engine]
REASONS: dict[str, tuple[bytes, str]] = {
    "nested too deep": (b"[" * 5000 + b"]" * 5000, "nested deeper than 100 levels"),
    "no JSON": (b"hello", "it is not one JSON object"),
    "half of it": (json.dumps(incoming("com.oms.indexing.completed"))[:-1].encode(), "it is not one JSON object"),
    "a list": (b"[]", "it is not one JSON object"),
    "no text": (b'{"id": "\xff"}', "it is not one JSON object"),
    "no event": (b"{}", "specversion must be '1.0'"),
    "another type": (json.dumps(incoming("com.oms.other")).encode(), "are not accepted"),
    "nothing to complete": (json.dumps(incoming("com.oms.indexing.completed")).encode(), "nothing is being indexed"),
    "too large": (b" " * (1 << 20) + b"{}", "more than 1048576 bytes"),
}


@pytest.fixture
def inbox(engine: Engine) -> Iterator[Inbox]:
    """A running inbox."""
    box = Inbox(engine, settle_s=0.1, rescan_s=0.2)
    box.start()
    yield box
    box.stop()


def drop(inbox: Inbox, event: Any, name: str = "event.json") -> Path:
    """Write a file under another name, then rename it into the inbox."""
    inbox.folder.mkdir(exist_ok=True)
    path = inbox.folder / name
    temporary = path.with_name(f".{name}")
    temporary.write_bytes(event if isinstance(event, bytes) else json.dumps(event).encode())
    return temporary.rename(path)


def test_an_event_file_switches_its_shadow_and_is_removed(engine: Engine, inbox: Inbox) -> None:
    fill(engine, 10)
    shadow = begin(engine)
    delivered(engine, shadow)
    path = drop(inbox, incoming("com.oms.shadow.indexing.completed", shadow_index_id=shadow.shadow_index_id))
    wait_until(lambda: inbox.taken + inbox.rejected)
    assert not path.exists()
    assert engine.index("main", KIND).shadow_index_id == shadow.shadow_index_id
    assert (inbox.taken, inbox.rejected) == (1, 0)


def test_files_from_before_the_start_are_taken_oldest_first(engine: Engine) -> None:
    box = Inbox(engine)
    (box.folder / "rejected").mkdir(parents=True)
    engine.start_indexing("main", "funnel", ["object_type", "link_type"])
    for n, name in enumerate(["link_type", "object_type"]):
        event = incoming("com.oms.indexing.completed", str(n), indexed_resource_types=[name])
        os.utime(drop(box, event, f"{9 - n}.json"), (n, n))
    box._round()
    handled = [event.data["id"] for event in engine.events() if event.type.endswith("incoming.handled")]
    assert handled == ["0", "1"]
    assert list(box.folder.iterdir()) == [box.folder / "rejected"]


def gone(path: Path) -> bool:
    return not path.exists()


@pytest.mark.parametrize("case", REASONS)
def test_an_invalid_file_moves_to_rejected_with_its_reason(engine: Engine, inbox: Inbox, case: str) -> None:
    content, reason = REASONS[case]
    path = drop(inbox, content)
    wait_until(lambda: not path.exists())
    rejected = inbox.folder / "rejected"
    assert (rejected / "event.json").read_bytes() == content
    assert reason in (rejected / "event.json.reason.txt").read_text()


def test_a_second_invalid_file_does_not_replace_the_first(inbox: Inbox) -> None:
    for content in (b"one", b"two"):
        path = drop(inbox, content)
        wait_until(partial(gone, path))
    wait_until(lambda: inbox.rejected == 2)
    names = sorted(path.name for path in (inbox.folder / "rejected").iterdir())
    assert names == ["2-event.json", "2-event.json.reason.txt", "event.json", "event.json.reason.txt"]
    assert (inbox.folder / "rejected" / "event.json").read_bytes() == b"one"


@pytest.mark.parametrize(
    "name",
    ["n" * 251, "가" * 83, "n" * 54 + "가" * 66, os.fsdecode(b"\xff" * 250)],
    ids=["251 bytes", "3 bytes a character", "cut inside a character", "not UTF-8"],
)
def test_a_file_with_a_long_name_is_rejected_and_the_others_are_taken(engine: Engine, inbox: Inbox, name: str) -> None:
    for number in (1, 2):  # the second one gets another name in `rejected`
        (inbox.folder / name).write_bytes(b"hello")
        wait_until(lambda number=number: inbox.rejected == number)  # type: ignore[misc]
    event = incoming("com.oms.indexing.completed", indexed_resource_types=["link_type"])
    engine.start_indexing("main", "funnel", ["link_type"])
    drop(inbox, event)
    wait_until(lambda: inbox.taken == 1)
    assert len(os.listdir(inbox.folder / "rejected")) == 4, "each with its reason"
    assert os.listdir(inbox.folder) == ["rejected"]


def test_a_link_is_not_followed(engine: Engine, inbox: Inbox, tmp_path: Path) -> None:
    engine.start_indexing("main", "funnel")
    outside = tmp_path / "outside.json"
    outside.write_text(json.dumps(incoming("com.oms.indexing.completed")))
    (inbox.folder / "link.json").symlink_to(outside)
    wait_until(lambda: inbox.rejected == 1)
    assert outside.exists()
    assert engine.branch("main").state == "LOCKED_FOR_WRITE"


def test_the_inbox_waits_for_an_incomplete_file(engine: Engine) -> None:
    engine.start_indexing("main", "funnel")
    box = Inbox(engine, settle_s=600)
    (box.folder / "rejected").mkdir(parents=True)
    data = json.dumps(incoming("com.oms.indexing.completed")).encode()
    with (box.folder / "slow.json").open("wb", buffering=0) as file:
        file.write(data[:40])
        box._round()
        assert (box.taken, box.rejected) == (0, 0)
        file.write(data[40:])
        box._round()
    assert (box.taken, box.rejected, engine.branch("main").state) == (1, 0, "READY")


def test_names_of_unfinished_files_are_skipped(engine: Engine, inbox: Inbox) -> None:
    engine.start_indexing("main", "funnel")
    for name in ("a.json.tmp", "b.part", "c~", ".hidden.json"):
        (inbox.folder / name).write_text("x")
    drop(inbox, incoming("com.oms.indexing.completed"))
    wait_until(lambda: inbox.taken == 1)
    assert inbox.rejected == 0
    assert len(list(inbox.folder.iterdir())) == 5


def test_a_temporary_failure_leaves_the_file_and_is_tried_again(engine: Engine, inbox: Inbox) -> None:
    engine.start_indexing("main", "funnel")
    failpoints.plan_points("journal.before_commit=raise:ENOSPC")
    path = drop(inbox, incoming("com.oms.indexing.completed"))
    wait_until(lambda: inbox._waiting and next(iter(inbox._waiting.values())).pause_s > 1)
    assert path.exists()
    failpoints.plan_points("")
    wait_until(lambda: inbox.taken == 1)
    assert engine.branch("main").state == "READY"


def test_an_event_with_an_outcome_is_not_received_twice_after_a_kill(engine: Engine) -> None:
    engine.start_indexing("main", "funnel")
    event = incoming("com.oms.indexing.completed")
    engine.receive_event(event)  # a kill follows, before the removal of the file
    engine.start_indexing("main", "funnel")
    box = Inbox(engine)
    drop(box, event)
    box._round()
    assert list(box.folder.iterdir()) == []
    assert engine.branch("main").state == "LOCKED_FOR_WRITE"


def test_an_inbox_ends_with_its_engine(open_engine: OpenEngine) -> None:
    engine = open_engine()
    box = Inbox(engine, rescan_s=0.05)
    box.start()
    engine.close()
    drop(box, b"late")
    box._wake.set()
    box.stop()
    box.stop()
    assert not box._thread.is_alive()
