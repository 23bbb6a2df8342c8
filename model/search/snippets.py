"""Snippets: the part of a text that shows best where a query was found."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence

import msgspec

SNIPPET_CHARS = 200
BEFORE_CHARS = 40
"""So much of the text comes before the first place, or a fifth of the snippet."""

Span = tuple[int, int]
"""Begin and end, in characters."""


class Snippet(msgspec.Struct, frozen=True):
    """A part of the text of a field. `marks` are the places of the query in `text`: begin and end, in characters."""

    text: str
    marks: list[Span]

    def html(self) -> str:
        """The text with `<mark>` around each place, and everything else escaped."""
        return self.marked("<mark>", "</mark>", html.escape)

    def marked(self, begin: str, end: str, written: Callable[[str], str] = str) -> str:
        """The text with `begin` and `end` around each place; `written` makes what is shown of a piece of it."""
        found, place = list[str](), 0
        for first, last in self.marks:
            found += [written(self.text[place:first]), begin, written(self.text[first:last]), end]
            place = last
        return "".join([*found, written(self.text[place:])])


def snippet(text: str, marks: Sequence[Span], chars: int = SNIPPET_CHARS) -> Snippet:
    """The `chars` characters of a text with the most places of the query, cut at spaces where there are some.

    `marks` are in order and do not overlap; at least one.
    """
    if len(text) <= chars:
        return Snippet(text, list(marks))
    first = marks[_densest(marks, chars)][0]
    begin = max(0, min(first - min(BEFORE_CHARS, chars // 5), len(text) - chars))
    begin = _behind_space(text, begin, first)
    end = _before_space(text, min(len(text), begin + chars), begin)
    cut = [(max(left, begin) - begin, min(right, end) - begin) for left, right in marks if left < end and right > begin]
    dots = ("… " if begin else "", " …" if end < len(text) else "")
    shift = len(dots[0])
    return Snippet(f"{dots[0]}{text[begin:end]}{dots[1]}", [(left + shift, right + shift) for left, right in cut])


def _densest(marks: Sequence[Span], chars: int) -> int:
    """The first mark of so many characters with the most of them."""
    best, most, behind = 0, 0, 0
    for number, (begin, _) in enumerate(marks):
        while behind < len(marks) and marks[behind][1] <= begin + chars:
            behind += 1
        if behind - number > most:
            best, most = number, behind - number
    return best


def _behind_space(text: str, begin: int, latest: int) -> int:
    if begin == 0:
        return 0
    for place in range(begin, latest + 1):
        if text[place - 1].isspace():
            return place
    return begin


def _before_space(text: str, end: int, begin: int) -> int:
    if end == len(text) or text[end].isspace():
        return end
    for place in range(end, max(begin, end - BEFORE_CHARS), -1):
        if text[place - 1].isspace():
            return place - 1
    return end
