"""What a stranger does to a living host and its directory: every kind of trouble of the random run.

A limit is lifted again and a moved directory is put back. What a stranger would not put back stays as it is: a removed
or replaced lock file, generations that were swapped, a folder full of odd entries.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterable
from hashlib import blake2b
from pathlib import Path

from tests.crash.clocks import Clocks
from tests.crash.lacks import Lack
from tests.crash.running import Scene

ROOM_BYTES = 32 << 20
"""Too little for a map or two threads, enough for Python itself: `Thread.start` of CPython waits for ever when the new
thread cannot allocate its first bytes."""
PAUSE = threading.Event()
"""Never set: only time ends its waits."""
DAY_S = 86_400.0
SUSPENDED_S = (1.5, 20.0, 90.0, 700.0, 3600.0, 6 * 3600.0)
LOSES = {
    "a moved directory", "a swapped directory", "a swapped catalog", "a removed LOCK", "a replaced LOCK",
    "a removed lock.mdb", "a replaced lock.mdb",
}  # fmt: skip
"""Behind these a host writes nothing more: its directory is not its own."""


class Deck:
    """The kinds of trouble in random order, each as often as the others."""

    def __init__(self, kinds: Iterable[str], chance: random.Random) -> None:
        self._kinds = sorted(kinds)
        self._chance = chance
        self._left: list[str] = []

    def draw(self, happens: Callable[[str], bool]) -> str:
        """The first kind that can happen now; "" if none can. A kind that cannot happen now comes first next time."""
        if not self._left:
            self._left += self._chance.sample(self._kinds, len(self._kinds))
        for kind in list(self._left):
            if happens(kind):
                self._left.remove(kind)
                return kind
        self._left += self._chance.sample(self._kinds, len(self._kinds))
        return ""


class Stranger:
    """What happens to one host, at moments of the caller's choice."""

    def __init__(
        self, scene: Scene, host: subprocess.Popen[str], output: Path, folder: Path, chance: random.Random
    ) -> None:
        self.scene = scene
        self.host = host
        self.output = output
        self.folder = folder
        self.chance = chance
        self.clocks = Clocks(scene.folder / "clocks")
        self.lack = Lack(host.pid, scene.folder / "no threads")

    def happens(self, kind: str) -> bool:
        """One trouble of that kind; False if there is nothing that it could happen to."""
        return KINDS[kind](self)

    def lives(self) -> bool:
        """Has the host of this round opened the directory?"""
        return "lives" in self.output.read_text()

    # -- limits of the operating system ----------------------------------------------------------------------------

    def open_files(self) -> bool:
        """No more than a few descriptors more."""
        try:
            present = len(os.listdir(f"/proc/{self.host.pid}/fd"))
        except FileNotFoundError:
            return False
        return self._limited(resource.RLIMIT_NOFILE, present + self.chance.randrange(8))

    def address_space(self) -> bool:
        """No more than `ROOM_BYTES` more."""
        try:
            pages = int(Path(f"/proc/{self.host.pid}/statm").read_text().split()[0])
        except (FileNotFoundError, IndexError):
            return False
        return self._limited(resource.RLIMIT_AS, pages * os.sysconf("SC_PAGE_SIZE") + ROOM_BYTES)

    def file_size(self) -> bool:
        """No file may become much larger than the largest of now; the ledger may."""
        return self._limited(resource.RLIMIT_FSIZE, self._largest_file() + 20_000)

    def _limited(self, which: int, limit: int) -> bool:
        try:
            _, hard = resource.prlimit(self.host.pid, which)
            resource.prlimit(self.host.pid, which, (limit, hard))
            PAUSE.wait(self.chance.uniform(0.05, 0.5))
            resource.prlimit(self.host.pid, which, (hard, hard))
        except ProcessLookupError:
            return False
        return True

    def threads(self) -> bool:
        """No thread and no process more, or one. Sometimes the workers die, so that the host needs other ones."""
        try:
            with self.lack.lacking(self.chance.choice([0, 0, 1])):
                if self.chance.random() < 0.5:
                    self.kill_workers()
                PAUSE.wait(self.chance.uniform(0.3, 1.5))
        except ProcessLookupError:
            return False
        return True

    def _largest_file(self) -> int:
        sizes = [self.scene.ledger.stat().st_size + 500_000 if self.scene.ledger.exists() else 1_000_000]
        for file in self.scene.data.rglob("*"):
            try:
                sizes.append(file.stat().st_size if file.is_file() else 0)
            except FileNotFoundError:
                continue
        return max(sizes)

    # -- processes and clocks --------------------------------------------------------------------------------------

    def stopped(self, pids: list[int]) -> bool:
        """These processes stand still for a while."""
        stopped = [pid for pid in pids if _send(pid, signal.SIGSTOP)]
        PAUSE.wait(self.chance.uniform(0.05, 1.0) if stopped else 0.0)
        for pid in stopped:
            _send(pid, signal.SIGCONT)
        return bool(stopped)

    def kill_workers(self) -> bool:
        """Every worker process dies."""
        return sum(_send(pid, signal.SIGKILL) for pid in self.scene.workers()) > 0

    def set_wall_clock(self) -> bool:
        """By a second, or by more than a year, in both directions."""
        self.clocks.set_wall(self.chance.choice([-400.0, -1.0, 0.0, 0.1, 400.0]) * DAY_S)
        return True

    def suspended(self) -> bool:
        """By seconds up to hours, only forward."""
        self.clocks.suspend(self.chance.choice(SUSPENDED_S))
        return True

    # -- the directory ---------------------------------------------------------------------------------------------

    def moved(self) -> bool:
        """The directory is renamed; perhaps an empty one takes its place. No host writes into what is not its own."""
        away = self.scene.data.with_name("away")
        if not self.lives():  # a host that only begins may make the directory again
            return False
        self.scene.data.rename(away)
        if self.chance.random() < 0.5:
            self.scene.data.mkdir()
        PAUSE.wait(self.chance.uniform(0.0, 0.3))
        if self.scene.data.exists():
            left = sorted(str(file) for file in self.scene.data.rglob("*"))
            assert left == [], f"the host wrote into a directory that is not its own: {left}"
            self.scene.data.rmdir()
        away.rename(self.scene.data)
        return True

    def swapped(self, part: str) -> bool:
        """For a while an earlier, valid copy of the directory, or of a part of it, is in its place."""
        ours, earlier = self.scene.data / part, self.scene.folder / "earlier" / part
        stand_in, away = self.scene.folder / "stand-in", self.scene.folder / "away"
        if not (self.lives() and earlier.is_dir() and ours.is_dir()):
            return False
        shutil.copytree(earlier, stand_in, symlinks=True)
        before = _fixed(stand_in)
        ours.rename(away)
        stand_in.rename(ours)
        PAUSE.wait(self.chance.uniform(0.05, 0.5))
        ours.rename(stand_in)
        away.rename(ours)
        changed = sorted(name for name, what in _fixed(stand_in).items() ^ before.items())
        assert not changed, f"the host changed a directory that is not its own: {changed}"
        shutil.rmtree(stand_in)
        return True

    def replaced(self, name: str) -> bool:
        """Another file takes the place: a copy, or one with any content."""
        file = self.scene.data / name
        new = file.with_name(file.name + ".new")
        try:
            new.write_bytes(file.read_bytes() if self.chance.random() < 0.5 else self.chance.randbytes(100))
            new.replace(file)
        except FileNotFoundError:
            return False
        return True

    # -- the followed folder ---------------------------------------------------------------------------------------

    def hostile(self) -> bool:
        """Names that are no text, rules that take long to match, links that lead outside, a pipe."""
        chance, place = self.chance, self.folder / f"d{self.chance.randrange(4)}"
        place.mkdir(exist_ok=True)
        (place / "\udcff\udcfe.txt").write_bytes(chance.randbytes(20))
        (place / ("n" * 250)).write_text("long")
        (place / ".gitignore").write_text("*".join("a" * 20) + "\n" + "**/" * 60 + "x\n[[:alpha:]\n")
        for name, target in (("loop", "."), ("out", "/etc/passwd"), ("dangling", "nowhere")):
            link = place / name
            link.unlink(missing_ok=True)
            link.symlink_to(target)
        fifo = place / f"fifo{chance.randrange(3)}.txt"
        if not fifo.exists():
            os.mkfifo(fifo)
        return True


def swap_generations(data: Path, chance: random.Random) -> bool:
    """Two generations of one index change their places; False if no index has two."""
    indexes = sorted({manifest.parent.parent for manifest in (data / "generations").glob("*/*/*/manifest.json")})
    found = [sorted(path for path in index.iterdir() if path.is_dir()) for index in indexes]
    several = [generations for generations in found if len(generations) > 1]
    if not several:
        return False
    first, second = chance.sample(chance.choice(several), 2)
    between = first.with_name("between")
    try:
        first.rename(between)
    except FileNotFoundError:  # the host removed it
        return False
    try:
        second.rename(first)
    except FileNotFoundError:
        between.rename(first)
        return False
    between.rename(second)
    return True


def _fixed(folder: Path) -> dict[str, str]:
    """What a host that lost its directory leaves as it is: records, manifests, lock file, generations, published links.

    A reader that opens a shard makes files beside it, so other files are left out.
    """
    found = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = os.readlink(path)
        elif path.name in ("LOCK", "manifest.json") or (path.name == "data.mdb" and path.parent.name != "kv"):
            found[name] = blake2b(path.read_bytes()).hexdigest()
        elif path.is_dir() and path.parent.parent.parent.name == "generations":
            found[name] = "a generation"
    return found


def _send(pid: int, which: signal.Signals) -> bool:
    try:
        os.kill(pid, which)
    except ProcessLookupError:
        return False
    return True


def _removed(file: Path) -> bool:
    try:
        file.unlink()
    except FileNotFoundError:
        return False
    return True


KINDS: dict[str, Callable[[Stranger], bool]] = {
    "open files": Stranger.open_files,
    "address space": Stranger.address_space,
    "file size": Stranger.file_size,
    "threads and processes": Stranger.threads,
    "a stopped host": lambda stranger: stranger.stopped([stranger.host.pid]),
    "stopped workers": lambda stranger: stranger.stopped(stranger.scene.workers()),
    "dead workers": Stranger.kill_workers,
    "a wall clock that is set": Stranger.set_wall_clock,
    "a monotonic clock that jumps": Stranger.suspended,
    "a moved directory": Stranger.moved,
    "a swapped directory": lambda stranger: stranger.swapped("."),
    "a swapped catalog": lambda stranger: stranger.swapped("catalog"),
    "a removed LOCK": lambda stranger: _removed(stranger.scene.data / "LOCK"),
    "a replaced LOCK": lambda stranger: stranger.replaced("LOCK"),
    "a removed lock.mdb": lambda stranger: _removed(stranger.scene.data / "catalog" / "lock.mdb"),
    "a replaced lock.mdb": lambda stranger: stranger.replaced("catalog/lock.mdb"),
    "swapped generations": lambda stranger: swap_generations(stranger.scene.data, stranger.chance),
    "a hostile folder": Stranger.hostile,
}
"""Every kind that happens to a living host."""
