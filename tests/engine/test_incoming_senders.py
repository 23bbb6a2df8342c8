"""Events from outside: an outcome belongs to the sender and the branch of its event."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from shadowswitch import Engine, InvalidEvent

OpenEngine = Callable[..., Engine]


def indexed(branch: str, id: str = "1", **more: Any) -> dict[str, Any]:
    data = {"branch_name": branch, **more}
    return {"specversion": "1.0", "id": id, "source": "funnel", "type": "com.oms.indexing.completed", "data": data}


def test_an_event_that_was_sent_first_for_another_branch_does_not_take_the_outcome(engine: Engine) -> None:
    engine.create_branch("feature/a")
    engine.start_indexing("main", "funnel", ["object_type"])
    forged = engine.receive_event(indexed("feature/a"), by="feature")
    assert (forged.outcome, forged.duplicate) == ("refused", False)
    real = engine.receive_event(indexed("main"), by="funnel")
    assert (real.outcome, real.duplicate) == ("completed", False)
    again = engine.receive_event(indexed("main"), by="funnel")
    assert (again.outcome, again.duplicate) == ("completed", True)
    assert engine.check() == []


def test_an_event_that_another_sender_sent_first_does_not_take_the_outcome(engine: Engine) -> None:
    assert engine.receive_event(indexed("main"), by="early").outcome == "refused"
    engine.start_indexing("main", "funnel", ["object_type"])
    assert engine.receive_event(indexed("main"), by="funnel").outcome == "completed"
    assert engine.receive_event(indexed("main"), by="early").outcome == "refused"


def test_the_outcome_of_an_event_is_found_by_branch_and_sender(engine: Engine) -> None:
    first = engine.receive_event(indexed("main"), by="early")
    engine.start_indexing("main", "funnel", ["object_type"])
    second = engine.receive_event(indexed("main"), by="funnel")
    assert engine.event_outcome("funnel", "1", "main", "early") == first
    assert engine.event_outcome("funnel", "1", "main", "funnel") == second
    assert engine.event_outcome("funnel", "1", "main", "another") is None
    assert engine.event_outcome("funnel", "1", "other", "early") is None
    assert engine.event_outcome("funnel", "1") == second
    assert engine.event_outcome("funnel", "2") is None


def test_an_outcome_of_the_host_itself_holds_for_every_sender(engine: Engine) -> None:
    first = engine.receive_event(indexed("main"))
    assert engine.receive_event(indexed("main"), by="inbox") == msgspec.structs.replace(first, duplicate=True)
    assert engine.receive_event(indexed("other"), by="inbox").duplicate is False


def test_a_name_that_no_branch_can_have_is_not_stored_with_an_outcome(engine: Engine) -> None:
    for event in (indexed("x" * 201), indexed("main", shadow_index_id="x" * 201)):
        with pytest.raises(InvalidEvent, match="length <= 200"):
            engine.receive_event(event)


def test_a_sender_with_many_events_pushes_out_its_own(open_engine: OpenEngine) -> None:
    quiet = indexed("main", "quiet")
    for start in (0, 30):  # the second engine reads what the first one kept
        with open_engine(received_keep=20) as engine:
            if start == 0:
                engine.create_branch("main")
            assert engine.receive_event(quiet, by="quiet").duplicate is (start > 0)
            for number in range(start, start + 30):
                engine.receive_event(indexed("main", str(number)), by="noisy")
            engine.clean_up()
            assert engine.event_outcome("funnel", "quiet", "main", "quiet") is not None
            kept = {n for n in range(60) if engine.event_outcome("funnel", str(n), "main", "noisy") is not None}
            assert kept == set(range(start + 11, start + 30))


@pytest.mark.parametrize("other", [{"source": "another"}, {"branch_name": "side"}])
def test_a_source_with_many_events_pushes_out_its_own(open_engine: OpenEngine, other: dict[str, str]) -> None:
    engine = open_engine(received_keep=20)
    quiet = indexed(other.get("branch_name", "main"), "quiet") | {"source": other.get("source", "funnel")}
    engine.receive_event(quiet, by="inbox")
    for number in range(50):
        engine.receive_event(indexed("main", str(number)), by="inbox")
    engine.clean_up()
    assert engine.receive_event(quiet, by="inbox").duplicate
    assert engine.receive_event(indexed("main", "49"), by="inbox").duplicate
    assert not engine.receive_event(indexed("main", "0"), by="inbox").duplicate


def test_of_more_senders_than_events_are_kept_the_newest_are_remembered(open_engine: OpenEngine) -> None:
    engine = open_engine(received_keep=3)
    for number in range(8):
        engine.receive_event(indexed("main"), by=f"sender {number}")
    engine.clean_up()
    kept = [n for n in range(8) if engine.event_outcome("funnel", "1", "main", f"sender {n}") is not None]
    assert kept == [5, 6, 7]
