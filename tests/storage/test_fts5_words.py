"""Every hit of an fts5 index holds every word of the query, in each writing that the engine reads."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shadowswitch.model.errors import InvalidConfig
from tests.support.fts5_index import BACKEND, Index

Form = Literal["NFC", "NFD"]
WORDS = st.text(st.sampled_from("aAäÄ가나%_\\"), min_size=1, max_size=5)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shard-000"


@pytest.fixture
def trigrams(path: Path) -> Iterator[Index]:
    with closing(Index(path, tokenizer="trigram", columns=["title", "body"])) as index:
        yield index
    assert BACKEND.check(path, index.options) == []


# -- words that are shorter than a token ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("권한 로그인", ["both"]),
        ("로그인", ["both", "login"]),
        ("권한", ["both", "right"]),
        ("go runtime", ["go"]),
        ("Go", ["go"]),
        ("go 권한", []),
        ("runtime", ["go", "jvm"]),
        ('"go r"', ["go"]),
        ('" go"', ["go"]),
        ("%", []),
        ("_", []),
        ("ÄÖ", ["umlaut"]),
        ("äÖ gr", ["umlaut"]),
    ],
)
def test_a_short_word_is_looked_for_in_the_rows(trigrams: Index, query: str, expected: list[str]) -> None:
    trigrams.add(both={"title": "로그인", "body": "권한이 있다"}, login={"title": "로그인"}, right={"body": "권한"})
    trigrams.add(
        go={"title": "Go", "body": "its runtime, go run"}, jvm={"body": "the runtime"}, umlaut={"body": "Größe äö"}
    )
    assert sorted(trigrams.find(query)) == expected


def test_short_words_keep_the_order_of_the_scores_and_the_limit(trigrams: Index) -> None:
    trigrams.add(**{f"z{number:02}": {"title": "a runtime of go"} for number in range(30)})
    trigrams.add(best={"title": "runtime runtime go"}, other={"title": "runtime runtime runtime"})
    assert trigrams.find("runtime go", 1) == ["best"]
    assert trigrams.find("runtime go", 3) == ["best", "z00", "z01"]
    assert trigrams.find("go", 2) == ["best", "z00"]
    assert all(hit.score == 0 for hit in trigrams.reader.search("go", 5))


def test_an_index_that_minds_the_case_minds_it_in_short_words(path: Path) -> None:
    with closing(Index(path, tokenizer="trigram case_sensitive 1")) as index:
        index.add(upper="Go is a language", lower="they go")
        assert index.find("Go") == ["upper"]
        assert index.find("go") == ["lower"]


@given(
    texts=st.lists(st.lists(WORDS, min_size=1, max_size=4), min_size=1, max_size=6), query=st.lists(WORDS, max_size=3)
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_hit_of_a_trigram_index_holds_every_word_and_no_other_record_does(
    tmp_path_factory: pytest.TempPathFactory, texts: list[list[str]], query: list[str]
) -> None:
    with closing(Index(tmp_path_factory.mktemp("index") / "shard-000", tokenizer="trigram")) as index:
        index.add(**{f"r{number}": " ".join(words) for number, words in enumerate(texts)})
        held = {f"r{number}": " ".join(words).lower() for number, words in enumerate(texts)}
        expected = [id for id, text in held.items() if all(word.lower() in text for word in query)]
        assert sorted(index.find(" ".join(query))) == (expected if query else [])


def test_a_query_of_many_short_words_over_many_columns_is_answered(path: Path) -> None:
    with closing(Index(path, tokenizer="trigram", columns=[f"c{number}" for number in range(64)])) as index:
        index.add(a={f"c{number}": chr(0xE0 + number % 20) * 2 for number in range(64)})
        words = " ".join(chr(0xC0 + number % 20) * 2 for number in range(256))
        assert index.find(words) == ["a"]


# -- Korean ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokenizer", ["unicode61", "porter"])
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("사용자", ["ga", "plain", "reul"]),
        ("사용자 권한", ["reul"]),
        ("사용자가", ["ga"]),
        ('"사용자"', ["plain"]),
        ("React를", ["react"]),
        ("용자", []),
    ],
)
def test_a_word_with_hangul_is_a_prefix(path: Path, tokenizer: str, query: str, expected: list[str]) -> None:
    with closing(Index(path, tokenizer=tokenizer)) as index:
        index.add(plain="사용자", ga="사용자가 로그인한다", reul="사용자를 위한 권한은", react="React를 배운다")
        assert sorted(index.find(query)) == expected


# -- one form of text --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokenizer", ["unicode61", "trigram", "ascii"])
@pytest.mark.parametrize("written", ["NFC", "NFD"])
@pytest.mark.parametrize("asked", ["NFC", "NFD"])
def test_composed_and_decomposed_text_is_the_same(path: Path, tokenizer: str, written: Form, asked: Form) -> None:
    with closing(Index(path, tokenizer=tokenizer)) as index:
        index.add(a=unicodedata.normalize(written, "한국어.txt Größe"), b="other")
        for word in ("한국어", "Größe", "Größe 한국어"):
            assert index.find(unicodedata.normalize(asked, word)) == ["a"]
        record = index.reader.get("t", "a")
        assert record is not None
        assert record.fields == BACKEND.project(index.options, {"body": "한국어.txt Größe"})


@pytest.mark.parametrize("tokenizer", ["unicode61", "trigram", "trigram case_sensitive 1", "ascii", "porter"])
def test_what_is_behind_a_nul_is_found(path: Path, tokenizer: str) -> None:
    with closing(Index(path, tokenizer=tokenizer)) as index:
        index.add(a="before\0behind it", b="other")
        assert index.find("behind") == index.find("before") == index.find("before\0behind it") == ["a"]


def test_an_index_of_an_older_version_keeps_its_text_as_it_is(path: Path) -> None:
    """Its options name no form of text, and a shard is opened with the options that it was built with."""
    old: dict[str, Any] = {"tokenizer": "unicode61", "columns": None, "prefix": []}
    decomposed = unicodedata.normalize("NFD", "한국어")
    with closing(Index(path, old)) as index:
        index.add(a=decomposed)
        assert index.find(decomposed) == ["a"]
        assert index.find("한국어") == []


def test_a_form_of_text_that_is_unknown_is_refused() -> None:
    assert BACKEND.configure({})["text"] == "NFC"
    assert BACKEND.configure({"text": "raw"})["text"] == "raw"
    with pytest.raises(InvalidConfig, match="use NFC or raw"):
        BACKEND.configure({"text": "NFKC"})
