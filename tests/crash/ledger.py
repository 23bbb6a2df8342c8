"""The ledger of a run: intents, acknowledgements, refusals. The oracle relies on nothing else.

One JSON line for each entry, appended by one `write` to a file outside the data directory. A power cut of the disk of
the data does not touch the ledger. A kill cuts at most the last line (where it crosses a page of the file):

    {"kind": "intent", "batch": "812.5", "branch": "main", "changes": [["object_type", "r7", "812.5/0 amber"], ...]}
    {"kind": "ack", "batch": "812.5", "lsn": 41}            written after `Engine.write` returned
    {"kind": "refused", "batch": "812.5", "error": "StorageFull"}
    {"kind": "switching" | "switched", "branch": "main", "index_type": "SEARCH_INDEX", "generation": 2}
    {"kind": "not switched", "text": "..."}                 a switch was refused or given up
    {"kind": "problem", "text": "..."}                      a promise that the run itself saw broken

A title of None is a delete. Every title names its batch, so a record names the batch that wrote it. `at` is the
length of the log of the block recorder when the entry was made, for the power-cut test.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

Key = tuple[str, str]


class Change(msgspec.Struct, frozen=True):
    """One change of a batch; `title` is None for a delete."""

    resource_type: str
    id: str
    title: str | None


class Batch(msgspec.Struct):
    """One call of `Engine.write` and its outcome."""

    name: str
    branch: str
    changes: list[Change]
    lsn: int | None = None
    refused: str = ""

    def lsn_of(self, position: int) -> int:
        """The LSN of the change at that position of an acknowledged batch."""
        assert self.lsn is not None
        return self.lsn - len(self.changes) + 1 + position


class Ledger:
    """Appends entries, from any thread."""

    def __init__(self, path: Path, position_of: Path | None = None) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._position_of = position_of
        self._numbers = itertools.count(1)

    def new_batch(self) -> str:
        """A name that no other batch of any process has."""
        return f"{os.getpid()}.{next(self._numbers)}"

    def enter(self, kind: str, **entry: Any) -> None:
        """Append one entry; returns when the kernel has it."""
        if self._position_of is not None:
            entry["at"] = self._position_of.stat().st_size
        os.write(self._descriptor, b"\n" + json.dumps({"kind": kind, **entry}).encode() + b"\n")

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


def entries(path: Path, upto: int | None = None) -> Iterator[dict[str, Any]]:
    """The entries of a ledger; with `upto`, only those made while the recorder's log had at most `upto` bytes."""
    for line in path.read_bytes().splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue  # a kill cut the line: the step that it names had not begun, or was not acknowledged
        if upto is None or entry.get("at", 0) <= upto:
            yield entry


class LedgerContent:
    """The content of a ledger: batches by name, and the generations that may be live."""

    def __init__(self, path: Path, upto: int | None = None) -> None:
        self.batches: dict[str, Batch] = {}
        self.live: dict[Key, int] = {}
        self.may_be_live: dict[Key, set[int]] = {}
        self.problems: list[str] = []
        self.refusals: list[str] = []
        self.notes: list[dict[str, Any]] = []
        for entry in entries(path, upto):
            self._take(entry)

    def _take(self, entry: dict[str, Any]) -> None:
        kind = entry["kind"]
        if kind == "intent":
            changes = [Change(*change) for change in entry["changes"]]
            self.batches[entry["batch"]] = Batch(entry["batch"], entry["branch"], changes)
        elif kind == "ack":
            self.batches[entry["batch"]].lsn = entry["lsn"]
        elif kind == "refused":
            self.batches[entry["batch"]].refused = entry["error"]
        elif kind in ("switching", "switched"):
            self._switch(kind, (entry["branch"], entry["index_type"]), entry["generation"])
        elif kind == "problem":
            self.problems.append(entry["text"])
        elif kind == "not switched":
            self.refusals.append(entry["text"])
        else:
            self.notes.append(entry)

    def _switch(self, kind: str, index: Key, generation: int) -> None:
        if kind == "switching":
            self.may_be_live.setdefault(index, set()).add(generation)
            return
        self.live[index] = generation
        self.may_be_live[index] = set()

    def branches(self) -> set[str]:
        """Every branch that a batch was meant for."""
        return {batch.branch for batch in self.batches.values()}

    def acked(self, branch: str) -> list[Batch]:
        """The acknowledged batches of a branch, by LSN."""
        found = [batch for batch in self.batches.values() if batch.branch == branch and batch.lsn is not None]
        return sorted(found, key=lambda batch: batch.lsn or 0)

    def open(self, branch: str) -> list[Batch]:
        """The batches that may be stored or not: neither acknowledged nor refused for lack of room."""
        return [b for b in self.batches.values() if b.branch == branch and b.lsn is None and b.refused != "StorageFull"]

    def counts(self) -> dict[str, int]:
        """Figures for the report of a test."""
        acked = [batch for batch in self.batches.values() if batch.lsn is not None]
        return {
            "batches": len(self.batches),
            "acked": len(acked),
            "changes": sum(len(batch.changes) for batch in acked),
            "refused": sum(1 for batch in self.batches.values() if batch.refused),
        }
