"""The words of a shard: a Tantivy index in the folder `words`, which finds rows of `docs` and stores nothing of them.

Its documents have

    r                  the rowid, indexed and fast
    t                  the resource type, for filters
    c0, c1, ...        the texts, as in `docs`
    g                  names with symbols and parts of words, see `options.WordsLayout.extra`

One document, with the rowid -1, is the state: `uid`, `covers` and `deleted`, stored in the same commit as what they
speak of. It has `MARK` in each field of texts, so that the mean length of the field can be asked for.

A Tantivy index has a thread that looks at its file every half second, so a process has each folder open once.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import tantivy

from shadowswitch.storage.backends.tantivy.files import FOLDER, Files, translated, unusable
from shadowswitch.storage.backends.tantivy.options import WordsLayout
from shadowswitch.storage.disk import Identity, identity

ROW, TYPE, EXTRA = "r", "t", "g"
MARK = "\ue001"
"""Of the private area: no tokenizer takes it for a letter, so no query has it."""
STATE_ROW = -1
HEAP_BYTES = 50_000_000
WORDS, EXTRAS = "words", "extras"
"""The names of the tokenizers."""
_STATE = ("uid", "covers", "deleted")

Row = tuple[int, str, Sequence[str]]
"""Rowid, resource type and the texts of its columns, of a row of `docs`."""


class State(NamedTuple):
    """What the words hold. `docs` says the same of what it needs: see `store`."""

    uid: int
    """Names the folder: words that belong to other rows are never taken for those of these."""
    covers: int
    """Every row of `docs` up to this rowid is in the words."""
    deleted: int
    """The deletions up to this number were carried out."""


class View(NamedTuple):
    """The words as of one commit."""

    searcher: tantivy.Searcher
    state: State
    facts: dict[str, tuple[int, float]]
    """Of a field: the number of documents by which it is scored, and its mean length. Filled when it is asked for."""


class Words:
    """The open words of a shard, shared by all readers of a process. Any thread."""

    def __init__(self, path: Path, layout: WordsLayout, folder: str = FOLDER) -> None:
        self.path = path
        self.schema = schema_of(layout)
        self.analyze, self.analyze_extra = analyzers(layout)
        self._guard = threading.Lock()
        with translated("open words", path):
            with closing(Files(path, folder)) as files:
                if damage := files.damage():
                    raise unusable(path, "; ".join(damage))
            self._index = tantivy.Index(self.schema, str(path / folder))
            self._index.config_reader("manual")
            self._index.register_tokenizer(WORDS, self.analyze)
            self._index.register_tokenizer(EXTRAS, self.analyze_extra)
        self._view: View | None = None

    def view(self, least: int = 0, uid: int | None = None) -> View:
        """The words as of a commit that covers the rowid `least`: the present one, unless an older one will do.

        Raises CorruptData where no such commit is there.
        """
        with self._guard, translated("read words", self.path):
            if self._view is None or not _is_enough(self._view.state, least, uid):
                self._index.reload()
                searcher = self._index.searcher()
                self._view = View(searcher, self._state(searcher), {})
            view = self._view
        if not _is_enough(view.state, least, uid):
            raise unusable(self.path, f"they hold {view.state}, and not the rows up to {least} of {uid}")
        return view

    def refresh(self) -> None:
        """Let the next `view` be of the present commit."""
        with self._guard:
            self._view = None

    def writer(self) -> tantivy.IndexWriter:
        """The one writer of these words. Its lock is released with the object, or with the process."""
        return self._index.writer(HEAP_BYTES, 1)

    def _state(self, searcher: tantivy.Searcher) -> State:
        address = self.state_address(searcher)
        found = {} if address is None else searcher.doc(address).to_dict()
        if set(found) != set(_STATE):
            raise unusable(self.path, "they have no state")
        return State(*(int(found[name][0]) for name in _STATE))

    def state_address(self, searcher: tantivy.Searcher) -> tantivy.DocAddress | None:
        """The document of the state."""
        hits = searcher.search(tantivy.Query.term_query(self.schema, ROW, STATE_ROW), 1, count=False).hits
        return hits[0][1] if hits else None

    def document(self, row: Row, layout: WordsLayout) -> tantivy.Document:
        """The document of a row."""
        rowid, resource_type, texts = row
        document = tantivy.Document()
        document.add_integer(ROW, rowid)
        document.add_text(TYPE, resource_type)
        for column, text in zip(layout.shown, texts, strict=True):
            document.add_text(column, text)
        extra = layout.extra(texts)
        if extra:
            document.add_text(EXTRA, extra)
        return document


_Place = tuple[Identity, str, str]
_open: dict[_Place, tuple[Words, int]] = {}
_guard = threading.Lock()


def taken(path: Path, layout: WordsLayout) -> Words:
    """The open words of the shard in `path`; give them back with `given_back`. Raises CorruptData."""
    with translated("open words", path):
        if not (path / FOLDER).is_dir():
            raise unusable(path, "they are missing")
        place = (identity(path / FOLDER), str(path), f"{layout.tokenizer} {layout.columns}")
        with _guard:
            is_open = place in _open
        new = None if is_open else Words(path, layout)  # reads every file, while others open and close theirs
        with _guard:
            words, users = _open.get(place) or (new or Words(path, layout), 0)
            _open[place] = words, users + 1
        return words


def given_back(words: Words) -> None:
    """Close words when their last user gives them back."""
    with _guard:
        for place, (one, users) in list(_open.items()):
            if one is words:
                if users > 1:
                    _open[place] = words, users - 1
                else:
                    del _open[place]


def create(path: Path, layout: WordsLayout, uid: int, folder: str = FOLDER) -> None:
    """Empty words, durably. The folder must not be there."""
    with translated("create words", path):
        (path / folder).mkdir(mode=0o700)
        schema = schema_of(layout)
        index = tantivy.Index(schema, str(path / folder))
        for name, analyzer in zip((WORDS, EXTRAS), analyzers(layout), strict=True):
            index.register_tokenizer(name, analyzer)
        writer = index.writer(HEAP_BYTES, 1)
        put_state(writer, State(uid, 0, 0), layout)
        writer.commit()
        writer.wait_merging_threads()


def put_state(writer: tantivy.IndexWriter, state: State, layout: WordsLayout) -> None:
    """Replace the document of the state."""
    writer.delete_documents_by_term(ROW, STATE_ROW)
    document = tantivy.Document()
    document.add_integer(ROW, STATE_ROW)
    for name, value in zip(_STATE, state, strict=True):
        document.add_integer(name, value)
    for field in (*layout.shown, EXTRA):
        mark = tantivy.PreTokenizedString(MARK, [tantivy.Token(MARK, 0, 0, 1)])
        document.add_pre_tokenized_text(field, mark)
    writer.add_document(document)


def schema_of(layout: WordsLayout) -> tantivy.Schema:
    """The fields of the words."""
    builder = tantivy.SchemaBuilder()
    builder.add_integer_field(ROW, indexed=True, fast=True)
    for name in _STATE:
        builder.add_integer_field(name, stored=True)
    builder.add_text_field(TYPE, tokenizer_name="raw", index_option="basic")
    for column in layout.shown:
        builder.add_text_field(column, tokenizer_name=WORDS)
    builder.add_text_field(EXTRA, tokenizer_name=EXTRAS)
    return builder.build()


def analyzers(layout: WordsLayout) -> tuple[tantivy.TextAnalyzer, tantivy.TextAnalyzer]:
    """Those of the texts, and of what stands beside them."""
    found = []
    for tokenizer in (tantivy.Tokenizer.simple(), tantivy.Tokenizer.whitespace()):
        builder = tantivy.TextAnalyzerBuilder(tokenizer).filter(tantivy.Filter.lowercase())
        if layout.folds:
            builder = builder.filter(tantivy.Filter.ascii_fold())
        if layout.stems:
            builder = builder.filter(tantivy.Filter.stemmer("english"))
        found.append(builder.build())
    return found[0], found[1]


def _is_enough(state: State, least: int, uid: int | None) -> bool:
    return state.covers >= least and uid in (None, state.uid)
