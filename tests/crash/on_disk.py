"""The files of a data directory that no engine has open: its published paths and its live generations.

An engine that starts makes published paths agree with its live pointers, and applies the journal to its indexes. So the
demands on a running engine do not show what a power cut took from these files. A program outside reads a published path
without an engine. All files are read in copies: SQLite writes beside a file that it opens, and a recovery must find the
files as the power cut left them.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from shadowswitch import ShadowSwitchError
from shadowswitch.model.digest import bucket_of, key_hash, shard_of
from shadowswitch.storage.backends import registry
from shadowswitch.storage.generations.directory import MANIFEST, generation_path, shard_paths
from shadowswitch.storage.generations.published_path import MARK, PUBLISHED, published_path
from tests.crash.ledger import Key, LedgerContent

REBUILT_BY_SQLITE = "*-shm"


class Folder(msgspec.Struct, frozen=True):
    """A generation, or a published copy of it, with the LSN that it has reached at least."""

    path: Path
    branch: str
    generation: int
    least_lsn: int
    name: str


def broken_on_disk(data: Path, ledger: LedgerContent, live: Mapping[Key, int] | None = None) -> list[str]:
    """The broken promises in the files of each index.

    `live` has the live generations of an engine that has recovered. Without it the ledger says what may be published.
    """
    problems: list[str] = []
    for index in ledger.indexes():
        folder = _live_folder(data, ledger, index)
        allowed = ledger.may_serve(index) if live is None else {live.get(index, 0)}
        folders = [folder] if folder is not None else []
        try:
            published = _published_folder(data, ledger, index, allowed)
        except ValueError as error:
            problems.append(str(error))
        else:
            folders += [published] if published is not None and not _is_same(published, folder) else []
        for one in folders:
            problems += _broken(one, ledger)
    return problems


def _live_folder(data: Path, ledger: LedgerContent, index: Key) -> Folder | None:
    """The generation of the last acknowledged switch. It holds what a flush has forced to disk (BK-4)."""
    number = ledger.live.get(index, 0)
    path = data / generation_path(*index, number)
    forced_lsn = ledger.forced.get(index, {}).get(number, 0)
    return Folder(path, index[0], number, forced_lsn, f"generation {number}") if number else None


def _published_folder(data: Path, ledger: LedgerContent, index: Key, allowed: set[int]) -> Folder | None:
    """The generation, or the copy, that the published path leads to (IX-7); None if there may be none.

    Raises ValueError for a path that is missing, torn, or leads to another generation.
    """
    path = published_path(data / PUBLISHED, *index)
    name = str(path.relative_to(data))
    if not os.path.lexists(path):
        if 0 in allowed:
            return None
        raise ValueError(f"{name} is missing, and the switch to generation {max(allowed)} was acknowledged")
    is_link = path.is_symlink()
    try:
        text = os.readlink(path) if is_link else (path / MARK).read_text()
    except OSError as error:
        raise ValueError(f"{name} is torn: {error}") from error
    number = text.rpartition("/")[2]
    if not number.isdecimal():
        raise ValueError(f"{name} is torn: no generation has the name {text!r}")
    if int(number) not in allowed:
        raise ValueError(f"{name} leads to generation {int(number)}, expected was one of {sorted(allowed)}")
    is_acknowledged = not is_link and int(number) == ledger.live.get(index)
    least_lsn = ledger.commit_lsns[index] if is_acknowledged else 0
    return Folder(path.resolve(), index[0], int(number), least_lsn, name)


def _is_same(one: Folder, other: Folder | None) -> bool:
    return other is not None and one.path == other.path.resolve()


def _broken(folder: Folder, ledger: LedgerContent) -> Iterator[str]:
    """A torn file, a row that is not as the ledger has it at the LSN of its shard, an LSN that is too low."""
    with TemporaryDirectory() as scratch:
        try:
            copy = Path(scratch, "copy")
            shutil.copytree(folder.path, copy, ignore=shutil.ignore_patterns(REBUILT_BY_SQLITE))
            for problem in _problems_of_shards(copy, folder, ledger):
                yield f"{folder.name}, {problem}"
        except (ShadowSwitchError, OSError, ValueError, KeyError) as error:
            yield f"{folder.name} is torn: {type(error).__name__}: {error}"


def _problems_of_shards(copy: Path, folder: Folder, ledger: LedgerContent) -> Iterator[str]:
    manifest = json.loads((copy / MANIFEST).read_bytes())
    if manifest["generation"] != folder.generation:
        yield f"its manifest is that of generation {manifest['generation']}"
    backend, options, shards = registry.backend(manifest["backend"]), manifest["options"], manifest["shards"]
    paths = shard_paths(copy, shards)
    with closing(backend.open_reader(paths, options)) as reader:
        for shard, path in enumerate(paths):
            state, rows = reader.shard_snapshot(shard)
            held = {(row.resource_type, row.id): (row.lsn, row.fields["title"]) for row in rows}
            problems = backend.check(path, options)
            if state.applied_lsn < folder.least_lsn:
                problems.append(f"lost: it is at LSN {state.applied_lsn}, and LSN {folder.least_lsn} was promised")
            of = partial(_is_in_shard, shard, shards)
            problems += ledger.wrong_records(folder.branch, held, state.applied_lsn, of)
            yield from (f"{path.name}: {problem}" for problem in problems)


def _is_in_shard(shard: int, shards: int, key: Key) -> bool:
    return shard_of(bucket_of(key_hash(*key)), shards) == shard
