"""The gate: what is said of an index that would lack something."""

from __future__ import annotations

import pytest

from shadowswitch.actors.build import gate


def test_an_empty_index_is_named_with_the_likely_name() -> None:
    (found,) = gate.of_types("main", {"object_typ": 0}, ["object_type", "user"], [])
    assert found == (
        "the index would be empty: branch 'main' has no records of object_typ (did you mean 'object_type'?)"
    )


def test_types_without_a_near_name_are_answered_with_what_there_is() -> None:
    (found,) = gate.of_types("main", {"dok": 0}, ["file", "user"], [])
    assert found.endswith("has no records of dok (it has file, user)")
    present = [f"type_{number}" for number in range(7)]
    (found,) = gate.of_types("main", {"type_0": 3, "xy": 0}, present, [])
    assert found.endswith("no records of 'xy' (it has type_0, type_1, type_2, type_3, type_4 and 2 more)")


def test_an_index_of_a_branch_without_records_is_empty_without_a_suggestion() -> None:
    assert gate.of_types("main", {"a": 0, "b": 0}, [], []) == [
        "the index would be empty: branch 'main' has no records of a, b"
    ]


def test_a_type_without_records_is_named_unless_the_live_index_has_it() -> None:
    records = {"object_type": 5, "link_typ": 0}
    assert gate.of_types("main", records, ["object_type", "link_type"], []) == [
        "branch 'main' has no records of 'link_typ' (did you mean 'link_type'?)"
    ]
    assert gate.of_types("main", records, ["object_type"], ["link_typ"]) == []
    assert gate.of_types("main", {"object_type": 1}, ["object_type"], []) == []


def test_an_empty_index_is_named_also_when_the_live_one_is_empty_by_now() -> None:
    assert gate.of_types("main", {"t": 0}, [], ["t"])


def test_a_field_is_lacking_only_if_no_shard_has_it() -> None:
    shards = [(["titel", "rare"], ["title", "text"]), (["titel"], ["title"])]
    assert gate.of_fields(shards) == [
        "no record had the field 'titel' when the index was built (did you mean 'title'?)"
    ]
    assert gate.of_fields([(["titel"], ["title"]), ([], [])]) == [], "a shard that was resumed has not seen all"
    assert gate.of_fields([]) == []
    assert gate.of_fields([(["titel"], [])]) == [], "no record at all is found by its type"


@pytest.mark.parametrize(
    ("count", "live", "is_told"), [(49, 100, True), (50, 100, False), (1, 99, False), (0, 0, False)]
)
def test_a_large_drop_is_named(count: int, live: int, is_told: bool) -> None:
    found = gate.of_drop(count, live, 0.5)
    assert bool(found) is is_told
    assert gate.of_drop(1000, 5000, 0.5) == ["the index would have 1,000 records, the live one has 5,000"]
    assert gate.of_drop(1000, 5000, 0.0) == []
