"""The patterns of `.gitignore`. The oracle is git itself; hostile patterns end at once."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import pytest

from shadowswitch import Engine
from shadowswitch.service.daemon.ignore import IgnoreRules
from shadowswitch.service.daemon.mirror import Mirror
from shadowswitch.service.daemon.patterns import CHARS_MAX, SLASHES_MAX, Pattern, pattern, verdict
from tests.support.engine_helpers import wait_until

PIECES = ["a", "b", "ab", "*", "**", "/", "?", "[ab]", "[!a]", "[b-c]", "[[:alpha:]]", "[]a]", "[a-]"]
PIECES += ["\\a", "\\*", "c", " ", "\\ ", "**/", "/**", "!", "#"]
NAMES = ["a", "b", "c", "ab", "*", "-", "]", " a", "#", "!"]


def by_git(folder: Path, line: str, paths: list[str]) -> set[str]:
    """The paths of which git says that a `.gitignore` with this line decides about them."""
    (folder / ".gitignore").write_text(f"{line}\n")
    command = ["git", "-C", str(folder), "check-ignore", "-v", "-n", "-z", "--no-index", "--stdin"]
    answered = subprocess.run(command, input="\0".join(paths).encode(), capture_output=True, check=False)
    fields = answered.stdout.decode().split("\0")
    return {fields[at + 3] for at in range(0, len(fields) - 1, 4) if fields[at + 2]}


def by_pattern(line: str, path: str) -> bool:
    """Does the pattern of a line decide about this path, or ignore a folder above it?"""
    try:
        one = pattern(line)
    except ValueError:
        return False
    found = [one] if one is not None else []
    names = path.split("/")
    above = any(verdict(found, "/".join(names[:count]), True) for count in range(1, len(names)))
    return above or verdict(found, path, False) is not None


@pytest.mark.skipif(shutil.which("git") is None, reason="git is the oracle")
def test_a_pattern_matches_what_git_matches(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    seed = 7
    print(f"seed {seed}")
    random_ = random.Random(seed)
    paths = sorted({"/".join(random_.choices(NAMES, k=random_.randint(1, 4))) for _ in range(200)})
    for _ in range(150):
        line = "".join(random_.choices(PIECES, k=random_.randint(1, 6)))
        git = by_git(tmp_path, line, paths)
        assert {path for path in paths if by_pattern(line, path)} == git, line


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("*a" * 16 + "b", "a" * 255),
        ("*a" * (CHARS_MAX // 2 - 1) + "b", "a" * 255),
        ("**/a/" * (SLASHES_MAX // 2) + "x", "a/" * 2000 + "y"),
        ("**/" + "*/" * (SLASHES_MAX - 1) + "x", "a/" * 2000 + "y"),
        ("**/*" + "[ab]*" * 190 + "/x", "a" * 255 + "/y"),
        ("?*" * (CHARS_MAX // 2 - 1) + "b", "a" * 255),
    ],
)
def test_a_hostile_pattern_ends(line: str, path: str) -> None:
    assert not Pattern(line).matches(path, False)


@pytest.mark.parametrize("line", ["!", "a\\", "[a", "[[:magic:]]", "a" * (CHARS_MAX + 1), "a/" * (SLASHES_MAX + 1)])
def test_an_invalid_pattern_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="invalid pattern"):
        pattern(line)


def test_a_folder_with_a_hostile_gitignore_is_mirrored(
    engine: Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / ".gitignore").write_text("*a" * 16 + "b\n" + "*.log\n" * 6000 + "kept.txt\n")
    for name in ("a" * 200, "kept.txt", "x.log"):
        (folder / name).write_text("text")
    mirror = Mirror(engine, "main", folder)
    mirror.start()
    wait_until(lambda: mirror.status().scans)
    mirror.stop()
    found = {record.id for record in engine.scan("main", "file")}
    assert found == {"a" * 200, "kept.txt", ".gitignore"}
    assert "the patterns after line 5000 have no effect" in caplog.text


def test_an_invalid_pattern_is_logged_once_for_each_state_of_its_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rules = IgnoreRules(tmp_path)

    def logged() -> list[str]:
        """What a scan logs: it reads every file again."""
        caplog.clear()
        rules.forget()
        assert rules.ignored(tmp_path / "x.log", False)
        return [record.getMessage().partition("invalid pattern ")[2][:5] for record in caplog.records]

    file = tmp_path / ".gitignore"
    file.write_text("[one\n*.log\n")
    assert logged() == ["'[one"]
    assert logged() == logged() == []
    file.write_text("[one\n[two\n*.log\n")
    assert logged() == ["'[two"]
    file.write_text("*.log\n")
    assert logged() == []
    file.write_text("[one\n*.log\n")
    assert logged() == ["'[one"], "it was gone in between"


def test_of_many_invalid_patterns_some_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / ".gitignore").write_text("".join(f"[{number}\n" for number in range(1000)) + "*.log\n")
    assert IgnoreRules(tmp_path).ignored(tmp_path / "x.log", False)
    assert len(caplog.records) == 21
    assert "980 more patterns are invalid" in caplog.text
