"""Copies of the library with edits in its source text: mutants, planted bugs.

An edit quotes a text that its file has exactly once. An edit that does not fit the source, or that makes no Python,
raises: a mutant must fail for its own reason.
"""

from __future__ import annotations

import re
import shutil
import tomllib
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[2]

Edits = dict[str, list[tuple[str, str]]]
"""By file below the root: pairs of the text to replace, which the file has once, and the text instead."""

_OUT_OF_DATE = re.compile(r"NameError: name|has no attribute '_|ModuleNotFoundError: |ImportError: cannot import")


def edited(file: str, text: str, changes: Iterable[tuple[str, str]]) -> str:
    """The text of a file after its edits. Raises AssertionError for an edit that does not fit."""
    for old, new in changes:
        count = text.count(old)
        assert count == 1, f"{file} has {count} times {old!r}, not once: bring the edit up to date"
        text = text.replace(old, new)
    try:
        compile(text, file, "exec")
    except SyntaxError as error:
        raise AssertionError(f"{file} is no Python after its edits: {error}") from error
    return text


def assert_fits(edits: Edits) -> None:
    """Raise AssertionError if an edit does not fit the source."""
    for file, changes in edits.items():
        edited(file, (ROOT / file).read_text(), changes)


def copy_of_the_library(target: Path, edits: Edits) -> Path:
    """Copy the packages as they are installed, and edit the copy; returns the entry for PYTHONPATH."""
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    for package, folder in setup["package-dir"].items():
        place = target.joinpath(*package.split("."))
        place.mkdir(parents=True, exist_ok=True)
        for file in (ROOT / folder).glob("*.py"):
            shutil.copy(file, place / file.name)
    for name, changes in edits.items():
        path = target / "shadowswitch" / name
        path.write_text(edited(name, path.read_text(), changes))
    return target


def assert_of_its_own(output: str) -> None:
    """Raise AssertionError if an edited library failed because the edit uses a name that does not exist."""
    found = [line for line in output.splitlines() if _OUT_OF_DATE.search(line)]
    assert found == [], "the edit uses a name that does not exist: bring it up to date"
