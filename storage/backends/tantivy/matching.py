"""A plan as a query of Tantivy, the statistics by which hits are scored, and the bound of its time.

A hit of a word has the score that Tantivy gives it (bm25), times the weight of the column. A prefix stands for up to
`TERMS_SCORED` words, and counts as one word that is as frequent as all of these: a rare form of a word is no better
than a common one. A prefix of more words, or behind other words of a phrase, says only that it is there.

Nothing stops a search of Tantivy, so one that may take long has a thread of its own. At the end of its time the caller
goes on, and the thread ends with the search, which the size of the index bounds. `BESIDE_MAX` run at a time.
"""

from __future__ import annotations

import json
import math
import re
import threading
from collections.abc import Callable
from typing import TypeVar

import tantivy

from shadowswitch.model.search.bounds import UNLIMITED, TimeLimit
from shadowswitch.storage.backends.tantivy.plan import AllOf, Part, Words, leaves
from shadowswitch.storage.backends.tantivy.words import MARK, TYPE, View
from shadowswitch.storage.backends.tantivy.words import Words as IndexWords

T = TypeVar("T")
K1, B = 1.2, 0.75
"""Of bm25, as Tantivy has them."""
TERMS_SCORED = 100
TERMS_MAX = 16_000
"""The most words for one prefix inside a phrase; Tantivy has a limit of 16,384."""
LONG_POSTINGS = 2_000_000
"""A search that visits as many places of words takes more than about ten milliseconds."""
BESIDE_MAX = 16
POLL_S = 0.02
_SPECIAL = re.compile(r"([\\.+*?()|\[\]{}^$#&\-~])")
_slots = threading.BoundedSemaphore(BESIDE_MAX)


class Prefix:
    """The words of the index that begin with a text, as far as they matter."""

    def __init__(self, terms: list[tuple[str, int]], docs: int) -> None:
        self.terms = [term for term, _ in terms]
        self.is_scored = len(terms) <= TERMS_SCORED
        self.idf = idf(docs, min(docs, sum(count for _, count in terms)))
        self.frequencies = dict(terms)


class Statistics:
    """What the words say of fields, tokens and prefixes, as of one view. Not for several threads at a time."""

    def __init__(self, words: IndexWords, view: View) -> None:
        self.words = words
        self.searcher = view.searcher
        self._facts = view.facts
        self._prefixes: dict[tuple[str, str], Prefix] = {}

    def idf(self, field: str, token: str) -> float:
        """How much a token says."""
        return idf(self.docs(field), self.searcher.doc_freq(field, token))

    def prefix(self, field: str, begin: str) -> Prefix:
        """The words of a field that begin with a text."""
        found = self._prefixes.get((field, begin))
        if found is None:
            terms = self.searcher.terms_with_prefix(field, begin, limit=TERMS_MAX)
            found = self._prefixes[field, begin] = Prefix(terms, self.docs(field))
        return found

    def docs(self, field: str) -> int:
        """The number of documents, with those that are deleted in the files: the frequencies count them as well."""
        return self._fact(field)[0]

    def mean_length(self, field: str) -> float:
        """The mean number of tokens in a field."""
        return self._fact(field)[1]

    def _fact(self, field: str) -> tuple[int, float]:
        """What Tantivy says in the explanation of a score, and nowhere else."""
        found = self._facts.get(field)
        if found is None:
            address = self.words.state_address(self.searcher)
            assert address is not None, "a view has a state"
            query = tantivy.Query.term_query(self.words.schema, field, MARK)
            explained = json.loads(query.explain(self.searcher, address).to_json())
            found = self._facts[field] = int(_explained(explained, "N,")), _explained(explained, "avgdl")
        return found


def idf(docs: int, having: int) -> float:
    """As in Tantivy."""
    return math.log(1 + (docs - having + 0.5) / (having + 0.5))


def _explained(explained: dict[str, object], name: str) -> float:
    """A value of an explanation, by the begin of its description."""
    if str(explained.get("description", "")).startswith(name):
        return float(str(explained["value"]))
    details = explained.get("details") or []
    assert isinstance(details, list)
    return max((_explained(one, name) for one in details), default=0.0)


def is_long(part: Part, statistics: Statistics) -> bool:
    """Whether a search may take long."""
    postings = 0
    for words in leaves(part):
        if words.is_prefix:
            return True
        postings += sum(statistics.searcher.doc_freq(words.field, token) for token in words.tokens)
    return postings > LONG_POSTINGS


def within(time_limit: TimeLimit, is_long: bool, work: Callable[[], T]) -> T:
    """The result of `work`. Raises Timeout when the time is over, even while it runs."""
    time_limit.check()
    if not is_long or time_limit is UNLIMITED:
        return work()
    while not _slots.acquire(timeout=POLL_S):
        time_limit.check()
    found: list[T] = []
    errors: list[BaseException] = []
    done = threading.Event()

    def run() -> None:
        try:
            found.append(work())
        except BaseException as error:
            errors.append(error)
        finally:
            _slots.release()
            done.set()

    try:
        threading.Thread(target=run, name="shadowswitch-search", daemon=True).start()
    except BaseException:
        _slots.release()
        raise
    while not done.wait(POLL_S):
        time_limit.check()
    if errors:
        raise errors[0]
    return found[0]


def query_of(part: Part, statistics: Statistics, types: list[str] | None = None) -> tantivy.Query:
    """The query for a plan, and for records of these types; they change no score."""
    query = _query(part, statistics)
    if types is None:
        return query
    of_types = tantivy.Query.term_set_query(statistics.words.schema, TYPE, types)
    filtered = tantivy.Query.const_score_query(of_types, 0.0)
    return tantivy.Query.boolean_query([(tantivy.Occur.Must, query), (tantivy.Occur.Must, filtered)])


def _query(part: Part, statistics: Statistics) -> tantivy.Query:
    if isinstance(part, Words):
        return _words(part, statistics)
    occur = tantivy.Occur.Must if isinstance(part, AllOf) else tantivy.Occur.Should
    parts = [(occur, _query(one, statistics)) for one in part.parts]
    if isinstance(part, AllOf):
        parts += [(tantivy.Occur.MustNot, _query(one, statistics)) for one in part.without]
    return tantivy.Query.boolean_query(parts)


def _words(words: Words, statistics: Statistics) -> tantivy.Query:
    schema, field, tokens = statistics.words.schema, words.field, words.tokens
    if words.is_prefix:
        prefix = statistics.prefix(field, tokens[-1])
        if len(tokens) == 1:
            return _prefix(words, prefix, statistics)
        return _constant(_phrase_of_prefix(words, prefix, statistics), words.weight)
    if len(tokens) == 1:
        return _boosted(tantivy.Query.term_query(schema, field, tokens[0]), words.weight)
    return _boosted(tantivy.Query.phrase_query(schema, field, list(tokens)), words.weight)


def _prefix(words: Words, prefix: Prefix, statistics: Statistics) -> tantivy.Query:
    schema, field = statistics.words.schema, words.field
    if not prefix.is_scored:
        return _constant(_begins(words, prefix, statistics), words.weight * prefix.idf)
    return _either(
        [
            _boosted(
                tantivy.Query.term_query(schema, field, term),
                words.weight * prefix.idf / idf(statistics.docs(field), prefix.frequencies[term]),
            )
            for term in prefix.terms
        ]
    )


def _begins(words: Words, prefix: Prefix, statistics: Statistics) -> tantivy.Query:
    """Every word of a prefix."""
    schema, field = statistics.words.schema, words.field
    try:
        return tantivy.Query.regex_query(schema, field, _SPECIAL.sub(r"\\\1", words.tokens[-1]) + ".*")
    except ValueError:  # too long for an expression
        return tantivy.Query.term_set_query(schema, field, prefix.terms)


def _phrase_of_prefix(words: Words, prefix: Prefix, statistics: Statistics) -> tantivy.Query:
    schema, field, before = statistics.words.schema, words.field, list(words.tokens[:-1])
    if prefix.is_scored:
        return _either([tantivy.Query.phrase_query(schema, field, [*before, term]) for term in prefix.terms])
    if len(prefix.terms) < TERMS_MAX:
        patterns = [_SPECIAL.sub(r"\\\1", token) for token in words.tokens]
        return tantivy.Query.regex_phrase_query(schema, field, [*patterns[:-1], patterns[-1] + ".*"])
    parts = [tantivy.Query.term_query(schema, field, token) for token in before]
    parts.append(_begins(words, prefix, statistics))
    return tantivy.Query.boolean_query([(tantivy.Occur.Must, part) for part in parts])


def _either(queries: list[tantivy.Query]) -> tantivy.Query:
    if not queries:
        return tantivy.Query.empty_query()
    return tantivy.Query.boolean_query([(tantivy.Occur.Should, query) for query in queries])


def _boosted(query: tantivy.Query, weight: float) -> tantivy.Query:
    return query if weight == 1.0 else tantivy.Query.boost_query(query, weight)


def _constant(query: tantivy.Query, score: float) -> tantivy.Query:
    return tantivy.Query.const_score_query(query, score)
