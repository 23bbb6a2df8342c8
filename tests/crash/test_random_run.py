"""A random run: what happens to hosts outside of a laboratory, in any order, against the oracle.

    RANDOM_RUN_SECONDS=3600 pytest tests/crash/test_random_run.py -s     as long as one says
    RANDOM_RUN_SEED=4711                                                   the same choices again

Each story is one data directory in several rounds. In a round a host lives for some seconds beside what a `Trouble`
does to it: limits of descriptors, address space and file sizes, a stopped process, dead workers, a moved directory, a
removed lock file, a hostile folder; its wall clock jumps all the time. Then it is killed, or ends. Between two rounds
bytes of index files are flipped or cut off. At the end the judge opens the directory, rebuilds, and demands.
"""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.crash.running import Scene, finish, start, wait_until

SECONDS = float(os.environ.get("RANDOM_RUN_SECONDS", "60"))
SEED = int(os.environ.get("RANDOM_RUN_SEED", str(random.SystemRandom().randrange(1 << 32))))
ROUNDS = 3
ROOM_BYTES = 32 << 20
"""Too little for a map or two threads, enough for Python itself: `Thread.start` of CPython waits for ever when the new
thread cannot allocate its first bytes."""
PAUSE = threading.Event()
"""Never set: only time ends its waits."""
LIVES_S = 3.0
ENDS_S = 120.0
SHARD_FILES = ("*/shard-*/data.mdb", "*/shard-*/shard.sqlite")


class Trouble:
    """What happens to a living host, at moments of its own choice."""

    def __init__(
        self, scene: Scene, host: subprocess.Popen[str], output: Path, folder: Path, chance: random.Random
    ) -> None:
        self.scene = scene
        self.host = host
        self.output = output
        self.folder = folder
        self.chance = chance

    def kinds(self) -> dict[str, Callable[[], None]]:
        """Every kind of trouble; each puts back what it changed, except for what a stranger would not put back."""
        return {
            "descriptors": lambda: self._limited(
                resource.RLIMIT_NOFILE, self._descriptors() + self.chance.randrange(8)
            ),
            "address space": lambda: self._limited(resource.RLIMIT_AS, self._address_space() + ROOM_BYTES),
            "file size": lambda: self._limited(resource.RLIMIT_FSIZE, self._largest_file() + 20_000),
            "a stopped host": lambda: self._stopped([self.host.pid]),
            "stopped workers": lambda: self._stopped(self.scene.workers()),
            "dead workers": self._kill_workers,
            "a moved directory": self._moved,
            "a removed LOCK": lambda: (self.scene.data / "LOCK").unlink(missing_ok=True),
            "a removed lock.mdb": lambda: (self.scene.data / "catalog" / "lock.mdb").unlink(missing_ok=True),
            "a hostile folder": self._hostile,
        }

    def lives(self) -> bool:
        """Has the host of this round opened the directory?"""
        return self.output.read_text() != ""

    def happen(self) -> str:
        """One trouble; its kind."""
        kind = self.chance.choice(list(self.kinds()))
        self.kinds()[kind]()
        return kind

    def _limited(self, which: int, limit: int) -> None:
        try:
            _, hard = resource.prlimit(self.host.pid, which)
            resource.prlimit(self.host.pid, which, (limit, hard))
            PAUSE.wait(self.chance.uniform(0.05, 0.5))
            resource.prlimit(self.host.pid, which, (hard, hard))
        except ProcessLookupError:
            return

    def _descriptors(self) -> int:
        try:
            return len(os.listdir(f"/proc/{self.host.pid}/fd"))
        except FileNotFoundError:
            return 100

    def _address_space(self) -> int:
        try:
            return int(Path(f"/proc/{self.host.pid}/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        except (FileNotFoundError, IndexError):
            return 1 << 40

    def _largest_file(self) -> int:
        sizes = [self.scene.ledger.stat().st_size + 500_000 if self.scene.ledger.exists() else 1_000_000]
        for file in self.scene.data.rglob("*"):
            try:
                sizes.append(file.stat().st_size if file.is_file() else 0)
            except FileNotFoundError:
                continue
        return max(sizes)

    def _stopped(self, pids: list[int]) -> None:
        for one in (signal.SIGSTOP, signal.SIGCONT):
            for pid in pids:
                try:
                    os.kill(pid, one)
                except ProcessLookupError:
                    continue
            PAUSE.wait(self.chance.uniform(0.05, 1.0))

    def _kill_workers(self) -> None:
        for pid in self.scene.workers():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def _moved(self) -> None:
        """The directory is renamed; perhaps an empty one takes its place. No host writes into what is not its own."""
        away = self.scene.data.with_name("away")
        if not self.lives():  # a host that only begins may make the directory again
            return
        self.scene.data.rename(away)
        if self.chance.random() < 0.5:
            self.scene.data.mkdir()
        PAUSE.wait(self.chance.uniform(0.0, 0.3))
        if self.scene.data.exists():
            left = sorted(str(file) for file in self.scene.data.rglob("*"))
            assert left == [], f"the host wrote into a directory that is not its own: {left}"
            self.scene.data.rmdir()
        away.rename(self.scene.data)

    def _hostile(self) -> None:
        chance, place = self.chance, self.folder / f"d{self.chance.randrange(4)}"
        place.mkdir(exist_ok=True)
        (place / "\udcff\udcfe.txt").write_bytes(os.urandom(20))
        (place / ("n" * 250)).write_text("long")
        (place / ".gitignore").write_text("*".join("a" * 20) + "\n" + "**/" * 60 + "x\n[[:alpha:]\n")
        for name, target in (("loop", "."), ("out", "/etc/passwd"), ("dangling", "nowhere")):
            link = place / name
            link.unlink(missing_ok=True)
            link.symlink_to(target)
        fifo = place / f"fifo{chance.randrange(3)}.txt"
        if not fifo.exists():
            os.mkfifo(fifo)


def damage(scene: Scene, chance: random.Random) -> str:
    """Flip a byte of the file of a shard, or cut the file; "" if there is none."""
    files = sorted(file for pattern in SHARD_FILES for file in (scene.data / "generations").glob(f"**/{pattern}"))
    files = [file for file in files if file.stat().st_size]
    if not files:
        return ""
    file = chance.choice(files)
    size = file.stat().st_size
    with file.open("r+b") as opened:
        if chance.random() < 0.3:
            opened.truncate(chance.randrange(size))
            return f"{file.name} cut"
        place = chance.randrange(size)
        opened.seek(place)
        (byte,) = opened.read(1)
        opened.seek(place)
        opened.write(bytes([byte ^ (1 << chance.randrange(8))]))
    return f"{file.name} flipped at {place}"


def one_round(scene: Scene, chance: random.Random, folder: Path) -> list[str]:
    """A host lives, and things happen to it; the list of them."""
    happened = []
    arguments = ("live", str(chance.randrange(1 << 30)), str(LIVES_S), str(folder))
    said = scene.folder / "lives"
    with said.open("w") as output, (scene.folder / "stderr").open("a") as errors:
        host = start(scene.command("hindered", *arguments), {}, stdout=output, stderr=errors)
    try:
        trouble = Trouble(scene, host, said, folder, chance)
        ends = time.monotonic() + LIVES_S
        PAUSE.wait(chance.uniform(0.0, 1.0))
        while time.monotonic() < ends and host.poll() is None:
            happened.append(trouble.happen())
            PAUSE.wait(chance.uniform(0.0, 0.5))
        if chance.random() < 0.5:
            host.kill()
            happened.append("killed")
        try:
            host.wait(ENDS_S)
        except subprocess.TimeoutExpired:
            stacks = (scene.folder / "stderr").read_text()[-12_000:]
            raise AssertionError(f"the host does not end after {happened}: {stacks}") from None
    finally:
        finish(host)
    wait_until(lambda: not scene.workers(), "every worker process ends with its host", 30.0)
    return happened


def story(folder: Path, seed: int) -> str:
    """One data directory; what happened to it. Raises AssertionError for a broken promise."""
    chance, scene = random.Random(seed), Scene(folder)
    followed = folder / "followed"
    followed.mkdir()
    (followed / "a.txt").write_text("a text")
    happened: list[str] = []
    for _ in range(ROUNDS):
        happened += one_round(scene, chance, followed)
        if chance.random() < 0.3:
            happened.append(damage(scene, chance))
    ended = scene.run(scene.command("hindered", "judge", "0"), {}, ENDS_S)
    said = f"seed {seed}: {happened}\n{ended.output}\n{ended.errors[-3000:]}"
    assert ended.status == 0, said
    crashed = [line for line in (folder / "stderr").read_text().splitlines() if "Fatal Python error" in line]
    assert not crashed, f"{crashed}\n{said}"
    scene.clear()
    return f"{happened}: {ended.output.strip()}"


@pytest.mark.slow
@pytest.mark.torture
@pytest.mark.timeout(SECONDS + 600)
def test_a_host_survives_a_random_run(tmp_path: Path) -> None:
    begun, number = time.monotonic(), 0
    while time.monotonic() < begun + SECONDS:
        print(f"story {number} of seed {SEED}:", story(tmp_path / str(number), SEED + number), flush=True)
        number += 1
    assert number > 0
