"""Snippets: what they show of a text, and that their marks stay on the same characters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowswitch.model.search.snippets import SNIPPET_CHARS, Snippet, snippet

TEXT = "one two three four five six seven eight nine ten"


def marked(text: str, words: list[str], chars: int) -> str:
    marks = sorted((text.index(word), text.index(word) + len(word)) for word in words)
    return snippet(text, marks, chars).marked("[", "]")


@pytest.mark.parametrize(
    ("words", "chars", "shown"),
    [
        (["two"], 100, "one [two] three four five six seven eight nine ten"),
        (["two"], 20, "one [two] three four …"),
        (["ten"], 20, "… seven eight nine [ten]"),
        (["two", "eight", "nine"], 20, "… seven [eight] [nine] ten"),
        (["one", "ten"], 10, "[one] two …"),
        (["three four"], 15, "… [three four] five …"),
    ],
)
def test_a_snippet_shows_the_part_with_the_most_places(words: list[str], chars: int, shown: str) -> None:
    assert marked(TEXT, words, chars) == shown


def test_html_escapes_everything_but_the_marks() -> None:
    text = "<b>a & b</b>"
    assert Snippet(text, [(3, 4), (7, 8)]).html() == "&lt;b&gt;<mark>a</mark> &amp; <mark>b</mark>&lt;/b&gt;"
    assert Snippet("no place", []).html() == "no place"


SPANS = st.lists(st.tuples(st.integers(0, 999), st.integers(1, 30)), min_size=1, max_size=40)


@given(text=st.text(st.sampled_from("ab \n"), min_size=1000, max_size=1100), spans=SPANS, chars=st.integers(50, 300))
def test_marks_are_in_order_inside_of_the_text_and_on_the_same_characters(
    text: str, spans: list[tuple[int, int]], chars: int
) -> None:
    marks: list[tuple[int, int]] = []
    for begin, length in sorted(spans):
        if not marks or begin >= marks[-1][1]:
            marks.append((begin, begin + length))
    found = snippet(text, marks, chars)
    assert len(found.text) <= chars + 4
    shown = found.text.removeprefix("… ").removesuffix(" …")
    assert shown in text
    assert found.marks
    place = 0
    for begin, end in found.marks:
        assert place <= begin < end <= len(found.text)
        place = end
    pieces = {text[begin:end] for begin, end in marks}
    for begin, end in found.marks:  # one at an end of the snippet may be cut there
        assert any(found.text[begin:end] in piece for piece in pieces)


def test_a_text_with_many_places_takes_no_square_of_them() -> None:
    text = "a " * 200_000
    found = snippet(text, [(place, place + 1) for place in range(0, len(text), 2)])
    assert len(found.marks) == SNIPPET_CHARS // 2
