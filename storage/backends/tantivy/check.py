"""The integrity check of a `tantivy` shard: the rows as `fts5` does it, their checksums, the files of the words, and
the rowids of the words against the rows.

Each file of Tantivy ends with the checksum of its content. A row never changes, and no rowid is used again: words that
have a rowid have the words of its row.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import tantivy

from shadowswitch.model.errors import CorruptData, Timeout
from shadowswitch.storage.backends.fts5 import store
from shadowswitch.storage.backends.fts5.check import FINDINGS_MAX, STEPS, check_pages, check_rows, copy_of
from shadowswitch.storage.backends.tantivy.delta import DELTAS, Coverage, coverage, rows_in
from shadowswitch.storage.backends.tantivy.files import TRIES, Files, translated
from shadowswitch.storage.backends.tantivy.options import CHECKSUM, WordsLayout, checksum
from shadowswitch.storage.backends.tantivy.words import ROW, View, Words, given_back, taken
from shadowswitch.storage.reading import Count, no_look

SLICE = 10_000
"""Rowids that are compared at once."""


class _Later(Exception):
    """The words were committed to between two looks."""


def check(path: Path, options: Mapping[str, Any], looked: Count = no_look) -> list[str]:
    """The findings, empty when the shard is sound. Raises `StorageFull` when the copy of the rows has no room."""
    layout = WordsLayout(options)
    try:
        with closing(store.open_existing(path, options, "ro")):
            pass
        words = taken(path, layout)
    except CorruptData as error:
        return [error.message]
    try:
        for left in reversed(range(TRIES)):
            try:
                return _check(path, options, layout, words, looked)
            except _Later:
                if not left:
                    raise
    except _Later:
        raise Timeout("the words were committed to again and again", operation="check", hint="try again") from None
    except CorruptData as error:
        return [error.message]
    finally:
        given_back(words)
    return []


def _check(path: Path, options: Mapping[str, Any], layout: WordsLayout, words: Words, looked: Count) -> list[str]:
    with ExitStack() as stack:
        views: list[tuple[Coverage, View]] = []

        def begun(source: sqlite3.Connection) -> None:
            wanted = coverage(source)
            words.refresh()  # a reader may have a view in which rows that `gone` has forgotten were not yet deleted
            view = words.view(wanted.covers, wanted.uid)
            if view.state.deleted > wanted.deleted:
                raise _Later
            views.append((wanted, view))

        with closing(Files(path)) as files:
            if damage := files.damage(looked):  # before they are searched: damaged files can end the process
                return [f"words: {text}" for text in damage]
        copy = stack.enter_context(copy_of(path, options, looked, begun))
        wanted, view = views[-1]
        with store.translated("check", path):
            copy.set_progress_handler(lambda: looked(0), STEPS)
            return [
                *check_pages(copy),
                *_check_delta(copy),
                *check_rows(copy, path),
                *_check_texts(copy, layout, looked),
                *_check_rowids(copy, words, wanted, view, path, looked),
            ]


def _check_delta(copy: sqlite3.Connection) -> list[str]:
    findings = []
    for delta in DELTAS:
        try:
            copy.execute(f"INSERT INTO {delta}({delta}) VALUES('integrity-check')")
        except sqlite3.DatabaseError as error:
            findings.append(f"delta: {error}")
    return findings


def _check_texts(copy: sqlite3.Connection, layout: WordsLayout, looked: Count) -> list[str]:
    findings = []
    rows = copy.execute(f"SELECT type, id, {CHECKSUM}, {', '.join(layout.shown)} FROM docs")
    for number, (resource_type, id, expected, *texts) in enumerate(rows):
        if number % SLICE == 0:
            looked(0)
        if checksum(texts) != expected:
            findings.append(f"rows: the texts of {resource_type}/{id} do not match their checksum")
            if len(findings) >= FINDINGS_MAX:
                break
    return findings


def _check_rowids(
    copy: sqlite3.Connection, words: Words, wanted: Coverage, view: View, path: Path, looked: Count
) -> list[str]:
    """Up to `covers`, the words have each row once, and besides only what is gone."""
    findings: list[str] = []
    for first in range(0, wanted.covers, SLICE):
        last = min(first + SLICE, wanted.covers)
        rows = {
            rowid for (rowid,) in copy.execute("SELECT rowid FROM docs WHERE rowid > ? AND rowid <= ?", (first, last))
        }
        with translated("check", path):
            held = _rowids(words, view, first + 1, last)
        gone = {rowid for (rowid,) in copy.execute("SELECT r FROM gone WHERE r > ? AND r <= ?", (first, last))}
        missing, strange = sorted(rows - set(held)), sorted(set(held) - rows - gone)
        if missing:
            findings.append(f"words: they lack {len(missing)} rows from {missing[0]} to {missing[-1]}")
        if strange:
            findings.append(f"words: they have {len(strange)} rows that are gone, such as {strange[0]}")
        if len(held) > len(set(held)):
            findings.append(f"words: they have rows from {first} to {last} twice")
        looked(0)
        if len(findings) >= FINDINGS_MAX:
            break
    waiting = copy.execute("SELECT count(*) FROM docs WHERE rowid > ?", (wanted.covers,)).fetchone()[0]
    is_loaded = store.read_state(copy, path).loaded
    if is_loaded and waiting > sum(rows_in(copy, number) for number in range(len(DELTAS))):
        findings.append(f"delta: it lacks some of {waiting} rows")
    return findings


def _rowids(words: Words, view: View, first: int, last: int) -> list[int]:
    query = tantivy.Query.range_query(words.schema, ROW, tantivy.FieldType.Integer, first, last)
    hits = view.searcher.search(query, 2 * SLICE, count=False).hits
    found = view.searcher.fast_field_values(ROW, [address for _, address in hits])
    return [int(rowid or 0) for rowid in found]
