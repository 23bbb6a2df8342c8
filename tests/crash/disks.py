"""Disks for these tests: an image file, a loop device, a mount. The end of the `with` block undoes all of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path

from tests.crash.recorder import DISK
from tests.crash.running import finish, start, wait_until

TOOLS = ("losetup", "mount", "umount", "mkfs.ext4")
COMMAND_S = 60.0
_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def command(*words: str | Path) -> str:
    """Run a tool; returns its output. Raises CalledProcessError."""
    line = [str(word) for word in words]
    done = subprocess.run(line, capture_output=True, text=True, timeout=COMMAND_S, env={**os.environ, "PATH": _PATH})
    if done.returncode:
        raise OSError(f"{' '.join(map(str, words))}: {done.stderr.strip()}")
    return done.stdout.strip()


def missing(tools: Sequence[str] = TOOLS) -> str:
    """Why no file system can be made and mounted here; "" when it can."""
    if os.geteuid() != 0:
        return "mounting needs root"
    absent = [tool for tool in tools if shutil.which(tool, path=_PATH) is None]
    if absent:
        return f"not installed: {', '.join(absent)}"
    try:
        command("losetup", "-f")
    except OSError as error:
        return f"no loop device: {error}"
    return ""


def missing_for_recorder() -> str:
    """Why a recording disk cannot be made here; "" when it can."""
    reason = missing((*TOOLS, "fusermount3"))
    if reason:
        return reason
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "/dev/fuse cannot be opened"
    try:
        import_module("mfusepy")
    except (ImportError, OSError) as error:
        return f"mfusepy cannot be used: {error}"
    return ""


def make_image(path: Path, size_bytes: int) -> None:
    """An empty ext4, with nothing left to be initialised in the background."""
    with path.open("wb") as file:
        file.truncate(size_bytes)
    command("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard", path)


@contextmanager
def mounted(disk: Path, mountpoint: Path) -> Iterator[Path]:
    """Mount an image (or a file that behaves like one) by a loop device."""
    mountpoint.mkdir(exist_ok=True)
    with ExitStack() as undo:
        device = command("losetup", "-f", "--show", disk)
        undo.callback(_quietly, "losetup", "-d", device)
        command("mount", "-t", "ext4", "-o", "nodiscard", device, mountpoint)
        undo.callback(_unmount, mountpoint)
        yield mountpoint


@contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[Path]:
    """A mounted ext4 of that size."""
    image = folder / "disk.img"
    make_image(image, size_bytes)
    with mounted(image, folder / "disk") as mountpoint:
        yield mountpoint


@contextmanager
def recorded_disk(folder: Path, image: Path, log: Path) -> Iterator[Path]:
    """A mounted ext4 on a recording disk; the log is complete when the block ends."""
    fuse = folder / "fuse"
    fuse.mkdir()
    words = [sys.executable, "-m", "tests.crash.recorder", str(fuse), str(image), str(log)]
    with (folder / "recorder.out").open("w") as output, ExitStack() as undo:
        process = start(words, {}, stdout=output, stderr=output)
        undo.callback(finish, process)
        undo.callback(_quietly, "fusermount3", "-u", fuse)

        def is_there() -> bool:
            if process.poll() is not None:
                raise OSError(f"the recorder ended: {(folder / 'recorder.out').read_text()}")
            return (fuse / DISK).exists()

        wait_until(is_there, "the recording disk is there")
        yield undo.enter_context(mounted(fuse / DISK, folder / "recorded"))


def _quietly(*words: str | Path) -> None:
    try:
        command(*words)
    except OSError:
        pass


def _unmount(mountpoint: Path) -> None:
    try:
        command("umount", mountpoint)
    except OSError:
        command("umount", "-l", mountpoint)
