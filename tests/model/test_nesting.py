"""How deep JSON may be nested: a bound of this library, the same on every interpreter."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from shadowswitch.model.records import DEPTH_MAX, JSON_DEPTH_MAX, is_deeper, nests_too_deep


def nested(depth: int, chance: random.Random) -> str:
    """A JSON text of exactly that depth, with siblings, and with strings that look like depth."""
    text = '"[[{{\\\\"'
    for level in range(depth):
        noise = json.dumps(chance.choice(["[" * 300, "{" * 300, '\\"[', "\\\\", "]]]", 'a"b{', "größe"]))
        text = f"[{noise}, [], {text}]" if level % 2 else f'{{{noise}: {text}, "x": [{noise}]}}'
    return text


@pytest.mark.parametrize("seed", range(5))
def test_the_depth_of_a_text_is_that_outside_of_its_strings(seed: int) -> None:
    chance = random.Random(seed)
    for depth in (3, JSON_DEPTH_MAX - 2, JSON_DEPTH_MAX - 1):
        text = nested(depth, chance)
        json.loads(text)
        assert not nests_too_deep(text.encode()), depth
    for depth in (JSON_DEPTH_MAX + 1, JSON_DEPTH_MAX + 50):
        assert nests_too_deep(nested(depth, chance).encode()), depth


def test_many_flat_records_are_not_deep() -> None:
    text = json.dumps([{"fields": {"a": [1, {"b": []}], "text": "[" * 50}} for _ in range(2000)]).encode()
    assert not nests_too_deep(text)


@pytest.mark.parametrize(
    "text", [b"[" * 500, b"]" * 500, b'"' * 501 + b"[" * 101, b"\\" * 500 + b"[" * 101, b"{[" * 60]
)
def test_what_is_no_json_has_an_answer_too(text: bytes) -> None:
    assert nests_too_deep(text) in (True, False)


def test_a_value_is_measured_without_the_stack_of_the_interpreter() -> None:
    def of(depth: int) -> Any:
        value: Any = 1
        for level in range(depth):
            value = {"in": value} if level % 2 else [value, 2]
        return value

    assert [is_deeper(of(depth)) for depth in (0, 1, DEPTH_MAX, DEPTH_MAX + 1, 100_000)] == [False] * 3 + [True] * 2
