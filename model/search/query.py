"""The query language of text indexes: what people type, as a tree of terms.

    event loop              both words
    "event loop"            the words one behind the other
    load*                   every word that begins like this
    loop OR timer           at least one of both; words side by side bind closer than OR
    loop -draft             without the word; `loop NOT draft` says the same
    (loop OR timer) async   parentheses group
    title:loop              the word in the field `title`, where the index has a column of this name

Every string is a query. What has no meaning as an operator is a word, or nothing: an `OR` at the end is the word "or",
a parenthesis without its partner is left out, and a quotation mark without its partner opens a phrase up to the end. A
query of exclusions alone finds nothing. `OR`, `AND` and `NOT` are operators in capital letters only.

A query is cut behind the last whole word of its first `QUERY_CHARS_MAX` characters, and behind its first `TOKENS_MAX`
tokens: a text that was pasted whole is a query as well. A prefix counts as `PREFIX_TOKENS` of them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

from shadowswitch.model.search.bounds import QUERY_CHARS_MAX, check_query

TOKENS_MAX = 256
"""The most tokens in one query: the list of each token is read, also where many make one word (`a.a.a`)."""
PREFIX_TOKENS = 4
"""A prefix of one letter stands for a tenth of all words, and bm25 looks at each of their places."""
TERMS_PLAIN = 16
"""In a query of more terms, those with the same tokens count once, or end it: at each place of a term, bm25 looks at
all terms."""
DEPTH_MAX = 6
"""Parentheses inside parentheses; deeper ones are left out. SQLite and FTS5 parse what becomes of each level on a stack
of 100 places."""
_PHRASE = re.compile(r'"([^"]*)(?:"(\*?)|$)')
_WORD = re.compile(r'[^\s"]+')
_FIELD = re.compile(r'([^\s":()]+):(?=[^\s:])')
_SPACE = re.compile(r"\s*")
_LAST = re.compile(r"\S+\Z")


class Term(NamedTuple):
    """A word or a phrase."""

    text: str
    is_prefix: bool = False
    is_phrase: bool = False
    field: str = ""
    """The column to which it is restricted, "" for every one."""


class Every(NamedTuple):
    """All parts match, and none of `without`."""

    parts: tuple[Node, ...]
    without: tuple[Node, ...] = ()


class Either(NamedTuple):
    """At least one of two or more parts matches."""

    parts: tuple[Node, ...]


Node = Term | Every | Either
Tokenize = Callable[[Sequence[str]], list[list[str]]]
"""The tokens of each text, as the index has them."""


class _Token(NamedTuple):
    """`kind` is one of `( ) word phrase`; `text` that of a word or a phrase."""

    kind: str
    text: str = ""
    star: bool = False
    minus: bool = False
    field: str = ""


def parse_query(
    query: str, tokenize: Tokenize, fields: Collection[str] = (), composed: bool = True, token_chars_min: int = 2
) -> Node | None:
    """The tree of a query; None if it has no term to find. Raises InvalidConfig for what is no string.

    `fields` are the columns of the index, `composed` is whether its texts are in the form NFC. A token with what parts
    it from the next one has at least `token_chars_min` characters.
    """
    tokens = list(_lex(_clean(query, composed), fields))
    return _Parser(_bounded(_paired(tokens), tokenize, token_chars_min)).parse()


def wanted_terms(node: Node | None) -> list[Term]:
    """Each term that a hit may have matched, in the order of the query."""
    if node is None:
        return []
    if isinstance(node, Term):
        return [node]
    return list(dict.fromkeys(term for part in node.parts for term in wanted_terms(part)))


def _clean(query: str, composed: bool) -> str:
    text = check_query(query)
    if len(text) > QUERY_CHARS_MAX:
        text = _LAST.sub("", text[: QUERY_CHARS_MAX + 1])
    text = text.replace("\0", " ")
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode("utf-8")
        text = unicodedata.normalize("NFC", text) if composed else text
    return text


def _lex(text: str, fields: Collection[str]) -> Iterator[_Token]:
    place = 0
    while True:
        place = _end(_SPACE, text, place)
        if place == len(text):
            return
        minus = (
            text[place] == "-" and place + 1 < len(text) and not (text[place + 1].isspace() or text[place + 1] == "-")
        )
        place += minus
        named = _FIELD.match(text, place)
        field = named[1] if named is not None and named[1] in fields else ""
        place += len(field) + 1 if field else 0
        if phrase := _PHRASE.match(text, place):
            yield _Token("phrase", phrase[1], bool(phrase[2]), minus, field)
            place = phrase.end()
        elif text[place] in "()":
            yield _Token(text[place], minus=minus, field=field)
            place += 1
        else:
            found = _WORD.match(text, place)
            assert found is not None
            word = found[0]
            closing = max(0, min(len(word) - len(word.rstrip(")")), word.count(")") - word.count("(")))
            word = word[: len(word) - closing]
            bare = word.rstrip("*")
            yield _Token("word", bare, bare != word, minus, field)
            place += len(word)


def _end(pattern: re.Pattern[str], text: str, place: int) -> int:
    found = pattern.match(text, place)
    return found.end() if found is not None else place


def _paired(tokens: list[_Token]) -> list[_Token]:
    """Without the parentheses that have no partner, and those that are nested too deep."""
    left_out, opened = set[int](), list[int]()
    for place, token in enumerate(tokens):
        if token.kind == "(":
            opened.append(place)
        elif token.kind == ")":
            begin = opened.pop() if opened else -1
            if begin < 0 or len(opened) >= DEPTH_MAX:
                left_out |= {begin, place}
    left_out |= set(opened)
    return [token for place, token in enumerate(tokens) if place not in left_out]


def _bounded(tokens: list[_Token], tokenize: Tokenize, token_chars_min: int) -> list[_Token]:
    """Without the terms that do not count: those behind the first `TOKENS_MAX` tokens and, where there are many terms,
    those that were there before. In a query of words alone the other words go on; in any other it ends there."""
    terms = [place for place, token in enumerate(tokens) if token.text]
    characters = sum(len(tokens[place].text) + 1 for place in terms)
    if len(terms) <= TERMS_PLAIN and characters <= TOKENS_MAX * token_chars_min:
        return tokens
    of_words = not any(token.minus or token.kind in "()" or _operator(token) for token in tokens)
    kept, seen, count, repeated = set[int](), set[tuple[object, ...]](), 0, 0
    for place, found in zip(terms, tokenize([tokens[place].text for place in terms]), strict=True):
        token = tokens[place]
        same = (*found, token.star, token.field, "" if found else token.text)
        count += max(1, len(found)) * (PREFIX_TOKENS if token.star else 1)
        is_again = same in seen and not _operator(token)
        repeated += is_again
        if count > TOKENS_MAX or (repeated > TERMS_PLAIN and not of_words):
            kept -= {last for last in [max(kept, default=-1)] if last >= 0 and _operator(tokens[last])}
            break
        if not (is_again and of_words and len(terms) > TERMS_PLAIN):
            kept.add(place)
        seen.add(same)
    return [token for place, token in enumerate(tokens) if place in kept or not token.text]


def _operator(token: _Token) -> str:
    is_bare = token.kind == "word" and not (token.star or token.minus or token.field)
    return token.text if is_bare and token.text in ("OR", "AND", "NOT") else ""


class _Parser:
    """Recursive descent; `DEPTH_MAX` bounds the recursion."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._place = 0

    def parse(self) -> Node | None:
        """The tree of all tokens."""
        found = self._either("")
        return None if found is None or (isinstance(found, Every) and not found.parts) else found

    def _either(self, field: str) -> Node | None:
        """One group: up to its closing parenthesis, or to the end."""
        parts: list[Node] = []
        while True:
            part = self._every(field)
            if part is not None:
                parts.append(part)
            if self._operator() != "OR":
                break
            self._place += 1
        wanted = [part for part in parts if not (isinstance(part, Every) and not part.parts)]
        if not wanted:
            return parts[0] if parts else None
        different = tuple(dict.fromkeys(wanted))
        return different[0] if len(different) == 1 else Either(different)

    def _every(self, field: str) -> Node | None:
        parts: list[Node] = []
        without: list[Node] = []
        while self._place < len(self._tokens) and self._tokens[self._place].kind != ")" and self._operator() != "OR":
            if self._operator() == "AND":
                self._place += 1
                continue
            excluded = self._operator() == "NOT"
            self._place += excluded
            excluded = excluded or self._tokens[self._place].minus
            found = self._item(field)
            if isinstance(found, Every) and (not excluded or not found.parts):
                parts += () if excluded else found.parts
                without += () if excluded else found.without
            elif found is not None:
                (without if excluded else parts).append(found)
        parts = list(dict.fromkeys(parts))
        if len(parts) == 1 and not without:
            return parts[0]
        return Every(tuple(parts), tuple(without)) if parts or without else None

    def _item(self, field: str) -> Node | None:
        token = self._tokens[self._place]
        self._place += 1
        field = token.field or field
        if token.kind == "(":
            found = self._either(field)
            self._place += 1  # its partner
            return found
        return Term(token.text, token.star, token.kind == "phrase", field) if token.text.strip() else None

    def _operator(self) -> str:
        """The operator at this place: one without what it joins is a word."""
        if self._place >= len(self._tokens):
            return ""
        name = _operator(self._tokens[self._place])
        before = self._tokens[self._place - 1] if self._place else None
        behind = self._tokens[self._place + 1] if self._place + 1 < len(self._tokens) else None
        if not name or behind is None or behind.kind == ")" or _operator(behind) in ("OR", "AND"):
            return ""
        is_first = before is None or before.kind == "("
        return "" if is_first and name != "NOT" else name
