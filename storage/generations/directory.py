"""The directory of a generation: its path, its shards, and the pins of readers in any process.

    generations/<branch>/<TYPE>/<number>/
        manifest.json    see `storage.generations.manifest`
        .                a reader holds a shared flock on it while it uses the generation (SW-5)
        PINS             its second flock, which older versions know
        shard-000/ ...   one directory for each shard, which belongs to the backend alone

The name of a branch is percent-encoded, see `model.names.directory_name`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from shadowswitch.model.names import directory_name
from shadowswitch.storage.data_directory import GENERATIONS
from shadowswitch.storage.shortages import shortages

PINS = "PINS"
MANIFEST = "manifest.json"


def generation_path(branch: str, index_type: str, number: int) -> str:
    """The directory of a generation, relative to the data directory."""
    return f"{GENERATIONS}/{directory_name(branch)}/{index_type}/{number:08d}"


def shard_paths(generation: Path, shards: int) -> list[Path]:
    """The directories of a generation's shards, in order."""
    return [generation / f"shard-{shard:03d}" for shard in range(shards)]


@contextlib.contextmanager
def shared_pin(generation: Path) -> Iterator[None]:
    """Pin a generation from any process: shared flocks, which the kernel releases with the process.

    Raises FileNotFoundError when the generation was removed, ResourceExhausted. The caller reads the row of the
    generation again under the pin: a generation that was marked for removal before may be removed all the same (SW-5).
    """
    with contextlib.ExitStack() as stack:
        with shortages("pin", str(generation)):
            descriptors = list(_pins(generation, stack))
        for descriptor in descriptors:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield


def pinned_elsewhere(generation: Path) -> bool:
    """True if a reader in any process pins the generation. Ask after the catalog has marked it for removal (SW-5)."""
    with contextlib.ExitStack() as stack:
        try:
            for descriptor in _pins(generation, stack):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
    return False


def _pins(generation: Path, stack: contextlib.ExitStack) -> Iterator[int]:
    """Descriptors of what a pin holds: the directory, and PINS unless it was removed."""
    yield _opened(generation, os.O_DIRECTORY, stack)
    with contextlib.suppress(FileNotFoundError):
        yield _opened(generation / PINS, os.O_NOFOLLOW, stack)


def _opened(path: Path, flags: int, stack: contextlib.ExitStack) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
    stack.callback(os.close, descriptor)
    return descriptor
