"""Words that are gone, as a test: a term has one name (docs/glossary.md), and a sentence names its subject."""

from __future__ import annotations

import re

import pytest

from tests.repository.test_tidy import LAYERS, files, none_of, text_of

CHECKED = (*(f"{layer}/" for layer in LAYERS), "benchmarks/", "docs/", "tests/", ".ci/", "README.md", "CHANGELOG.md")
CHECKED += ("CONTRIBUTING.md", "Makefile", "pyproject.toml")
"""Folders and files whose words are checked."""
HISTORY = ("docs/decisions/", "benchmarks/RESULTS.md", "benchmarks/plots/", "tests/repository/test_tidy_words.py")
"""Records of the past, and this list of words, keep their words."""
TEXTS = (".md", ".py", ".html", ".js", ".css", ".toml", ".service", "Makefile", ".ci/run")

GONE = {
    r"who(ever|m|mever)?": "name the actor: the caller, the holder, the operator",
    r"(those|anybody|somebody|everybody) whose": "name the actor; `whose` is for things",
    r"he|him|his|himself": "name the actor, or say `it`",
    r"told|tells": "says, names, reports, has",
    r"nobody|somebody|anybody": "name the actor: no caller, another writer",
    r"house|_house": "EngineContext, or the object that is meant",
    r"shelf": "LiveIndex",
    r"seal|seals|sealing|sealed": "turn, commit; `sealed_ms` and `sealed_lsn` are names",
    r"lead_over|lead_away_from|leads? over|led over|led away": "repoint; the live pointer moves",
    r"astray": "pending",
    r"bring_on|brings? on|bringing on|brought on": "catch up",
    r"nobody_sees_less|ready_lsn": "read_floor_lsn",
    r"outsiders?": "programs outside, readers of other processes",
    r"piles?": "flush batch",
    r"upkeep": "daemon",
    r"keepers?|lockkeeper|indexkeeper": "BranchLocks, IndexReconciler",
    r"rechecker": "Scrubber",
    r"condemn(s|ed|ing)?": "mark_unsound, unsound",
    r"tend|tends|tended": "compact",
    r"abreast": "caught up",
    r"pass_over": "advance_to",
    r"retold": "with_build_progress",
    r"lockalarm": "LockTimer",
    r"chores": "CleanupQueue",
}
"""Pattern of whole words, in any case -> what to say instead."""

NAMES = (
    "`sealed`",
    '"sealed"',
    "switch.sealed",
    "switch-sealed.svg",
    "/upkeep",
    '"upkeep"',
    "def upkeep(host",
    "ready, upkeep, schema",
    "generation.condemned",
    "shadowswitch-rechecker",
    "nobody asks for größe",
)
"""Public names, stored formats and file names that hold a word. They stay, each by its exact name."""

MESSAGES = (
    "ms of sealed time",
    "(sealed)",
    '"sealed ms"',
    "sealed milliseconds",
    "Sealed, median",
    "sealed ${milliseconds(",
    "nobody here can tell (",
    "owner or 'somebody'",
)
"""Texts of commands, errors and the dashboard that hold a word. They are as users know them."""

WORD = {re.compile(rf"(?<![\w])(?:{words})(?![\w])", re.IGNORECASE): instead for words, instead in GONE.items()}


def _gone(line: str) -> list[str]:
    """The words of a line that are gone, with what to say instead."""
    for name in (*NAMES, *MESSAGES):
        line = line.replace(name, "")
    return [f"{found.group()!r}: {instead}" for word, instead in WORD.items() for found in word.finditer(line)]


def _checked() -> list[str]:
    return [n for n in files() if n.startswith(CHECKED) and n.endswith(TEXTS) and not n.startswith(HISTORY)]


def test_words_that_are_gone_do_not_come_back() -> None:
    offenders = [
        f"{name}:{number}: {word}"
        for name in _checked()
        for number, line in enumerate(text_of(name).splitlines(), 1)
        for word in _gone(line)
    ]
    none_of(offenders, "one thing has one name, and a reader looks it up in docs/glossary.md:")


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("Whoever holds it waits.", 1),
        ("an owner told it to somebody", 2),
        ("a lock whose holder died", 0),
        ("those whose turn came", 1),
        ("`sealed_ms` of `switch.sealed`, and GET /upkeep", 0),
        ("the branch is sealed", 1),
        ("the whole shelf of the lighthouse", 1),
        ("generation.condemned", 0),
    ],
)
def test_a_word_is_seen_and_a_name_is_not(line: str, found: int) -> None:
    assert len(_gone(line)) == found


def test_every_exception_is_still_needed() -> None:
    everything = "\n".join(text_of(name) for name in _checked())
    none_of([name for name in (*NAMES, *MESSAGES) if name not in everything], "no checked file has it any more:")
