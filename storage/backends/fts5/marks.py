"""Where in the text of a record a query is found, for highlights.

A table in memory with the tokenizer of the index has the texts, and FTS5 marks in them what its own words are: so a
highlight is a hit of the index, stemmed or without accents as there. What the index finds beside its words is looked
for in the text: parts of words, short terms of a trigram index, the names of languages.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import groupby
from typing import Any

from shadowswitch.model.search.query import Term, wanted_terms
from shadowswitch.model.search.snippets import Span
from shadowswitch.storage.backends.fts5.extra import parts_of_identifiers, pieces
from shadowswitch.storage.backends.fts5.options import Layout, composed_text, folded, text_of
from shadowswitch.storage.backends.fts5.query import (
    expression_of_words,
    has_parts,
    is_looked_for_in_rows,
    tree,
)
from shadowswitch.storage.backends.protocol import Marked

TEXT_CHARS_MAX = 50_000
MARKS_MAX = 1000
"""What is marked of a text: its beginning, and so many places."""
_BEGIN, _END = "\x02", "\x03"
_MARKERS = str.maketrans({_BEGIN: " ", _END: " "})


def marks(query: str, layout: Layout, records: Sequence[Mapping[str, Any]]) -> list[dict[str, Marked]]:
    """See `protocol.Marking`."""
    found: list[dict[str, Marked]] = [{} for _ in records]
    terms = list(_with_synonyms(wanted_terms(tree(query, layout)), layout))
    texts = sorted(_texts(layout, records), key=lambda one: one[1])
    if not terms or not texts:
        return found
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute(f"CREATE VIRTUAL TABLE fts USING fts5(t, tokenize='{layout.tokenizer}')")
        rows = [(number, text) for number, (_, _, text) in enumerate(texts)]
        connection.executemany("INSERT INTO fts(rowid, t) VALUES(?, ?)", rows)
        first = 0
        for field, group in groupby(texts, key=lambda one: one[1]):
            of_field = list(group)
            own = [term for term in terms if term.field in ("", field)]
            spans = _spans(connection, own, layout, [text for _, _, text in of_field], first)
            for (record, _, text), places in zip(of_field, spans, strict=True):
                if places:
                    found[record][field] = (text, places)
            first += len(of_field)
    return found


def _with_synonyms(terms: Iterable[Term], layout: Layout) -> Iterator[Term]:
    for term in terms:
        yield term
        others = () if term.is_phrase else layout.synonyms.get(folded(term.text), ())
        yield from (Term(other, False, " " in other, term.field) for other in others)


def _texts(layout: Layout, records: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, str, str]]:
    """The number of the record, the field and its text."""
    for number, fields in enumerate(records):
        for field in layout.fields or fields:
            text = text_of(fields.get(field))[:TEXT_CHARS_MAX]
            text = (composed_text(text) if layout.composed else text).translate(_MARKERS)
            if text:
                yield number, field, text.encode("utf-8", "replace").decode()


def _spans(
    connection: sqlite3.Connection, terms: Sequence[Term], layout: Layout, texts: Sequence[str], first: int
) -> list[list[Span]]:
    """The places of the terms in each of the texts, which have the rowids from `first`."""
    spans: list[set[Span]] = [set() for _ in texts]
    expression = expression_of_words(terms, layout)
    if expression:
        select = "SELECT rowid, highlight(fts, 0, ?, ?) FROM fts WHERE fts MATCH ? AND rowid BETWEEN ? AND ?"
        values = (_BEGIN, _END, expression, first, first + len(texts) - 1)
        for rowid, marked in connection.execute(select, values).fetchall():
            spans[rowid - first] |= set(_of_marked(marked))
    literals = _literals(terms, layout)
    parts = {piece.text for term in terms for piece in _code_pieces(term, layout)}
    for number, text in enumerate(texts):
        if literals is not None:
            spans[number] |= {match.span() for match in literals.finditer(text)}
        spans[number] |= {span for part, span in parts_of_identifiers(text) if part in parts} if parts else set()
    return [_joined(sorted(places))[:MARKS_MAX] for places in spans]


def _of_marked(marked: str) -> Iterator[Span]:
    place, begin = 0, 0
    for piece in re.split(f"([{_BEGIN}{_END}])", marked):
        if piece == _BEGIN:
            begin = place
        elif piece == _END:
            yield begin, place
        else:
            place += len(piece)


def _literals(terms: Sequence[Term], layout: Layout) -> re.Pattern[str] | None:
    """What the index finds as it stands, anywhere in a text."""
    found = {term.text.strip() for term in terms if is_looked_for_in_rows(term, layout)}
    for term in terms:
        if has_parts(term, layout):
            found |= {piece.written for piece in pieces(term.text, False, layout.extras) if not piece.in_words}
    found.discard("")
    if not found:
        return None
    return re.compile("|".join(map(re.escape, sorted(found, key=len, reverse=True))), re.IGNORECASE)


def _code_pieces(term: Term, layout: Layout) -> Iterator[Any]:
    for piece in pieces(term.text, False, layout.extras) if has_parts(term, layout) else ():
        if piece.in_words:
            yield from (piece._replace(text=part) for part in piece.text.split())


def _joined(spans: Sequence[Span]) -> list[Span]:
    """Without overlaps."""
    found: list[Span] = []
    for begin, end in spans:
        if found and begin < found[-1][1]:
            found[-1] = found[-1][0], max(end, found[-1][1])
        elif end > begin:
            found.append((begin, end))
    return found
