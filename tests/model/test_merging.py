"""The three-way merge of one record."""

from __future__ import annotations

from typing import Any

import pytest

from shadowswitch import Conflict
from shadowswitch.model.errors import InvalidConfig
from shadowswitch.model.forks.merging import check_on_conflict, merge, same

KEY = ("t", "1")
Fields = dict[str, Any] | None


@pytest.mark.parametrize(
    ("base", "ours", "theirs", "expected"),
    [
        ({"a": 1}, {"a": 2}, {"a": 1}, {"a": 2}),
        ({"a": 1}, {"a": 1}, {"a": 2}, {"a": 2}),
        ({"a": 1}, {"a": 2}, {"a": 2}, {"a": 2}),
        ({"a": 1, "b": 1}, {"a": 2, "b": 1}, {"a": 1, "b": 2}, {"a": 2, "b": 2}),
        ({"a": 1, "b": 1}, {"b": 1}, {"a": 1, "b": 2}, {"b": 2}),
        ({"a": 1}, {"a": 1, "c": 3}, {"a": 1, "d": 4}, {"a": 1, "c": 3, "d": 4}),
        ({"a": {"x": 1}}, {"a": {"x": 2}}, {"a": {"x": 1}, "b": 1}, {"a": {"x": 2}, "b": 1}),
        (None, {"a": 1}, None, {"a": 1}),
        (None, None, {"a": 1}, {"a": 1}),
        ({"a": 1}, None, {"a": 1}, None),
        ({"a": 1}, {"a": 1}, None, None),
        ({"a": 1}, None, None, None),
        (None, {"a": 1}, {"a": 1}, {"a": 1}),
        ({"a": 1, "b": 1}, {"a": None, "b": 1}, {"a": 1, "b": 2}, {"a": None, "b": 2}),
    ],
)
def test_what_one_side_changed_counts(base: Fields, ours: Fields, theirs: Fields, expected: Fields) -> None:
    merged = merge(KEY, base, ours, theirs, "refuse")
    assert (merged.fields, merged.conflict) == (expected, None)


@pytest.mark.parametrize(
    ("base", "ours", "theirs", "fields", "by_ours", "by_theirs"),
    [
        ({"a": 1, "b": 1}, {"a": 2, "b": 2}, {"a": 3, "b": 1}, ("a",), {"a": 2, "b": 2}, {"a": 3, "b": 2}),
        ({"a": 1, "b": 1}, {"b": 1}, {"a": 3, "b": 2}, ("a",), {"b": 2}, {"a": 3, "b": 2}),
        ({"a": 1}, None, {"a": 2}, (), None, {"a": 2}),
        ({"a": 1}, {"a": 2}, None, (), {"a": 2}, None),
        (None, {"a": 1}, {"a": 2}, (), {"a": 1}, {"a": 2}),
        ({}, {"a": 1}, {"a": 1.0}, ("a",), {"a": 1}, {"a": 1.0}),
        ({}, {"a": 1}, {"a": True}, ("a",), {"a": 1}, {"a": True}),
    ],
)
def test_what_both_sides_changed_is_a_conflict(
    base: Fields, ours: Fields, theirs: Fields, fields: tuple[str, ...], by_ours: Fields, by_theirs: Fields
) -> None:
    conflict = Conflict("t", "1", fields, base, ours, theirs)
    refused = merge(KEY, base, ours, theirs, "refuse")
    assert refused.conflict == conflict
    settled = merge(KEY, base, ours, theirs, "ours"), merge(KEY, base, ours, theirs, "theirs")
    assert [one.conflict for one in settled] == [conflict, conflict]
    assert same([one.fields for one in settled], [by_ours, by_theirs])
    asked: list[Conflict] = []

    def choose(one: Conflict) -> Fields:
        asked.append(one)
        return {"chosen": 1}

    assert merge(KEY, base, ours, theirs, choose).fields == {"chosen": 1}
    assert asked == [conflict]
    assert merge(KEY, base, ours, theirs, lambda _: None).fields is None


def test_no_side_is_changed_by_a_merge() -> None:
    base, ours, theirs = {"a": 1, "b": 1}, {"a": 2}, {"a": 3, "b": 1}
    merge(KEY, base, ours, theirs, "ours")
    assert (base, ours, theirs) == ({"a": 1, "b": 1}, {"a": 2}, {"a": 3, "b": 1})


@pytest.mark.parametrize("wrong", ["", "OURS", None, 1, ["ours"]])
def test_what_settles_no_conflict_is_refused(wrong: object) -> None:
    with pytest.raises(InvalidConfig, match="on_conflict"):
        check_on_conflict(wrong)


def test_an_answer_that_is_no_record_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="return the fields"):
        merge(KEY, None, {"a": 1}, {"a": 2}, lambda _: "ours")  # type: ignore[arg-type, return-value]
