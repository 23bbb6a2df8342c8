"""Damage to the files of a data directory, page by page, and backends that die of it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PAGE = 4096
DEADLY = """
import os
from shadowswitch.storage.backends.kv.backend import KvBackend

class Deadly(KvBackend):
    \"\"\"A reader of a shard beside a file DEADLY ends by SIGABRT, as one of LMDB may.\"\"\"

    def _die(self, path):
        if (path / "DEADLY").exists():
            os.abort()

    def open_writer(self, path, options):
        self._die(path)
        return super().open_writer(path, options)

    def open_reader(self, shards, options):
        for path in shards:
            self._die(path)
        return super().open_reader(shards, options)

    def check(self, path, options):
        self._die(path)
        return super().check(path, options)

    def probe(self, path, options):
        self._die(path)
        return super().probe(path, options)
"""


def deadly_backend(folder: Path, patch: pytest.MonkeyPatch) -> str:
    """The name of a backend whose readers end by SIGABRT at a file DEADLY in the shard."""
    (folder / "deadly_backend.py").write_text(DEADLY)
    patch.syspath_prepend(str(folder))
    sys.modules.pop("deadly_backend", None)
    return "deadly_backend:Deadly"


def zero_leaves(file: Path) -> None:
    """Overwrite every leaf page of an LMDB file from the middle on with zeros; the tree above them stays."""
    with file.open("r+b") as opened:
        pages = file.stat().st_size // PAGE
        for number in range(pages // 4, pages):
            opened.seek(number * PAGE + 10)
            if int.from_bytes(opened.read(2), "little") & 0x02 and number > 8:
                opened.seek(number * PAGE)
                opened.write(b"\0" * PAGE)


def cut(file: Path) -> None:
    """Cut an LMDB file to its first pages."""
    with file.open("r+b") as opened:
        opened.truncate(3 * PAGE)


def shorten(file: Path) -> None:
    """Cut an LMDB file to two thirds."""
    with file.open("r+b") as opened:
        opened.truncate(file.stat().st_size * 2 // 3)


DAMAGES: list[Callable[[Path], None]] = [zero_leaves, cut, shorten]
