"""Hidden characters: escaped where a text is shown, refused in the name of a new branch."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowswitch import Engine, InvalidName, Put
from shadowswitch.model.names import check_new_branch, escaped
from tests.support import inside

HIDDEN = ["\u200b", "\u202e", "\u2066", "\ufeff", "\u00ad", "\u3164", "\u115f", "\u2800", "\U000e0041", "\u200d"]


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_an_escaped_text_is_one_line_without_commands_and_json_of_it_means_the_same(text: str) -> None:
    shown = escaped(text)
    assert len(shown.splitlines()) <= 1
    assert not any(ord(one) < 32 or 127 <= ord(one) < 160 for one in shown)
    assert escaped(shown) == shown
    assert json.loads(escaped(json.dumps(text, ensure_ascii=False))) == text


@pytest.mark.parametrize(
    "text", ["main", "feature/사용자 이름", "größe", "日本語\u3000名", "العربية", "e\u0301", "1 < 2 \\n"]
)
def test_a_visible_text_stays_as_it_is(text: str) -> None:
    assert escaped(text) == text


def test_an_undecodable_name_can_be_shown() -> None:
    assert escaped("caf\udce9") == "caf\\udce9"


@pytest.mark.parametrize("hidden", HIDDEN)
def test_a_new_branch_that_looks_like_another_one_is_refused(engine: Engine, hidden: str) -> None:
    with pytest.raises(InvalidName, match=f"invisible character U\\+{ord(hidden):04X}") as refused:
        engine.create_branch(f"ma{hidden}in")
    assert hidden not in str(refused.value)
    assert [branch.name for branch in engine.branches()] == ["main"]


@pytest.mark.parametrize("name", ["👩‍💻/fix", "1️⃣", "می‌خواهم", "한글 이름", "v1.2+x", "e\u0301", "\u0600 1"])
def test_a_name_of_visible_characters_stays_allowed(name: str) -> None:
    assert check_new_branch(name) == name


def test_a_branch_of_an_older_version_with_a_hidden_character_stays(engine: Engine) -> None:
    inside.transact(engine, lambda commit: commit.create_branch("ma\u200bin", 0.0))
    engine.write("ma\u200bin", [Put("file", "a", {"text": "text"})])
    assert engine.branch("ma\u200bin").head_lsn
    assert engine.check() == []
