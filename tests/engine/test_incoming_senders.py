"""Events from outside: an outcome belongs to the sender and the branch of its event."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from shadowswitch import Engine, InvalidEvent


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
