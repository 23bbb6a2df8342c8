"""The adoption of an index that an external builder delivered: its first readers, in a worker process.

The engine never opens a file that the builder wrote. `check_delivery` copies each shard to a private folder while it
hashes it. A worker opens the copy, checks every page, and commits to it, as a follower will. A file that ends its
reader ends the worker, and the delivery is refused. A sound copy takes the place of the delivered shard, so a program
that still holds the delivered file open cannot change what the engine reads.

    private/shard-000              the copy, until it is adopted
    private/delivered/shard-000    what the builder wrote, from then on until the shadow is BUILT; put back if it is not
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import msgspec

from shadowswitch.model.errors import CorruptData
from shadowswitch.storage import disk
from shadowswitch.storage.backends import registry
from shadowswitch.storage.backends.protocol import Backend, Probing
from shadowswitch.storage.generations.directory import shard_paths
from shadowswitch.storage.generations.external_manifest import PRIVATE, remove_entry
from shadowswitch.storage.generations.shard_reading import Checked, check
from shadowswitch.storage.reading import Count, Note, no_look
from shadowswitch.storage.shortages import shortages

DELIVERED = "delivered"


class Adopt(msgspec.Struct, frozen=True, tag=True):
    """To a worker: open the private copies of all shards, and put them in the place of the delivered ones."""

    path: str
    shards: int
    backend: str
    options: dict[str, Any]


def adopt(task: Adopt, reading: Note, looked: Count = no_look) -> Checked:
    """Adopt the delivered shards: the problems, none when they were adopted."""
    path, backend = Path(task.path), registry.backend(task.backend)
    private = path / PRIVATE
    copies = shard_paths(private, task.shards)
    problems = []
    for copy in copies:
        problems += [f"{copy.name}: {text}" for text in _problems(backend, copy, task.options, reading, looked)]
    if not problems:
        delivered = private / DELIVERED
        delivered.mkdir(mode=0o700)
        for copy, shard in zip(copies, shard_paths(path, task.shards), strict=True):
            for folder in (*(below for below in copy.rglob("*") if below.is_dir()), copy):
                disk.sync_directory(folder)
            shard.rename(delivered / shard.name)
            copy.rename(shard)
        for folder in (delivered, private, path):
            disk.sync_directory(folder)
    return Checked(problems)


def put_back(path: Path) -> None:
    """The shadow was not BUILT: its directory is again as it was delivered. Idempotent; nothing of it may be open.

    Raises ResourceExhausted; then the next call goes on, and nothing that was delivered is lost.
    """
    delivered = path / PRIVATE / DELIVERED
    with shortages("put back", str(path)):
        is_ours = delivered.is_dir() and not (path / PRIVATE).is_symlink()
        for name in sorted(os.listdir(delivered)) if is_ours else ():
            if name.startswith("shard-"):
                remove_entry(path / name)
                (delivered / name).rename(path / name)
    end(path)


def end(path: Path) -> None:
    """The shadow is BUILT, or nothing was adopted: remove the private folder. Idempotent."""
    with contextlib.suppress(OSError):  # the next call removes what is left
        remove_entry(path / PRIVATE)


def _problems(backend: Backend, copy: Path, options: dict[str, Any], reading: Note, looked: Count) -> list[str]:
    reading(copy)
    found = check(backend, copy, options, looked) if isinstance(backend, Probing) else []
    if found:
        return found
    try:
        writer = backend.open_writer(copy, options)
    except CorruptData as error:
        return [error.message]
    try:
        if writer.state().loaded:
            writer.apply([], writer.state().applied_lsn)
            writer.flush()
    except CorruptData as error:
        return [error.message]
    finally:
        writer.close()
    return []
