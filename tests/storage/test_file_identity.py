"""`identity` names the file that `os.stat` finds, and raises what `os.stat` raises."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from shadowswitch.storage import disk
from shadowswitch.storage.disk import Identity, identity, of_descriptor


def by_stat(path: Path | str) -> Identity:
    found = os.stat(path)
    return found.st_dev, found.st_ino


@pytest.mark.parametrize("path", ["/", "/dev/null", "/proc/self/status", "/tmp"])
def test_files_of_several_file_systems_have_the_identity_of_stat(path: str) -> None:
    assert identity(path) == by_stat(path)


def test_a_file_has_one_identity_by_path_by_link_and_by_descriptor(tmp_path: Path) -> None:
    file, link = tmp_path / "f\udcffile", tmp_path / "link"
    file.write_text("x")
    link.symlink_to(file)
    with file.open() as opened:
        assert identity(str(file)) == identity(str(link)) == of_descriptor(opened.fileno()) == by_stat(file)


def test_a_file_that_replaces_another_has_another_identity(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text("x")
    second.write_text("x")
    before = identity(str(first))
    second.rename(first)
    assert identity(str(first)) != before


@pytest.mark.parametrize(("name", "error"), [("none", FileNotFoundError), ("file/below", NotADirectoryError)])
def test_what_cannot_be_found_raises_the_error_of_stat(tmp_path: Path, name: str, error: type[OSError]) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(error) as caught:
        identity(str(tmp_path / name))
    assert caught.value.filename == str(tmp_path / name)


def lets_go(call: Callable[[str], Identity], calls: int) -> bool:
    """Did another thread run while this one made that many calls?"""
    counted, ends = [0], threading.Event()

    def count() -> None:
        while not ends.is_set():
            counted[0] += 1

    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.5)  # until then a thread goes on, unless it lets go of the interpreter itself
    thread = threading.Thread(target=count)
    try:
        thread.start()
        before = counted[0]
        return any(call("/") and counted[0] > before for _ in range(calls))
    finally:
        ends.set()
        sys.setswitchinterval(interval)
        thread.join()


@pytest.mark.skipif(disk._identity is disk._by_stat, reason="libc has no statx")
def test_the_interpreter_is_kept_during_the_call() -> None:
    assert lets_go(disk._by_stat, 100_000)
    assert not lets_go(identity, 5_000)
