"""Bits of the catalog are flipped: the command `check` names the damage, or everything that was acknowledged is there.

    DAMAGED_CATALOG_SECONDS=600 pytest tests/crash/test_damaged_catalog.py -s      as long as one says
    DAMAGED_CATALOG_SEED=4711                                                      the same choices again

A flipped bit may be more than `check --repair` can derive again. But it is never silent: `check`, which reads in worker
processes, ends by no signal, and where it finds nothing, the next host starts and the oracle makes all its demands.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.crash.running import Scene

SECONDS = float(os.environ.get("DAMAGED_CATALOG_SECONDS", "60"))
SEED = int(os.environ.get("DAMAGED_CATALOG_SEED", str(random.SystemRandom().randrange(1 << 32))))
FLIPS = (1, 4, 4, 30, 100)
NAMED = ("CorruptData", "check: ")


def flip(file: Path, chance: random.Random) -> list[int]:
    """Flip bits of a file; their places."""
    content = bytearray(file.read_bytes())
    places = [chance.randrange(len(content)) for _ in range(chance.choice(FLIPS))]
    for place in places:
        content[place] ^= 1 << chance.randrange(8)
    file.write_bytes(content)
    return places


def restore(scene: Scene, kept: Path) -> None:
    """The data directory and the ledger as the host left them."""
    shutil.rmtree(scene.data)
    shutil.copytree(kept / "data", scene.data, symlinks=True)
    shutil.copy2(kept / "ledger", scene.ledger)


def outcome(scene: Scene, where: str) -> str:
    """How the damage shows."""
    check = scene.run([sys.executable, "-m", "shadowswitch", "check", "--data", str(scene.data)], {})
    said = f"{where}: {check}"
    assert check.status in (0, 1), f"check ended by a signal, or by an error of its own: {said}"
    assert "Traceback" not in check.errors, said
    if check.status:
        assert check.output.strip() or check.errors.strip(), said
        return "named by check"
    judged = scene.run(scene.command("hindered", "judge", "0"), {})
    said = f"{said}\n{judged}"
    if judged.status == 0:
        return "whole"
    assert judged.status == 1, said
    assert any(name in judged.output + judged.errors for name in NAMED), said
    return "named by the start"


@pytest.mark.slow
@pytest.mark.torture
@pytest.mark.timeout(SECONDS + 600)
def test_a_damaged_catalog_is_named_or_whole(tmp_path: Path) -> None:
    scene, kept = Scene(tmp_path / "scene"), tmp_path / "kept"
    (scene.folder / "followed").mkdir()
    arguments = ("live", str(SEED), "3", str(scene.folder / "followed"), "sound")
    lived = scene.run(scene.command("hindered", *arguments), {})
    assert lived.status == 0, lived
    kept.mkdir()
    shutil.copytree(scene.data, kept / "data", symlinks=True)
    shutil.copy2(scene.ledger, kept / "ledger")
    begun, number, counts = time.monotonic(), 0, Counter[str]()
    while time.monotonic() < begun + SECONDS:
        restore(scene, kept)
        places = flip(scene.data / "catalog" / "data.mdb", random.Random(SEED + number))
        found = outcome(scene, f"seed {SEED}, case {number}, flipped at {places}")
        print(f"case {number} of seed {SEED}, flipped at {places[:4]}: {found}", flush=True)
        counts[found] += 1
        number += 1
    print(dict(counts))
    assert number > 0
