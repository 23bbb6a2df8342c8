"""A `kv` shard that begins with the rows of another one, see `protocol.Seeding`.

LMDB copies the shard beside the empty one, whose file it replaces when it is whole.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import lmdb
import msgspec

from shadowswitch.storage.backends.kv import store
from shadowswitch.storage.backends.kv.copy import KvSnapshot
from shadowswitch.storage.backends.protocol import SEEDED, Reuse
from shadowswitch.storage.disk import sync_directory

COPY = "seed"


def plan(old: Mapping[str, Any], new: Mapping[str, Any]) -> Reuse:
    """What a shard with the options `new` can take over from one with `old`. Pure."""
    return Reuse.COPY if store.options_text(old) == store.options_text(new) else Reuse.NOTHING


def seed(source: Path, old: Mapping[str, Any], target: Path, new: Mapping[str, Any]) -> None:
    """See `protocol.Seeding.seed`."""
    copy = target / COPY
    with store.translated("seed", target):
        _remove(copy)
        try:
            with closing(KvSnapshot([source], old)) as snapshot:
                snapshot.copy([copy])
            _make_new(store.Environment(copy, new["map_size_mib"], create=False))
            os.replace(copy / store.FOLDER / store.DATA, target / store.FOLDER / store.DATA)
            sync_directory(target / store.FOLDER)
        finally:
            _remove(copy)


def _remove(copy: Path) -> None:
    if copy.is_file():
        copy.unlink()
    shutil.rmtree(copy, ignore_errors=True)


def _make_new(environment: store.Environment) -> None:
    """Give the copy the state of a new shard, and force it to disk."""

    def renew(txn: lmdb.Transaction[bytes]) -> None:
        meta = msgspec.structs.replace(environment.read_meta(txn), applied_lsn=0, cursor=SEEDED, loaded=False)
        environment.write_meta(txn, meta)

    try:
        environment.map.write(renew)
        with environment.map.used():
            environment.env.sync(True)
    finally:
        environment.map.close()
