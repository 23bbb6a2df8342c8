"""The options of the `tantivy` backend: those of `fts5`, with a tokenizer that Tantivy has, and without `prefix`.

    {"tokenizer": "unicode61", "columns": None, "prefix": [], "text": "NFC"}
    {"tokenizer": "porter unicode61 cjk code", "columns": {"body": 1.0, "title": 4.0}, "prefix": [], "text": "NFC"}

The columns of `docs` are the texts of the record and `h`, their checksum: the check compares it, for a row that is in
the words cannot be compared with them at a bearable cost.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from zlib import crc32

from shadowswitch.model.errors import InvalidConfig
from shadowswitch.storage.backends.fts5 import options as fts5_options
from shadowswitch.storage.backends.fts5.extra import extra_words
from shadowswitch.storage.backends.fts5.options import Layout, Texts, of_files
from shadowswitch.storage.backends.protocol import Reuse

CHECKSUM = "h"
"""The column of the checksum."""
_OPTIONS = ("tokenizer", "columns", "text", "cjk", "synonyms", "stop_words")
_SYMBOL = re.compile(r"(?<!\w)[A-Za-z]{1,3}(?:\+\+|#)")


def configure(build_config: Mapping[str, Any]) -> dict[str, Any]:
    """The canonical options; raises `InvalidConfig`. Pure."""
    unknown = sorted(str(name) for name in build_config if name not in (*_OPTIONS, "prefix"))
    if unknown:
        raise InvalidConfig(
            f"unknown option of backend tantivy: {', '.join(unknown)}", hint=f"use {', '.join(_OPTIONS)}"
        )
    if build_config.get("prefix") not in (None, [], ()):
        raise InvalidConfig(
            "backend tantivy has no option prefix", hint="leave it out: it finds prefixes of any length"
        )
    found = fts5_options.configure({name: value for name, value in build_config.items() if name != "prefix"})
    words = found["tokenizer"].split()
    if "trigram" in words or "ascii" in words:
        raise InvalidConfig(
            f"backend tantivy has no tokenizer {found['tokenizer']!r}",
            hint="use unicode61 or porter, and behind it cjk or code",
        )
    return found


def plan(old: Mapping[str, Any], new: Mapping[str, Any]) -> Reuse:
    """What a shard with the options `new` can take over from one with `old`. Pure."""
    if set(old["columns"] or ()) != set(new["columns"] or ()) or (old["columns"] is None) != (new["columns"] is None):
        return Reuse.NOTHING
    if old["text"] != new["text"]:
        return Reuse.NOTHING
    if of_files(old) != of_files(new):
        return Reuse.REINDEX
    return Reuse.COPY if old == new else Reuse.SETTINGS


class WordsLayout(Layout):
    """The layout of `fts5`, but for what is made from the texts: a checksum in `docs`, and parts of words in the words
    alone."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self.weights = self.weights[: len(self.shown)]
        self.columns = (*self.shown, CHECKSUM)
        self.texts: Texts = self._with_checksum
        parts = self.tokenizer.split()
        self.stems = parts[0] == "porter"
        self.folds = parts[-2:] != ["remove_diacritics", "0"]

    def _with_checksum(self, fields: Mapping[str, Any]) -> tuple[str, ...]:
        texts = self._shown_texts(fields)
        return (*texts, checksum(texts))

    def extra(self, texts: Sequence[str]) -> str:
        """What the words have of a record beside its words: names with symbols, and parts of words."""
        found = list(self._symbols(texts))
        if self.extras:
            found.append(extra_words("\n".join(texts), self.extras))
        return " ".join(found)

    def _symbols(self, texts: Sequence[str]) -> Iterator[str]:
        for column, text in zip(self.shown, texts, strict=True):
            if "#" in text or "++" in text:
                for symbol in _SYMBOL.findall(text):
                    yield symbol
                    if self.fields:
                        yield symbol_in(column, symbol)


def checksum(texts: Sequence[str]) -> str:
    """The checksum of the texts of a row."""
    found = 0
    for text in texts:
        found = crc32(b"\0", crc32(text.encode(), found))
    return f"{found:08x}"


def is_symbol(text: str) -> bool:
    """Whether a term is the name of a programming language that no tokenizer leaves whole, such as C++ or F#."""
    return _SYMBOL.fullmatch(text) is not None


def symbol_in(column: str, symbol: str) -> str:
    """The word for a symbol in one column."""
    return f"{column}:{symbol}"
