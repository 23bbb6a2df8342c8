"""A random run: what happens to hosts outside of a laboratory, in any order, against the oracle.

    RANDOM_RUN_SECONDS=3600 pytest tests/crash/test_random_run.py -s     as long as one says
    RANDOM_RUN_SEED=4711                                                   the same choices again

Each story is one data directory in several rounds. In a round a host lives for some seconds beside a `Stranger`: limits
of descriptors, threads, address space and file sizes, clocks that jump, stopped and dead processes, moved, swapped and
removed parts of its directory, a hostile folder. Then it is killed, or ends. Between two rounds a bit of an index file
is flipped, a file is cut off, or generations are swapped. At the end the judge opens the directory, rebuilds, demands.

Every kind happens as often as the others. Each story prints its seed and its kinds, the end of the run the number of
each kind. The story of a seed is the first one of a run with that seed.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from signal import SIGKILL

import pytest

from tests.crash.lacks import means
from tests.crash.running import Scene, finish, start, wait_until
from tests.crash.stranger import KINDS, LOSES, PAUSE, Deck, Stranger, swap_generations

SECONDS = float(os.environ.get("RANDOM_RUN_SECONDS", "60"))
SEED = int(os.environ.get("RANDOM_RUN_SEED", str(random.SystemRandom().randrange(1 << 32))))
ROUNDS = 4
LIVES_S = 3.0
LOST_S = 0.5
"""So long a host lives on that lost its directory."""
ENDS_S = 120.0
BEGINS_S = 60.0
MANY_STORIES = 100
"""So many stories have every kind."""
SHARD_FILES = ("*/shard-*/data.mdb", "*/shard-*/shard.sqlite", "*/shard-*/kv/data.mdb")


def _shard_file(data: Path, chance: random.Random) -> Path | None:
    files = sorted(file for pattern in SHARD_FILES for file in (data / "generations").glob(f"**/{pattern}"))
    files = [file for file in files if file.stat().st_size]
    return chance.choice(files) if files else None


def flip(data: Path, chance: random.Random) -> bool:
    """Flip a bit of the file of a shard; False if there is none."""
    file = _shard_file(data, chance)
    if file is None:
        return False
    with file.open("r+b") as opened:
        place = chance.randrange(file.stat().st_size)
        opened.seek(place)
        (byte,) = opened.read(1)
        opened.seek(place)
        opened.write(bytes([byte ^ (1 << chance.randrange(8))]))
    return True


def cut(data: Path, chance: random.Random) -> bool:
    """Cut the end off the file of a shard; False if there is none."""
    file = _shard_file(data, chance)
    if file is None:
        return False
    os.truncate(file, chance.randrange(file.stat().st_size))
    return True


DAMAGES: dict[str, Callable[[Path, random.Random], bool]] = {"a flipped bit": flip, "a file that is cut off": cut}
BETWEEN = {**DAMAGES, "generations swapped between two hosts": swap_generations}
ENDS = ("a host that is killed", "a host that ends")


class Story:
    """One data directory, and what happened to it. Its choices depend on the seed alone."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.scene = Scene(folder)
        self.seed = seed
        self.chance = random.Random(seed)
        self.living, self.between = Deck(KINDS, self.chance), Deck(BETWEEN, self.chance)
        self.happened: list[str] = []
        self.refused_threads = 0
        self.followed = folder / "followed"
        self.followed.mkdir()
        (self.followed / "a.txt").write_text("a text")

    def run(self) -> None:
        """All rounds, and the judge. Raises AssertionError for a broken promise."""
        for _ in range(ROUNDS):
            self._keep_earlier()
            self._round()
            if self.chance.random() < 0.4:
                self._note(self.between.draw(self._happens_between))
        ended = self.scene.run(self.scene.command("hindered", "judge", "0"), {}, ENDS_S)
        assert ended.status == 0, f"{self}\n{ended.output}\n{ended.errors[-3000:]}"
        self.scene.clear()

    def __str__(self) -> str:
        return f"seed {self.seed}: {', '.join(self.happened)}"

    def _happens_between(self, kind: str) -> bool:
        return BETWEEN[kind](self.scene.data, self.chance)

    def _note(self, kind: str) -> None:
        if kind:
            self.happened.append(kind)

    @property
    def _is_damaged(self) -> bool:
        return any(kind in DAMAGES for kind in self.happened)

    def _keep_earlier(self) -> None:
        """A valid copy of the directory, for the stranger to put in its place; sometimes one of an earlier round."""
        earlier = self.scene.folder / "earlier"
        if self.scene.data.is_dir() and self.chance.random() < 0.7:
            shutil.rmtree(earlier, ignore_errors=True)
            shutil.copytree(self.scene.data, earlier, symlinks=True)

    def _round(self) -> None:
        """A host lives, and things happen to it."""
        chance, said, errors = self.chance, self.scene.folder / "lives", self.scene.folder / "stderr"
        indexes = "damaged" if self._is_damaged else "sound"
        arguments = ("live", str(chance.randrange(1 << 30)), str(LIVES_S), str(self.followed), indexes)
        with said.open("w") as output, errors.open("w") as complaints:
            host = start(self.scene.command("hindered", *arguments), {}, stdout=output, stderr=complaints)
        stranger = Stranger(self.scene, host, said, self.followed, chance)
        self.happened.append("|")
        try:
            word = chance.choice(["begins", "lives", "lives"])  # anything may happen to a host that only begins, too
            wait_until(lambda: word in said.read_text() or host.poll() is not None, f"a host {word}", BEGINS_S)
            self._interfere(stranger)
            self._end(host)
        except (AssertionError, TimeoutError, subprocess.TimeoutExpired) as problem:
            raise AssertionError(f"{self}\n{problem}\n{errors.read_text()[-12_000:]}") from problem
        finally:
            finish(host)
            stranger.lack.end()
            self.refused_threads += stranger.lack.refused
        wait_until(lambda: not self.scene.workers(), "every worker process ends with its host", 30.0)

    def _interfere(self, stranger: Stranger) -> None:
        chance, ends = self.chance, time.monotonic() + LIVES_S
        PAUSE.wait(chance.random() ** 3)
        while time.monotonic() < ends and stranger.host.poll() is None:
            kind = self.living.draw(stranger.happens)
            self._note(kind)
            if kind in LOSES:
                ends = min(ends, time.monotonic() + LOST_S)
            PAUSE.wait(chance.uniform(0.0, 0.5))

    def _end(self, host: subprocess.Popen[str]) -> None:
        """The end of a host: by itself with status 0, or by our signal. Damage on disk ends only worker processes."""
        is_killed = self.chance.random() < 0.5
        if is_killed:
            host.kill()
        self._note(ENDS[0] if is_killed else ENDS[1])
        status = host.wait(ENDS_S)
        assert status == 0 or (is_killed and status == -SIGKILL), f"the host ended with status {status}"


@pytest.mark.slow
@pytest.mark.torture
@pytest.mark.timeout(SECONDS + 600)
def test_a_host_survives_a_random_run(tmp_path: Path) -> None:
    begun, number, counts, refused = time.monotonic(), 0, Counter[str](), 0
    print(f"seed {SEED}; threads are refused by: {means()}", flush=True)
    try:
        while time.monotonic() < begun + SECONDS:
            story = Story(tmp_path / str(number), SEED + number)
            try:
                story.run()
            finally:
                number += 1
                counts.update(story.happened)
                refused += story.refused_threads
                print(f"story {number}, {time.monotonic() - begun:.0f} s, {story}", flush=True)
    finally:
        every = [*KINDS, *BETWEEN, *ENDS]
        print(*(f"{kind}: {counts[kind]}" for kind in every), f"threads that the kernel refused: {refused}", sep="\n")
    assert number > 0
    missing = [kind for kind in every if not counts[kind]]
    assert not missing or number < MANY_STORIES, f"these never happened: {missing}"
