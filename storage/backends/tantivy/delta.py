"""The delta: the rows that are not in the words yet, in FTS5 tables inside the file of the rows, by the same tokens.

    coverage(one, uid, covers, deleted, fresh)    one row: which words belong to these rows, what they hold, the number
                                                  of the last deletion, and which delta takes new rows
    gone(r, number)                               rowids that the words may have, and `docs` has no more
    delta0, delta1                                FTS5 without content: the tokens of rows, all fields in one column

Every row of `docs` up to `covers` is in the words, and every later one in a delta, but for those of a load that goes
on. Nothing is deleted from a delta but everything: a row that is gone is found in no `docs`.

FTS5 finds candidates, by tokens alone. A plan is decided on the tokens of the texts, and scored by the formula of
Tantivy and the statistics of the words. So a row has the same answer before and after it comes into the words, and
about the same score.
"""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from shadowswitch.model.search.bounds import TimeLimit
from shadowswitch.storage.backends.tantivy.matching import K1, B, Statistics
from shadowswitch.storage.backends.tantivy.options import WordsLayout
from shadowswitch.storage.backends.tantivy.plan import AllOf, Part, Words
from shadowswitch.storage.backends.tantivy.words import EXTRA, Row
from shadowswitch.storage.backends.tantivy.words import Words as IndexWords

DELTAS = ("delta0", "delta1")
ROWS_BETWEEN_LOOKS = 100
"""Rows that are scored before the time limit is asked."""
_NORM_EXACT = 40
_NOT_IN_TOKENS = re.compile(r"[\x00-\x2a\x2c-\x2f:-`{-\x7f]")
"""What the tokenizer `ascii` would split at: of ASCII all but letters, digits and `+`."""


class Coverage(NamedTuple):
    """The row of the table."""

    uid: int
    covers: int
    deleted: int
    fresh: int
    last: int
    """The highest rowid of `docs`."""


class Found(NamedTuple):
    """A hit in the delta."""

    resource_type: str
    id: str
    score: float
    lsn: int


def schema(uid: int) -> tuple[str, ...]:
    """The statements that make the tables, for the words with that `uid`."""
    return (
        "CREATE TABLE coverage(one INTEGER PRIMARY KEY CHECK(one = 1), uid INTEGER NOT NULL, covers INTEGER NOT NULL,"
        " deleted INTEGER NOT NULL, fresh INTEGER NOT NULL)",
        f"INSERT INTO coverage VALUES(1, {uid}, 0, 0, 0)",
        "CREATE TABLE gone(r INTEGER PRIMARY KEY, number INTEGER NOT NULL)",
        *(
            f"CREATE VIRTUAL TABLE {delta} USING fts5(w, content='', detail='none', tokenize=\"ascii tokenchars '+'\")"
            for delta in DELTAS
        ),
    )


def coverage(connection: sqlite3.Connection) -> Coverage:
    """As of the present transaction of a connection."""
    last = "(SELECT coalesce(max(rowid), 0) FROM docs)"
    row = connection.execute(f"SELECT uid, covers, deleted, fresh, {last} FROM coverage").fetchone()
    if row is None:
        raise sqlite3.DatabaseError("the table coverage is empty")
    return Coverage(*row)


def insert(
    connection: sqlite3.Connection, delta: int, rows: Sequence[Row], words: IndexWords, layout: WordsLayout
) -> None:
    """Put rows into a delta, in one statement: at each one a busy process may lose the interpreter for milliseconds."""
    found = []
    for rowid, _, texts in rows:
        tokens = {_plain(token) for _, of_field in _tokens(texts, words, layout) for token in of_field}
        found.append((rowid, " ".join(sorted(tokens))))
    if found:
        connection.execute(
            f"INSERT INTO {DELTAS[delta]}(rowid, w)"
            " SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?)",
            (msgspec.json.encode(found).decode(),),
        )


def clear(connection: sqlite3.Connection, delta: int) -> None:
    """Empty a delta."""
    connection.execute(f"INSERT INTO {DELTAS[delta]}({DELTAS[delta]}) VALUES('delete-all')")


def last_row(connection: sqlite3.Connection, delta: int) -> int:
    """The highest rowid in a delta; 0 where it is empty."""
    return int(connection.execute(f"SELECT coalesce(max(id), 0) FROM {DELTAS[delta]}_docsize").fetchone()[0])


def rows_in(connection: sqlite3.Connection, delta: int) -> int:
    """The number of rows in a delta."""
    return int(connection.execute(f"SELECT count(*) FROM {DELTAS[delta]}_docsize").fetchone()[0])


class Delta:
    """The delta of a shard, for a reader."""

    def __init__(self, words: IndexWords, layout: WordsLayout) -> None:
        self._words = words
        self._layout = layout
        union = " UNION ".join(f"SELECT rowid AS r FROM {delta} WHERE {delta} MATCH :asked" for delta in DELTAS)
        every = " UNION ".join(f"SELECT id AS r FROM {delta}_docsize" for delta in DELTAS)
        texts = ", ".join(layout.shown)
        joined = f"SELECT type, id, lsn, {texts} FROM ({{}}) CROSS JOIN docs ON docs.rowid = r WHERE r > :covers"
        self._candidates = joined.format(union)
        self._all = joined.format(every)

    def search(
        self,
        connection: sqlite3.Connection,
        covers: int,
        part: Part,
        statistics: Statistics,
        types: Sequence[str] | None,
        time_limit: TimeLimit,
    ) -> list[Found]:
        """Every row behind `covers` that a plan finds, as of the present transaction."""
        expression = _expression(part)
        statement = self._all if expression is None else self._candidates
        rows = connection.execute(statement, {"asked": expression, "covers": covers})
        found = []
        for number, (resource_type, id, lsn, *texts) in enumerate(rows):
            if number % ROWS_BETWEEN_LOOKS == ROWS_BETWEEN_LOOKS - 1:
                time_limit.check()
            if types is not None and resource_type not in types:
                continue
            score = _Text(_tokens(texts, self._words, self._layout), statistics).score(part)
            if score is not None:
                found.append(Found(resource_type, id, score, lsn))
        return found


class _Text:
    """The tokens of one row, on which a plan is decided."""

    def __init__(self, tokens: Iterable[tuple[str, list[str]]], statistics: Statistics) -> None:
        self._tokens = dict(tokens)
        self._counts: dict[str, Counter[str]] = {}
        self._statistics = statistics

    def score(self, part: Part) -> float | None:
        """The score, None if the plan does not find the row."""
        if isinstance(part, Words):
            return self._words(part)
        scores = [self.score(one) for one in part.parts]
        found = [score for score in scores if score is not None]
        if not found or (isinstance(part, AllOf) and len(found) < len(scores)):
            return None
        if isinstance(part, AllOf) and any(self.score(one) is not None for one in part.without):
            return None
        return sum(found)

    def _words(self, words: Words) -> float | None:
        field, tokens = words.field, words.tokens
        if field not in self._tokens:
            return None
        if words.is_prefix:
            return self._prefix(words)
        count = self._count(field)[tokens[0]] if len(tokens) == 1 else self._phrases(field, tokens, False)
        if not count:
            return None
        return words.weight * sum(self._statistics.idf(field, token) for token in tokens) * self._factor(field, count)

    def _prefix(self, words: Words) -> float | None:
        field, tokens = words.field, words.tokens
        if len(tokens) > 1:
            return words.weight if self._phrases(field, tokens, True) else None
        counts = [count for token, count in self._count(field).items() if token.startswith(tokens[0])]
        if not counts:
            return None
        prefix = self._statistics.prefix(field, tokens[0])
        if not prefix.is_scored:
            return words.weight * prefix.idf
        return words.weight * prefix.idf * sum(self._factor(field, count) for count in counts)

    def _count(self, field: str) -> Counter[str]:
        found = self._counts.get(field)
        if found is None:
            found = self._counts[field] = Counter(self._tokens[field])
        return found

    def _phrases(self, field: str, tokens: tuple[str, ...], is_prefix: bool) -> int:
        """How often tokens stand one behind the other."""
        text, length = self._tokens[field], len(tokens)
        before, last = list(tokens[:-1]), tokens[-1]
        return sum(
            text[place : place + length - 1] == before
            and (text[place + length - 1].startswith(last) if is_prefix else text[place + length - 1] == last)
            for place in range(len(text) - length + 1)
        )

    def _factor(self, field: str, count: int) -> float:
        """What bm25 makes of the frequency of a word in a field of a certain length."""
        mean = self._statistics.mean_length(field)
        length = _norm(len(self._tokens[field]))
        return (K1 + 1) * count / (count + K1 * (1 - B + B * length / mean))


def _norm(length: int) -> int:
    """A length as Tantivy keeps it, in one byte."""
    if length < _NORM_EXACT:
        return length
    shift = (length - 24).bit_length() - 4
    return 24 + ((length - 24) >> shift << shift)


def _tokens(texts: Sequence[str], words: IndexWords, layout: WordsLayout) -> Iterator[tuple[str, list[str]]]:
    """The tokens of each field."""
    for column, text in zip(layout.shown, texts, strict=True):
        yield column, words.analyze.analyze(text)
    extra = layout.extra(texts)
    if extra:
        yield EXTRA, words.analyze_extra.analyze(extra)


def _plain(token: str) -> str:
    """A token as one of FTS5: what begins with another one does so as well."""
    return _NOT_IN_TOKENS.sub("", token)


def _expression(part: Part) -> str | None:
    """An expression of FTS5 for all rows that a plan may find; None for every row."""
    if isinstance(part, Words):
        *before, last = map(_plain, part.tokens)
        found = [f'"{token}"' for token in before if token]
        if last:
            found.append(f'"{last}"' + ("*" if part.is_prefix else ""))
        return f"({' AND '.join(found)})" if found else None
    parts = [_expression(one) for one in part.parts]
    if isinstance(part, AllOf):
        found = [one for one in parts if one is not None]
        return f"({' AND '.join(found)})" if found else None
    return None if None in parts else f"({' OR '.join(filter(None, parts))})"
