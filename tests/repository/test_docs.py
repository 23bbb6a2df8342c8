"""The documents name what there is: every error has a line that says what to do; commands, settings, links exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

import pytest

from shadowswitch import Config, Engine
from shadowswitch.model import errors
from shadowswitch.model.errors import ShadowSwitchError
from tests.repository.test_tidy import ROOT, files, none_of, text_of

ERRORS = ("docs/what-if.md", "An error, by its name")
"""The document and the section with a row for each error."""
MANUAL = "docs/cli.md"
"""Generated from the commands; a test of the command line compares the two."""
COMMAND = re.compile(r"`shadowswitch\s+([a-z]+)\b([^`]*)`|^ {4}shadowswitch ([a-z]+)\b([^#\n]*)", re.MULTILINE)
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
EVERYWHERE = {"--help", "--debug"}
"""Options of every command that the manual names once."""
LINK = re.compile(r"\]\(([^)\s#]*)(?:#([^)\s]+))?\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def documents() -> list[str]:
    return [name for name in files() if name.endswith(".md") and name.startswith(("docs/", "README.md"))]


def section(text: str, heading: str) -> str:
    """The text below a heading, up to the next one of any level; "" if there is none."""
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
    return found[1] if found is not None else ""


def error_names() -> set[str]:
    return {
        name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, ShadowSwitchError)
    }


def test_every_error_has_a_line_that_says_what_to_do() -> None:
    name, heading = ERRORS
    text = section(text_of(name), heading)
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| `")]
    assert all(len(row) == 3 and row[2].strip() for row in rows), rows
    named = {error for row in rows for error in re.findall(r"`(\w+)`", row[0])} | {ShadowSwitchError.__name__}
    assert ShadowSwitchError.__name__ in text
    none_of(sorted(error_names() ^ named), f"{name}, {heading!r}: an error without a row, or a row without an error:")


def wrong_commands(text: str) -> Iterator[str]:
    """The commands and options of a document that the manual does not have."""
    for quoted, after, indented, rest in COMMAND.findall(text):
        command, arguments = quoted or indented, after or rest
        manual = section(text_of(MANUAL), f"shadowswitch {command}")
        if not manual:
            yield f"shadowswitch {command}"
        known = {*OPTION.findall(manual), *EVERYWHERE}
        yield from (f"shadowswitch {command} {option}" for option in OPTION.findall(arguments) if option not in known)


def wrong_settings(text: str) -> Iterator[str]:
    """The settings of a document that Config does not have."""
    for name in re.findall(r"`Config\.(\w+)", text):
        if name not in Config.__struct_fields__:
            yield f"Config.{name}"


def anchors(text: str) -> set[str]:
    """The anchors that a forge makes from headings: letters, digits, - and _; a space is a hyphen."""
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in HEADING.findall(text)}


def wrong_links(name: str, text: str) -> Iterator[str]:
    """The links of a document that lead to no file, or to no heading of a document."""
    for path, anchor in LINK.findall(text):
        if "://" in path:
            continue
        target = ROOT / PurePosixPath(name).parent / path
        if path and not target.exists():
            yield path
        elif anchor and anchor not in anchors(target.read_text(encoding="utf-8") if path else text):
            yield f"{path}#{anchor}"


def test_every_interface_names_the_way_past_a_refused_empty_index() -> None:
    assert all("`allow_empty`" in (call.__doc__ or "") for call in (Engine.switch, Engine.rebuild))
    for command in ("switch", "build", "schedule"):
        assert "`--allow-empty`" in section(text_of(MANUAL), f"shadowswitch {command}"), command
    rows = [
        line for line in text_of("docs/http.md").splitlines() if line.startswith("| `POST /shadow-index/{id}/switch`")
    ]
    assert [row for row in rows if "{allow_empty}" in row] == rows != []
    body = re.search(r"^class Switch\(.*?^class ", text_of("service/http/bodies/shadows.py"), re.MULTILINE | re.DOTALL)
    assert body is not None
    assert "`allow_empty`" in body[0], "the schema of HTTP has the docstring of a body"
    for name in ("docs/settings.md", "docs/events.md", "docs/what-if.md"):
        assert "`allow_empty" in text_of(name), name


def test_documents_name_commands_settings_and_headings_that_are_there() -> None:
    offenders = [
        f"{name}: {wrong}"
        for name in documents()
        for found in (wrong_commands(text_of(name)), wrong_settings(text_of(name)), wrong_links(name, text_of(name)))
        for wrong in found
    ]
    none_of(offenders, "a reader tries it, and it is not there:")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("run `shadowswitch check --repair --data DATA`", 0),
        ("run `shadowswitch\ncheck`", 0),
        ("run `shadowswitch mend`", 1),
        ("run `shadowswitch check --mend`", 1),
        ("    shadowswitch serve ./docs --seting ./x.toml    # --other", 1),
        ("`Config.soak_s` and `Config.soak_ms`", 1),
        ("[there](what-if.md#an-error-by-its-name), [here](#a-heading)\n\n## A heading", 0),
        ("[gone](gone.md), [gone](what-if.md#no-such-heading)", 2),
    ],
)
def test_a_name_that_is_not_there_is_seen(text: str, found: int) -> None:
    wrong = [*wrong_commands(text), *wrong_settings(text), *wrong_links("docs/events.md", text)]
    assert len(wrong) == found, wrong
