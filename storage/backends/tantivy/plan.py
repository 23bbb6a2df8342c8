"""A query as the words and the delta take it: a tree of what is looked for in which field.

The terms are those of `fts5`: the same language, the same prefixes for Korean, synonyms, stop words and parts of words.
Only what a term is made of differs: the tokens are Tantivy's, and a name such as C++ is a word of the field `g`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from shadowswitch.model.search.query import Either, Node, Term
from shadowswitch.storage.backends.fts5.extra import WEIGHT, has_hangul, pieces
from shadowswitch.storage.backends.fts5.options import folded
from shadowswitch.storage.backends.fts5.query import tree
from shadowswitch.storage.backends.tantivy.options import WordsLayout, is_symbol, symbol_in
from shadowswitch.storage.backends.tantivy.words import EXTRA


class Words(NamedTuple):
    """Tokens one behind the other in a field, the last of which may be the begin of one."""

    field: str
    tokens: tuple[str, ...]
    is_prefix: bool
    weight: float


class AllOf(NamedTuple):
    """All parts, and none of `without`."""

    parts: tuple[Part, ...]
    without: tuple[Part, ...] = ()


class OneOf(NamedTuple):
    """At least one part."""

    parts: tuple[Part, ...]


Part = Words | AllOf | OneOf
Analyze = Callable[[str], list[str]]


class Planner:
    """Makes the trees of queries to one index."""

    def __init__(self, layout: WordsLayout, analyze: Analyze, analyze_extra: Analyze) -> None:
        self._layout = layout
        self._analyze = analyze
        self._analyze_extra = analyze_extra
        self._weights = dict(zip(layout.shown, layout.weights, strict=True))

    def plan(self, query: str) -> Part | None:
        """The tree of a query; None if it finds nothing. Raises InvalidConfig for what is no string."""
        node = tree(query, self._layout, lambda texts: [self._analyze(text) for text in texts])
        return None if node is None else self._part(node, True)

    def _part(self, node: Node, is_wanted: bool) -> Part | None:
        """A word that is not wanted stands for itself, and not for its synonyms."""
        if isinstance(node, Term):
            return self._term(node) if is_wanted else self._text(node)
        parts = [self._part(part, is_wanted) for part in node.parts]
        if isinstance(node, Either):
            return _any(parts)
        return _all(parts, [self._part(part, False) for part in node.without])

    def _term(self, term: Term) -> Part | None:
        others = () if term.is_phrase else self._layout.synonyms.get(folded(term.text), ())
        same = [self._text(Term(other, False, " " in other, term.field)) for other in others]
        return _any([self._text(term), *same])

    def _text(self, term: Term) -> Part | None:
        """A term without those that mean the same."""
        layout, column = self._layout, self._layout.fields.get(term.field, "")
        if is_symbol(term.text) and not term.is_prefix:
            return self._extra(symbol_in(column, term.text) if column else term.text, False, 1.0)
        is_prefix = term.is_prefix or (not term.is_phrase and layout.hangul_prefix and has_hangul(term.text))
        word = self._words(term.text, is_prefix, [column] if column else layout.shown)
        is_whole = bool(column) or (term.is_phrase and (has_hangul(term.text) or " " in term.text))
        if word is None or is_whole or not layout.extras:
            return word
        found = pieces(term.text, term.is_prefix, layout.extras)
        return _any([word, _all([self._piece(piece.text, piece.is_prefix, piece.in_words) for piece in found])])

    def _piece(self, text: str, is_prefix: bool, in_words: bool) -> Part | None:
        words = self._words(text, is_prefix, self._layout.shown) if in_words else None
        return _any([words, self._extra(text, is_prefix, WEIGHT)])

    def _words(self, text: str, is_prefix: bool, columns: Sequence[str]) -> Part | None:
        tokens = tuple(self._analyze(text))
        if not tokens:
            return None
        return _any([Words(column, tokens, is_prefix, self._weights[column]) for column in columns])

    def _extra(self, text: str, is_prefix: bool, weight: float) -> Part | None:
        tokens = tuple(self._analyze_extra(text))
        return Words(EXTRA, tokens, is_prefix, weight) if tokens else None


def leaves(part: Part) -> Iterator[Words]:
    """Everything that is looked for, also what a hit must not have."""
    if isinstance(part, Words):
        yield part
        return
    for one in (*part.parts, *(part.without if isinstance(part, AllOf) else ())):
        yield from leaves(one)


def _any(parts: Sequence[Part | None]) -> Part | None:
    found = tuple(dict.fromkeys(part for part in parts if part is not None))
    return OneOf(found) if len(found) > 1 else found[0] if found else None


def _all(parts: Sequence[Part | None], without: Sequence[Part | None] = ()) -> Part | None:
    found = tuple(dict.fromkeys(part for part in parts if part is not None))
    excluded = tuple(part for part in without if part is not None)
    if not found:
        return None
    return AllOf(found, excluded) if len(found) > 1 or excluded else found[0]
