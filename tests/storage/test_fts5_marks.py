"""Where an fts5 index finds a query in a text: the places are those of the index."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shadowswitch.model.search.snippets import Snippet
from shadowswitch.storage.backends.fts5.marks import MARKS_MAX, TEXT_CHARS_MAX, marks
from shadowswitch.storage.backends.fts5.options import Layout
from tests.support.fts5_index import BACKEND, Index


def marked(query: str, fields: dict[str, Any], **build_config: Any) -> dict[str, str]:
    found = marks(query, Layout(BACKEND.configure(build_config)), [fields])
    return {name: Snippet(text, places).marked("[", "]") for name, (text, places) in found[0].items()}


@pytest.mark.parametrize(
    ("query", "tokenizer", "text", "shown"),
    [
        ("loop", "unicode61", "a Loop, two loops", "a [Loop], two loops"),
        ("loop", "porter", "a Loop, two loops", "a [Loop], two [loops]"),
        ("lo*", "unicode61", "a Loop, two loops", "a [Loop], two [loops]"),
        ('"two loops"', "unicode61", "loops: two loops", "loops: [two loops]"),
        ("cafe", "unicode61", "Café", "[Café]"),
        ("a OR b -c", "unicode61", "a b c", "[a] [b] c"),
        ("user_name", "unicode61", "set user_name = 1", "set [user_name] = 1"),
        ("c++", "unicode61", "c, C++ and C#", "c, [C++] and C#"),
        ("사용자", "unicode61", "그 사용자가 비사용자", "그 [사용자가] 비사용자"),
        ("사용자", "cjk", "그 사용자가 비사용자", "그 [사용자가] 비[사용자]"),
        ("京都", "cjk", "東京都に行く", "東[京都]に行く"),
        ("userName", "code", "getUserName(user)", "get[UserName](user)"),
        ("ser", "trigram", "a User", "a U[ser]"),
        ("us", "trigram", "a User", "a [Us]er"),
        ("absent", "unicode61", "a User", None),
        ("", "unicode61", "a User", None),
        ("++", "unicode61", "a ++", None),
    ],
)
def test_the_places_of_a_query(query: str, tokenizer: str, text: str, shown: str | None) -> None:
    expected = shown.replace("[UserName]", "[User][Name]") if shown is not None else None
    assert marked(query, {"t": text}, tokenizer=tokenizer) == ({"t": expected} if expected is not None else {})


def test_each_field_has_its_own_places() -> None:
    fields = {"title": "Event loop", "body": "a loop", "tags": ["loops", {"x": "loop"}], "n": 3, "empty": ""}
    assert marked("loop", fields) == {"title": "Event [loop]", "body": "a [loop]", "tags": "loops\n[loop]"}
    assert marked("loop", fields, columns=["title", "n"]) == {"title": "Event [loop]"}
    assert marked("title:loop event", fields, columns=["title", "body"]) == {"title": "[Event] [loop]"}


def test_synonyms_are_marked_and_stop_words_are_not() -> None:
    options = {"synonyms": [["js", "ecma script"]], "stop_words": ["the"]}
    assert marked("the js", {"t": "the JS, an ecma script"}, **options) == {"t": "the [JS], an [ecma script]"}


def test_texts_are_composed_and_strange_characters_do_no_harm() -> None:
    assert marked("한국어", {"t": "\u1112\u1161\u11ab\u1100\u116e\u11a8\u110b\u1165"}) == {"t": "[한국어]"}
    assert marked("a", {"t": "\x02a\x03 \ud800 \0a"}) == {"t": " [a]  ?  [a]"}


def test_what_is_marked_of_a_long_text_is_its_beginning() -> None:
    text, places = marks("a", Layout(BACKEND.configure({})), [{"t": "a " * 100_000}])[0]["t"]
    assert len(text) == TEXT_CHARS_MAX
    assert len(places) == MARKS_MAX
    assert marks("b", Layout(BACKEND.configure({})), [{"t": "a " * 50_000 + "b"}]) == [{}]


WORDS = st.lists(
    st.sampled_from(["run", "runs", "Getter", "getUser", "사용자가", "리렌더링", "東京都"]), min_size=1, max_size=6
)


@pytest.mark.parametrize("tokenizer", ["porter", "porter cjk code", "trigram"])
@given(texts=st.lists(WORDS.map(" ".join), min_size=1, max_size=5), query=st.sampled_from(
    ["run", "user", "ge*", "get OR 사용자", "렌더링", "京都", '"run runs"', "ru", "user -사용자"]
))  # fmt: skip
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_hit_has_a_place(
    tmp_path_factory: pytest.TempPathFactory, tokenizer: str, texts: list[str], query: str
) -> None:
    with closing(Index(tmp_path_factory.mktemp("index") / "shard-000", tokenizer=tokenizer)) as index:
        held = {f"r{number}": text for number, text in enumerate(texts)}
        index.add(**held)
        for id in index.find(query, 100):
            assert index.reader.marks(query, [{"body": held[id]}])[0], (query, held[id])


def test_a_reader_marks_as_its_index_reads(tmp_path: Path) -> None:
    with closing(Index(tmp_path / "shard-000", tokenizer="porter")) as index:
        assert index.reader.marks("running", [{"body": "it runs"}, {"body": "it walks"}]) == [
            {"body": ("it runs", [(3, 7)])},
            {},
        ]
