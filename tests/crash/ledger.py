"""The ledger of a run: intents, acknowledgements, refusals. The oracle relies on nothing else.

One JSON line for each entry, appended by one `write` to a file outside the data directory. A power cut of the disk of
the data does not touch the ledger. A kill cuts at most the last line (where it crosses a page of the file):

    {"kind": "intent", "batch": "812.5", "branch": "main", "changes": [["object_type", "r7", "812.5/0 amber"], ...]}
    {"kind": "ack", "batch": "812.5", "lsn": 41}            written after `Engine.write` returned
    {"kind": "refused", "batch": "812.5", "error": "StorageFull"}
    {"kind": "switching", "branch": "main", "index_type": "SEARCH_INDEX", "generation": 2}
    {"kind": "switched", "branch": "main", "index_type": "SEARCH_INDEX", "generation": 2, "lsn": 40}
    {"kind": "forced", "branch": "main", "index_type": "SEARCH_INDEX", "generation": 2, "lsn": 41}
    {"kind": "not switched", "text": "..."}                 a switch was refused or given up
    {"kind": "problem", "text": "..."}                      a promise that the run itself saw broken

A title of None is a delete. Every title names its batch, so a record names the batch that wrote it. The LSN of a switch
is its commit LSN; a generation is forced to disk up to the LSN of `forced`. `at` is the length of the log of the block
recorder when the entry was made, for the power-cut test.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

Key = tuple[str, str]
"""(resource type, id) of a record, or (branch, index type) of an index."""
Version = tuple[int, str | None]
"""(LSN, title); the title is None for a record that is not there."""
ACKNOWLEDGEMENTS = ("ack", "switched", "forced", "locked")
"""The kinds of entries that are made when a promise was given."""


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


def _any(_: Key) -> bool:
    return True


def _wrong(where: str, acked: Version, found: Version, may_be: set[str | None]) -> Iterator[str]:
    """One record is as the last acknowledged change left it, or as a later change without an answer left it."""
    if found == acked or (found[1] is None and (acked[1] is None or None in may_be)):
        return
    if found[1] is None:
        yield f"lost: {where} was acknowledged as {acked} and is gone"
    elif found[0] <= acked[0]:
        yield f"lost: {where} was acknowledged as {acked} and is {found}"
    elif found[1] not in may_be:
        yield f"{where} is {found}, which was never written; acknowledged was {acked}"


class LedgerContent:
    """The content of a ledger: batches by name, and the generations that may be live."""

    def __init__(self, path: Path, upto: int | None = None) -> None:
        self.batches: dict[str, Batch] = {}
        self.live: dict[Key, int] = {}
        self.may_be_live: dict[Key, set[int]] = {}
        self.commit_lsns: dict[Key, int] = {}
        """The commit LSN of the last acknowledged switch of an index."""
        self.forced: dict[Key, dict[int, int]] = {}
        """The LSN up to which each generation of an index is forced to disk."""
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
            self._switch(kind, (entry["branch"], entry["index_type"]), entry["generation"], entry.get("lsn", 0))
        elif kind == "forced":
            self.forced.setdefault((entry["branch"], entry["index_type"]), {})[entry["generation"]] = entry["lsn"]
        elif kind == "problem":
            self.problems.append(entry["text"])
        elif kind == "not switched":
            self.refusals.append(entry["text"])
        else:
            self.notes.append(entry)

    def _switch(self, kind: str, index: Key, generation: int, commit_lsn: int) -> None:
        if kind == "switching":
            self.may_be_live.setdefault(index, set()).add(generation)
            return
        self.live[index] = generation
        self.commit_lsns[index] = commit_lsn
        self.may_be_live[index] = set()

    def indexes(self) -> list[Key]:
        """Every index that a switch was meant for."""
        return sorted(self.live.keys() | self.may_be_live.keys())

    def may_serve(self, index: Key) -> set[int]:
        """The generations that may be live, 0 for none: the one of the last acknowledged switch, and later targets."""
        return {self.live.get(index, 0)} | self.may_be_live.get(index, set())

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

    def wrong_records(
        self, branch: str, held: dict[Key, tuple[int, str]], upto: int | None = None, of: Callable[[Key], bool] = _any
    ) -> Iterator[str]:
        """Compare the records that were found with the batches of a branch.

        No acknowledged put is lost, no acknowledged delete is undone, no record is there that was never written. With
        `upto` the records are those of an index that has applied every change up to this LSN; `of` selects the keys of
        a shard.
        """
        last: dict[Key, Version] = {}
        for batch in self.acked(branch):
            for position, change in enumerate(batch.changes):
                lsn = batch.lsn_of(position)
                if upto is None or lsn <= upto:
                    last[change.resource_type, change.id] = (lsn, change.title)
        may_be: dict[Key, set[str | None]] = {}
        for batch in self.open(branch):
            for change in batch.changes:
                may_be.setdefault((change.resource_type, change.id), set()).add(change.title)
        for key in filter(of, last.keys() | may_be.keys() | held.keys()):
            acked, found = last.get(key, (0, None)), held.get(key, (0, None))
            yield from _wrong(f"{branch} {key}", acked, found, may_be.get(key, set()))
            if upto is not None and found[0] > upto:
                yield f"{branch} {key} is {found} in an index at LSN {upto}"

    def counts(self) -> dict[str, int]:
        """Figures for the report of a test."""
        acked = [batch for batch in self.batches.values() if batch.lsn is not None]
        return {
            "batches": len(self.batches),
            "acked": len(acked),
            "changes": sum(len(batch.changes) for batch in acked),
            "refused": sum(1 for batch in self.batches.values() if batch.refused),
        }
