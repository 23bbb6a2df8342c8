"""The lines of the story: every event has one, its fields can be read back, and no text from outside forges a field."""

from __future__ import annotations

import logging
import shlex
from typing import Any

import pytest

from shadowswitch.model.events import EVENT_TYPES
from shadowswitch.model.operating.story import SENTENCES, Author, line_of, quoted

ABOUT = {"branch_name": "main", "index_type": "SEARCH_INDEX"}


def test_every_event_has_a_line() -> None:
    steps = {"build.copied", "build.validated"}
    assert set(SENTENCES) - set(EVENT_TYPES) == steps
    assert line_of("index.dropped", "main", {}).text.startswith("index dropped  subject=main  by=")


@pytest.mark.parametrize("kind", EVENT_TYPES)
def test_every_line_of_a_shadow_names_branch_index_shadow_author_and_reason(kind: str) -> None:
    found = line_of(kind, "5f0c", dict(ABOUT))
    sentence, *fields = found.text.split("  ")
    assert sentence[-1:].isalpha()
    assert fields[:3] == ["branch=main", "index_type=SEARCH_INDEX", "shadow=5f0c"]
    assert [one.partition("=")[0] for one in fields[-2:]] == ["by", "reason"]


@pytest.mark.parametrize(
    ("kind", "data", "level"),
    [
        ("build.failed", {}, logging.ERROR),
        ("switch.given_up", {}, logging.WARNING),
        ("switch.finished", {"success": True}, logging.INFO),
        ("switch.finished", {"success": False}, logging.WARNING),
        ("switch.finished", {"success": False, "rolled_back": True}, logging.ERROR),
        ("branch.state", {"state": "READY"}, logging.INFO),
        ("branch.state", {"state": "ERROR"}, logging.ERROR),
    ],
)
def test_what_needs_a_person_is_a_warning_or_an_error(kind: str, data: dict[str, Any], level: int) -> None:
    found = line_of(kind, "5f0c", {**ABOUT, **data})
    assert found.level == level


def test_an_event_of_a_build_has_the_author_of_the_build_and_its_own_one_first() -> None:
    author = Author("alice", "a drill")
    for data, by in (({}, "alice"), ({"by": "bob"}, "bob")):
        found = line_of("build.started", "5f0c", {**ABOUT, **data}, author)
        assert (found.fields["by"], found.fields["reason"]) == (by, "a drill")


@pytest.mark.parametrize(
    "value", ["a b", 'say "no"', "by=eve", "two\nlines", "\x1b[31m", "back\\slash", "", "größe", 3, 2.5]
)
def test_a_value_is_one_field_and_one_line(value: object) -> None:
    text = f"by={quoted(value)}"
    (field,) = shlex.split(text)
    assert text.isprintable()
    assert field.startswith("by=")
    if isinstance(value, str) and value.isprintable():
        assert field == f"by={value}"
