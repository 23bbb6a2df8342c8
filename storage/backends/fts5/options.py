"""The options of the `fts5` backend, and the text of a record in an index with these options.

Canonical form, as `configure` returns it (configuring it again gives the same):

    {"tokenizer": "unicode61", "columns": None, "prefix": [], "text": "NFC"}
    {"tokenizer": "porter unicode61 cjk", "columns": {"body": 1.0, "title": 4.0}, "prefix": [2, 3], "text": "NFC",
     "cjk": "word", "synonyms": [["javascript", "js"]], "stop_words": ["of", "the"]}

`columns` None means one column, `text`, with every string of the record. Names from users never reach SQL: columns are
`c0`, `c1`, ... there, in the sorted order of the names, so the order of a dict does not matter.

`tokenizer` is one of FTS5, and behind it what the index holds beside its words, see `extra`. `cjk`, `synonyms`,
`stop_words` and the weights of the columns are settings of the query: the files are the same whatever they are. They
are left out where they have their default, as an older version does.

`text` is the form of the texts in the index. `NFC`: characters are composed (file names of macOS are decomposed), and
NUL, where a tokenizer would end, is a space. `raw`: as in the record. Indexes of older versions are raw: their options
name no form.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from shadowswitch.model.errors import InvalidConfig
from shadowswitch.storage.backends.fts5 import extra, nouns

TOKENIZERS = ("unicode61", "ascii", "porter", "trigram")
COLUMNS_MAX = 64
"""bm25 takes one weight for each column as a function argument; SQLite allows 127 arguments."""
PREFIX_LENGTH_MAX = 16
PREFIXES_MAX = 8
WHOLE = "text"
"""The name of the one column when no columns are configured."""
EXTRA = "g"
"""The column of what `extra` makes."""

COMPOSED, RAW = "NFC", "raw"
PREFIX, WORD = "prefix", "word"
"""The values of `cjk`: whether a word with Hangul is a prefix, for a noun and its particle are one word."""
SYNONYM_GROUPS_MAX, SYNONYMS_MAX, STOP_WORDS_MAX, WORD_CHARS_MAX = 1000, 20, 1000, 100
_OPTIONS = ("tokenizer", "columns", "prefix", "text", "cjk", "synonyms", "stop_words")
_OF_QUERY = ("cjk", "synonyms", "stop_words")
_SEQUENCES = (list, tuple)
_CONTAINERS = (dict, list, tuple, str, Mapping)
Texts = Callable[[Mapping[str, Any]], tuple[str, ...]]


def configure(build_config: Mapping[str, Any]) -> dict[str, Any]:
    """The canonical options; raises `InvalidConfig`. Pure."""
    unknown = sorted(str(name) for name in build_config if name not in _OPTIONS)
    if unknown:
        raise InvalidConfig(f"unknown option of backend fts5: {', '.join(unknown)}", hint=f"use {', '.join(_OPTIONS)}")
    of_query = {
        "cjk": _cjk(build_config.get("cjk")),
        "synonyms": _synonyms(build_config.get("synonyms")),
        "stop_words": _words("stop_words", build_config.get("stop_words"), STOP_WORDS_MAX),
    }
    return {
        "tokenizer": _tokenizer(build_config.get("tokenizer")),
        "columns": _columns(build_config.get("columns")),
        "prefix": _prefix(build_config.get("prefix")),
        "text": _text(build_config.get("text")),
        **{name: value for name, value in of_query.items() if value},
    }


def of_files(options: Mapping[str, Any]) -> dict[str, Any]:
    """What options say of the files of a shard: without the settings of the query."""
    kept = {name: value for name, value in options.items() if name not in _OF_QUERY}
    return {**kept, "columns": sorted(kept["columns"]) if kept.get("columns") is not None else None}


def _cjk(value: Any) -> str:
    if value not in (None, PREFIX, WORD):
        raise InvalidConfig(
            f"cjk is {value!r:.80}",
            hint=f"use {PREFIX} (a word with Hangul is a prefix) or {WORD}; tokenizer 'cjk' finds parts of words",
        )
    return WORD if value == WORD else ""


def _synonyms(value: Any) -> list[list[str]]:
    if value is None:
        return []
    hint = f'give lists of words that mean the same, like [["js", "javascript"]]: up to {SYNONYM_GROUPS_MAX}'
    if not isinstance(value, _SEQUENCES) or len(value) > SYNONYM_GROUPS_MAX:
        raise InvalidConfig("synonyms is not a list of lists of words", hint=hint)
    groups = [_words("synonyms", group, SYNONYMS_MAX) for group in value]
    if any(len(group) < 2 for group in groups):
        raise InvalidConfig("synonyms has a list of less than two different words", hint=hint)
    return sorted(groups)


def _words(option: str, value: Any, most: int) -> list[str]:
    """Different words in their folded form, sorted."""
    if value is None:
        return []
    hint = f"give a list of up to {most} words of 1 to {WORD_CHARS_MAX} characters"
    if not isinstance(value, _SEQUENCES) or len(value) > most:
        raise InvalidConfig(f"{option} has what is no list of words, or a long one", hint=hint)
    for word in value:
        if not isinstance(word, str) or not word.strip() or len(word) > WORD_CHARS_MAX or not _is_text(word):
            raise InvalidConfig(f"{option} has {word!r:.80}", hint=hint)
    return sorted({folded(word) for word in value})


def _is_text(word: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" or letter in '\0"' for letter in word)


def folded(word: str) -> str:
    """A word as synonyms and stop words are compared: composed, in lower case, with single spaces."""
    return " ".join(unicodedata.normalize("NFC", word).casefold().split())


def _text(value: Any) -> str:
    if value is None:
        return COMPOSED
    if value not in (COMPOSED, RAW):
        raise InvalidConfig(f"unknown form of text {value!r:.80}", hint=f"use {COMPOSED} or {RAW}")
    return str(value)


def _tokenizer(value: Any) -> str:
    words = "unicode61" if value is None else value
    if not isinstance(words, str):
        raise InvalidConfig("tokenizer is not a string", hint=f"use one of {', '.join(TOKENIZERS)}")
    extras = [name for name in extra.EXTRAS if name in words.split()]
    parts = [part for part in words.split() if part not in extras]
    if extras and not parts:
        parts = ["unicode61"]
    stem = parts[:1] == ["porter"]
    if stem:
        parts = parts[1:] or ["unicode61"]
    name, arguments = (parts[0], parts[1:]) if parts else ("", [])
    allowed = {"unicode61": {"remove_diacritics": "012"}, "trigram": {"case_sensitive": "01"}, "ascii": {}}
    if name not in allowed or (name == "trigram" and (stem or extras)) or (name == "ascii" and extras):
        raise InvalidConfig(
            f"unknown tokenizer {words!r}",
            hint=f"use one of {', '.join((*TOKENIZERS, *extra.EXTRAS))}, or for example 'unicode61 remove_diacritics 2'"
            f" or 'porter {extra.CJK}'",
        )
    _check_arguments(words, allowed[name], arguments)
    if extra.KOREAN in extras:
        nouns.require()
    return " ".join((["porter"] if stem else []) + parts + extras)


def _check_arguments(words: str, allowed: dict[str, str], arguments: list[str]) -> None:
    names, values = arguments[::2], arguments[1::2]
    sound = len(names) == len(values) == len(set(names)) and all(
        name in allowed and len(value) == 1 and value in allowed[name]
        for name, value in zip(names, values, strict=True)
    )
    if not sound:
        choices = "; ".join(f"{name} {'|'.join(values)}" for name, values in allowed.items()) or "no arguments"
        raise InvalidConfig(f"bad arguments of tokenizer {words!r}", hint=f"this tokenizer takes: {choices}")


def _columns(value: Any) -> dict[str, float] | None:
    if value is None:
        return None
    hint = "give a list of field names, or an object of field name and weight above 0"
    if isinstance(value, (list, tuple)):
        if len(set(map(repr, value))) != len(value):
            raise InvalidConfig("columns names a field twice", hint=hint)
        value = {name if isinstance(name, str) else "": 1.0 for name in value}
    if not isinstance(value, Mapping) or not 1 <= len(value) <= COLUMNS_MAX:
        raise InvalidConfig(f"columns is not a list or object of 1 to {COLUMNS_MAX} fields", hint=hint)
    for name, weight in value.items():
        if not isinstance(name, str) or not name:
            raise InvalidConfig("columns has a name that is not a non-empty string", hint=hint)
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 < weight <= 1e6:
            raise InvalidConfig(f"weight {weight!r} of column {name!r} is not a number in (0, 1000000]", hint=hint)
    return {name: float(value[name]) for name in sorted(value)}


def _prefix(value: Any) -> list[int]:
    if value is None:
        return []
    hint = f"give up to {PREFIXES_MAX} different lengths from 1 to {PREFIX_LENGTH_MAX}, for example [2, 3]"
    if not isinstance(value, (list, tuple)) or len(value) > PREFIXES_MAX or len(set(map(repr, value))) != len(value):
        raise InvalidConfig("prefix is not a short list of different lengths", hint=hint)
    for length in value:
        if isinstance(length, bool) or not isinstance(length, int) or not 1 <= length <= PREFIX_LENGTH_MAX:
            raise InvalidConfig(f"prefix length {length!r} is out of range", hint=hint)
    return sorted(value)


class Layout:
    """The columns of a shard, their weights, the texts of a record in them, and how a query reads them."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        columns: Mapping[str, float] | None = options["columns"]
        weights = {WHOLE: 1.0} if columns is None else {name: columns[name] for name in sorted(columns)}
        parts = options["tokenizer"].split()
        self.extras = tuple(part for part in parts if part in extra.EXTRAS)
        self.tokenizer = " ".join(part for part in parts if part not in self.extras)
        """That of FTS5."""
        self.names = tuple(weights)
        self.shown = tuple(f"c{number}" for number in range(len(weights)))
        """The columns with the texts of the names."""
        self.columns = (*self.shown, EXTRA) if self.extras else self.shown
        self.weights = (*weights.values(), extra.WEIGHT) if self.extras else tuple(weights.values())
        self.fields: Mapping[str, str] = {} if columns is None else dict(zip(self.names, self.shown, strict=True))
        """The column of each name by which a query may restrict a term."""
        self.prefix: list[int] = list(options["prefix"])
        self.trigram = parts[0] == "trigram"
        self.case_sensitive = self.tokenizer.endswith("case_sensitive 1")
        self.composed = options.get("text", RAW) == COMPOSED
        self.hangul_prefix = options.get("cjk") != WORD
        self.stop_words = frozenset(options.get("stop_words") or ())
        self.synonyms = _others(options.get("synonyms") or ())
        texts = _whole_text if columns is None else _texts_of(self.names)
        self._shown_texts: Texts = _composed(texts) if self.composed else texts
        self.texts: Texts = self._with_extra if self.extras else self._shown_texts
        """The text of each column."""

    def prepare(self, wait: bool) -> None:
        """Start what the texts need and what is slow to start, and perhaps wait for it."""
        if extra.KOREAN in self.extras:
            (nouns.KIWI.wait if wait else nouns.KIWI.begin)()

    def project(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """These fields as the index holds them."""
        return dict(zip(self.names, self._shown_texts(fields), strict=True))

    def _with_extra(self, fields: Mapping[str, Any]) -> tuple[str, ...]:
        texts = self._shown_texts(fields)
        return (*texts, extra.extra_words("\n".join(texts), self.extras))


def _others(groups: Sequence[Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """The words that mean the same as a word."""
    found: dict[str, dict[str, None]] = {}
    for group in groups:
        for word in group:
            found.setdefault(word, {}).update(dict.fromkeys(other for other in group if other != word))
    return {word: tuple(others) for word, others in found.items()}


_recent: tuple[Mapping[str, Any], Layout] | None = None


def layout_of(options: Mapping[str, Any]) -> Layout:
    """The layout of these options, kept for the next call with the same object: a check asks once for each row."""
    global _recent
    recent = _recent
    if recent is None or recent[0] is not options:
        recent = _recent = options, Layout(options)
    return recent[1]


def _composed(texts: Texts) -> Texts:
    def composed(fields: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple([composed_text(text) for text in texts(fields)])

    return composed


def composed_text(text: str) -> str:
    """A text in the form NFC, without NUL."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    return text.replace("\0", " ")


def _whole_text(fields: Mapping[str, Any]) -> tuple[str]:
    found: list[str] = []
    for value in fields.values():
        if type(value) is str:
            found.append(value)
        elif isinstance(value, _CONTAINERS):
            _collect(value, found)
    return (found[0] if len(found) == 1 else "\n".join(found),)


def _texts_of(names: tuple[str, ...]) -> Texts:
    def texts(fields: Mapping[str, Any]) -> tuple[str, ...]:
        get = fields.get
        return tuple([text_of(get(name)) for name in names])

    return texts


def text_of(value: Any) -> str:
    """The text of the value of a field."""
    return value if type(value) is str else strings_in(value)


def strings_in(value: Any) -> str:
    """All strings inside a JSON-like value (not the names of fields), in order, joined by newlines."""
    found: list[str] = []
    _collect(value, found)
    return "\n".join(found)


def _collect(value: Any, found: list[str]) -> None:
    """Append all strings inside a value, without recursion: a record may be nested to any depth."""
    stack = [value]
    while stack:
        top = stack.pop()
        if isinstance(top, str):
            found.append(top)
        elif isinstance(top, Mapping):
            stack.extend(reversed(list(top.values())))
        elif isinstance(top, _SEQUENCES):
            stack.extend(reversed(top))
