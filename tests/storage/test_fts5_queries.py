"""What an fts5 index makes of the query language, and the options that change that: parts of words, synonyms."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shadowswitch.model.errors import InvalidConfig
from shadowswitch.model.search.query import Either, Every, Node, Term
from shadowswitch.storage.backends.fts5.options import Layout
from shadowswitch.storage.backends.fts5.query import tree
from shadowswitch.storage.backends.protocol import Reuse
from tests.support.fts5_index import BACKEND, Index


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shard-000"


LETTERS = ["a", "ab", "abc", "abcd", "b", "bc", "xyz", '"ab x"']
QUERIES = st.recursive(
    st.sampled_from(LETTERS),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda two: f"({two[0]} OR {two[1]})"),
        st.tuples(inner, inner).map(lambda two: f"({two[0]} {two[1]})"),
        st.tuples(inner, inner).map(lambda two: f"({two[0]} NOT {two[1]})"),
    ),
    max_leaves=8,
)


def _holds(node: Node | None, text: str, contains: Any) -> bool:
    if node is None:
        return False
    if isinstance(node, Term):
        return bool(contains(node, text))
    if isinstance(node, Either):
        return any(_holds(part, text, contains) for part in node.parts)
    return all(_holds(part, text, contains) for part in node.parts) and not any(
        _holds(part, text, contains) for part in node.without
    )


def _in_words(term: Term, text: str) -> bool:
    words, sought = text.split(), term.text.split()
    return any(words[start : start + len(sought)] == sought for start in range(len(words)))


@pytest.mark.parametrize("tokenizer", ["unicode61", "unicode61 cjk", "trigram"])
@given(texts=st.lists(st.lists(st.sampled_from(LETTERS[:7]), max_size=5), min_size=1, max_size=8), query=QUERIES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_query_of_operators_finds_what_its_tree_says(
    tmp_path_factory: pytest.TempPathFactory, tokenizer: str, texts: list[list[str]], query: str
) -> None:
    with closing(Index(tmp_path_factory.mktemp("index") / "shard-000", tokenizer=tokenizer)) as index:
        held = {f"r{number}": " ".join(words) for number, words in enumerate(texts)}
        index.add(**held)
        contains = (lambda term, text: term.text in text) if tokenizer == "trigram" else _in_words
        node = tree(query, Layout(index.options))
        assert sorted(index.find(query, 100)) == [id for id, text in held.items() if _holds(node, text, contains)]


@pytest.mark.parametrize("tokenizer", ["unicode61", "trigram", "porter cjk code"])
def test_a_term_can_be_restricted_to_a_column(path: Path, tokenizer: str) -> None:
    with closing(Index(path, tokenizer=tokenizer, columns=["title", "body"])) as index:
        index.add(a={"title": "event loop", "body": "the timer"}, b={"title": "timer", "body": "an event loop"})
        assert index.find("title:event") == ["a"]
        assert index.find('body:"event loop"') == ["b"]
        assert sorted(index.find("event timer")) == ["a", "b"]
        assert index.find("event -title:timer") == ["a"]
        assert index.find("title:(event OR nothing) timer") == ["a"]
        assert index.find("title:ev*") == ["a"]
        assert index.find("other:event") == []  # no column, so these are words: "other event"


def test_a_short_word_is_looked_for_in_its_column(path: Path) -> None:
    with closing(Index(path, tokenizer="trigram", columns=["title", "body"])) as index:
        index.add(a={"title": "go", "body": "rust"}, b={"title": "rust", "body": "go"})
        assert index.find("title:go") == ["a"]
        assert index.find("rust -title:go") == ["b"]
        assert sorted(index.find("title:go OR body:go")) == ["a", "b"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("c++", ["cpp"]),
        ("C++", ["cpp"]),
        ("c#", ["sharp"]),
        ("c", ["c", "cpp", "sharp"]),
        ("c++ OR c#", ["cpp", "sharp"]),
        ("language -c++", ["c", "sharp"]),
        ("ann@example.org", ["mail"]),
        ("example.org", ["mail"]),
        ("/usr/local/bin", ["path"]),
        ("usr/local", ["path"]),
        ("3.14", ["number"]),
        ("max_retry_count", ["snake"]),
        ("retry", ["snake"]),
        ("utf-8", ["coding"]),
    ],
)
def test_names_of_languages_addresses_paths_and_numbers_are_found(path: Path, query: str, expected: list[str]) -> None:
    with closing(Index(path)) as index:
        index.add(cpp="the language C++ (17)", sharp="the language C#", c="the language C", mail="ask ann@example.org")
        index.add(path="in /usr/local/bin/python", number="pi is 3.14159, or 3.14", snake="max_retry_count = 3")
        index.add(coding="UTF-8, not UTF-16")
        assert sorted(index.find(query)) == expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("user", ["camel", "snake", "text"]),
        ("userName", ["camel", "snake", "text"]),
        ("getUserName", ["camel"]),
        ("get_user_name", ["camel"]),
        ("username", []),
        ("http", ["acronym"]),
        ("server", ["acronym"]),
        ("HTTPServer", ["acronym"]),
        ("ser*", ["acronym"]),
        ("user -get", ["snake", "text"]),
        ("name http", []),
        ("name2", ["digit"]),
    ],
)
def test_with_code_an_identifier_is_found_by_its_parts(path: Path, query: str, expected: list[str]) -> None:
    with closing(Index(path, tokenizer="code")) as index:
        assert index.options["tokenizer"] == "unicode61 code"
        index.add(camel="call getUserName()", snake="set user_name", text="the user name", acronym="a HTTPServer runs")
        index.add(digit="Name2Id")
        assert sorted(index.find(query)) == expected
    assert BACKEND.check(path, index.options) == []


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("사용자", ["first", "second"]),
        ("용자", ["first", "second"]),
        ("렌더링", ["whole", "inner"]),
        ("사용자 권한", ["second"]),
        ("권한을", ["second"]),
        ("API문서", ["api"]),
        ("자권", []),  # of two words
        ("東京", ["tokyo"]),
        ("京都", ["tokyo"]),
        ("都", ["tokyo"]),
        ("東都", []),
        ('"東京都"', ["tokyo"]),
        ("ガイド", ["guide"]),
        ("의", []),  # one syllable inside of a word is no word
        ("사용자 -권한", ["first"]),
    ],
)
def test_with_cjk_text_is_found_inside_of_words(path: Path, query: str, expected: list[str]) -> None:
    with closing(Index(path, tokenizer="cjk", columns=["body"])) as index:
        index.add(
            first="사용자가 로그인한다", second="그 사용자 권한을 확인", inner="리렌더링이 된다", whole="렌더링 과정"
        )
        index.add(api="API 문서의 예", tokyo="東京都に行く", guide="ユーザーガイド")
        assert sorted(index.find(query)) == sorted(expected)
        record = index.reader.get("t", "first")
        assert record is not None
        assert record.fields == {"body": "사용자가 로그인한다"}
    assert BACKEND.check(path, index.options) == []


def test_a_hit_by_its_words_comes_before_one_by_their_parts(path: Path) -> None:
    with closing(Index(path, tokenizer="cjk")) as index:
        index.add(a="리렌더링 리렌더링 리렌더링", b="렌더링 하나", c="아무것도 아닌 것")
        assert index.find("렌더링") == ["b", "a"]


def test_the_parts_of_a_changed_and_a_deleted_record_are_gone(path: Path) -> None:
    with closing(Index(path, tokenizer="cjk code")) as index:
        index.add(a="리렌더링 getUser", b="리렌더링")
        index.add(a="다른 것")
        assert index.find("렌더링") == ["b"]
        assert index.find("user") == []
    assert BACKEND.check(path, index.options) == []


def test_synonyms_and_stop_words_are_settings_of_the_query(path: Path) -> None:
    options: dict[str, Any] = {
        "synonyms": [["js", "JavaScript", "ecma script"], ["로그인", "sign in"]],
        "stop_words": ["The", "of"],
    }
    with closing(Index(path, **options)) as index:
        assert index.options["synonyms"] == [["ecma script", "javascript", "js"], ["sign in", "로그인"]]
        index.add(
            a="JS code", b="ecma script", c="script of ecma", d="javascript", ko="sign in here", en="로그인이 된다"
        )
        assert sorted(index.find("js")) == sorted(index.find("JavaScript")) == ["a", "b", "d"]
        assert index.find('"js"') == ["a"]
        assert sorted(index.find("로그인")) == ["en", "ko"]
        assert index.find("script of the ecma") == index.find("ecma of script") == index.find("the script ecma")
        assert sorted(index.find("the script ecma")) == ["b", "c"]
        assert index.find("of") == ["c"]  # a query of stop words alone is one of words
        assert index.find('"script of ecma"') == ["c"]
        assert index.find("js -(ecma OR javascript)") == ["a"]
        with closing(BACKEND.open_reader([path], BACKEND.configure({}))) as plain:
            assert [hit.id for hit in plain.search("js", 10)] == ["a"]
    old, new = BACKEND.configure({}), BACKEND.configure(options)
    assert BACKEND.plan(old, new) is BACKEND.plan(new, old) is Reuse.SETTINGS
    assert BACKEND.plan(new, new) is Reuse.COPY


def test_what_an_older_version_configured_is_the_same_today() -> None:
    assert BACKEND.configure({}) == {"tokenizer": "unicode61", "columns": None, "prefix": [], "text": "NFC"}
    assert BACKEND.configure({"cjk": "prefix", "synonyms": [], "stop_words": []}) == BACKEND.configure({})
    for name in ("cjk", "code", "porter cjk code"):
        configured = BACKEND.configure({"tokenizer": name})
        assert BACKEND.configure(configured) == configured


def test_a_word_with_hangul_can_be_a_whole_word(path: Path) -> None:
    with closing(Index(path, cjk="word")) as index:
        index.add(a="사용자가", b="사용자")
        assert index.find("사용자") == ["b"]
        assert index.find("사용자*") == ["a", "b"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"cjk": "bigram"}, {"cjk": 1}, {"synonyms": "js"}, {"synonyms": [["js"]]}, {"synonyms": [["js", "JS"]]},
        {"synonyms": [["js", ""]]}, {"synonyms": [["js", 1]]}, {"synonyms": [["a", "b"]] * 1001}, {"stop_words": "the"},
        {"synonyms": [["js", 'a"b']]}, {"stop_words": ["x" * 101]}, {"stop_words": ["\ud800"]}, {"stop_words": [None]},
        {"synonyms": [[str(number) for number in range(21)]]}, {"tokenizer": "trigram cjk"},
        {"tokenizer": "ascii code"}, {"tokenizer": "porter trigram"}, {"tokenizer": "bigram"},
    ],
)  # fmt: skip
def test_wrong_options_of_the_query_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfig):
        BACKEND.configure(wrong)


def test_files_with_parts_of_words_share_nothing_with_files_without() -> None:
    plain, cjk = BACKEND.configure({}), BACKEND.configure({"tokenizer": "cjk"})
    assert BACKEND.plan(plain, cjk) is BACKEND.plan(cjk, plain) is Reuse.NOTHING
    assert BACKEND.plan(cjk, BACKEND.configure({"tokenizer": "porter cjk"})) is Reuse.REINDEX


DEEP = {
    "alternating": (("(w{n} OR ", "(w{n} "), ")"),
    "exclusions of alternatives": (("w{n} -(v{n} OR ",), ")"),
    "exclusions in groups": (("(w{n} NOT (v{n} OR ",), "))"),
    "alternatives of words side by side": (("w{n} OR (v{n} ",), ")"),
}


@pytest.mark.parametrize("tokenizer", ["unicode61", "porter cjk code", "trigram"])
@pytest.mark.parametrize("form", DEEP)
@pytest.mark.parametrize("depth", [2, 6, 7, 16, 60])
def test_a_query_of_any_depth_has_an_answer(path: Path, tokenizer: str, form: str, depth: int) -> None:
    """The parsers of SQLite and FTS5 have a stack of 100 places; what overflows it was taken for damage."""
    levels, end = DEEP[form]
    opened = "".join(levels[number % len(levels)].replace("{n}", str(number % 9)) for number in range(depth))
    options: dict[str, Any] = {"columns": ["title", "body"], "synonyms": [["w1", "u1 t1"], ["v2", "u2 t2"]]}
    with closing(Index(path, tokenizer=tokenizer, **options)) as index:
        index.add(a={"body": "w0 v0 w1 x"}, b={"title": "u1 t1 v3"})
        assert set(index.find(f"{opened}x{end * depth}")) <= {"a", "b"}


def test_the_tree_of_a_query_has_its_operators() -> None:
    found = tree("a (b OR c) -d", Layout(BACKEND.configure({"stop_words": ["a"]})))
    assert found == Every((Either((Term("b"), Term("c"))),), (Term("d"),))
