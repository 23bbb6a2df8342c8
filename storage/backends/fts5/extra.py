"""What an index holds beside the words of the tokenizer: parts of words, in a column of their own.

    cjk     Chinese, Japanese and Korean are found inside of what stands between two spaces: each run of such characters
            as its pairs, one behind the other. `사용자가` is `사용 용자 자가 가`: `용자` is found, and `사용자`
    code    an identifier is found by its parts: `getUserName` is `get user name`
    korean  a Korean word is found by its nouns, which `nouns` knows: `결재문서를` is `결재 문서`. With `cjk` beside
            it, a word of a query is looked for by its pairs only if it has no noun

The column has a low weight: a hit by its words comes before one by their parts. Two runs, or two identifiers, have a
token between them that no query has, so that no phrase reaches across.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import NamedTuple

from shadowswitch.storage.backends.fts5 import nouns

CJK, CODE, KOREAN = "cjk", "code", "korean"
EXTRAS = (CJK, CODE, KOREAN)
WEIGHT = 0.05
_BREAK = "\ue000"
"""Of the private area, which `unicode61` takes for letters."""
_CJK_CHARACTERS = (
    "\u1100-\u11ff\u3005-\u3007\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u3100-\u318f\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f"
    "\uac00-\ud7ff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
_CJK_RUN = re.compile(f"[{_CJK_CHARACTERS}]+")
_HANGUL_CHARACTERS = "\u1100-\u11ff\u3130-\u318f\ua960-\ua97f\uac00-\ud7ff"
_HANGUL = re.compile(f"[{_HANGUL_CHARACTERS}]+")
_KOREAN_PIECE = re.compile(f"([{_HANGUL_CHARACTERS}]+)|([^{_HANGUL_CHARACTERS}]+)")
_PIECE = re.compile(f"([{_CJK_CHARACTERS}]+)|([^{_CJK_CHARACTERS}]+)")
_MIXED = re.compile("[A-Za-z0-9]*(?:[a-z0-9][A-Z]|[A-Z][A-Z][a-z]|[A-Za-z][0-9]|[0-9][A-Za-z])[A-Za-z0-9]*")
_PART = re.compile("[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|[0-9]+")
_IDENTIFIER = re.compile("[A-Za-z0-9_]+")


class Piece(NamedTuple):
    """A part of a term, as the index may hold it."""

    text: str
    is_prefix: bool
    in_words: bool
    """In the words of the record, too."""
    written: str = ""
    """As it stands in a text, if it is not in the words."""


def has_hangul(text: str) -> bool:
    """Whether a text has a Korean letter or syllable."""
    return _HANGUL.search(text) is not None


def extra_words(text: str, extras: Collection[str]) -> str:
    """The content of the column for a text."""
    found: list[str] = []
    if CJK in extras and not text.isascii():
        found += _broken(map(_pairs, _CJK_RUN.findall(text)))
    if CODE in extras:
        found += _broken(map(_parts, _MIXED.findall(text)))
    if KOREAN in extras and not text.isascii():
        found += _broken(map(list, nouns.KIWI.of(_HANGUL.findall(text))))
    return " ".join(found)


def pieces(text: str, is_prefix: bool, extras: Collection[str]) -> list[Piece]:
    """What a record has that matches a word by its parts: all of these. Empty where only the word itself will do."""
    if KOREAN in extras and has_hangul(text):
        found = _of_korean(text)
        if found:
            return found
    if CJK in extras and _CJK_RUN.search(text):
        runs = [_of_cjk(run) if run else Piece(other, True, True) for run, other in _PIECE.findall(text)]
        return [piece for piece in runs if piece is not None]
    if CODE in extras and _IDENTIFIER.fullmatch(text):
        return [Piece(" ".join(_parts(text)), is_prefix, True)]
    return []


def parts_of_identifiers(text: str) -> Iterator[tuple[str, tuple[int, int]]]:
    """The parts of each identifier of mixed case, with begin and end."""
    for word in _MIXED.finditer(text):
        for part in _PART.finditer(text, *word.span()):
            yield part[0].lower(), part.span()


def _of_korean(text: str) -> list[Piece]:
    """The nouns of a term, and what stands between them; nothing without a noun."""
    parts = _KOREAN_PIECE.findall(text)
    runs = [run for run, _ in parts if run]
    found = dict(zip(runs, nouns.KIWI.of(runs), strict=True))
    if not any(found.values()):
        return []
    others = [Piece(other, True, True) for _, other in parts if other]
    return [*(Piece(noun, False, False, noun) for run in runs for noun in found[run]), *others]


def _of_cjk(run: str) -> Piece | None:
    if len(run) > 1:
        return Piece(" ".join(_pairs(run)[:-1]), False, False, run)
    return (
        None if has_hangul(run) else Piece(run, True, False, run)
    )  # one syllable is no word: it would match everywhere


def _pairs(run: str) -> list[str]:
    """The last character stands alone as well: then each one begins a token."""
    return [*(run[place : place + 2] for place in range(len(run) - 1)), run[-1]]


def _parts(word: str) -> list[str]:
    return [part.lower() for part in _PART.findall(word)]


def _broken(runs: Iterator[list[str]]) -> Iterator[str]:
    for run in runs:
        yield from run
        yield _BREAK
