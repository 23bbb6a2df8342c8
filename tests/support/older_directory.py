"""Data directories of commit c1abf58: unpacked, with the expectations of each; see tests/fixtures/README.md."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from shadowswitch import Engine, Lock, Reader

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
MAIN, FEATURE, RELEASE = "main", "feature/größe-日本", "release/1.0"
OBJECT, LINK, NOTE = "object_type", "link_type", "Notiz·日記"
SEARCH, LINKS = "SEARCH_INDEX", "LINK_INDEX"
LONG_S = 3600.0
A_CENTURY_S = 36525 * 86400.0

OpenEngine = Callable[..., Engine]
VARIANTS = ("closed", "killed")
"""Closed by its engine; left by a host that SIGKILL ended while a build was copying."""


class Older:
    """An unpacked directory and its expectations."""

    def __init__(self, path: Path, expected: dict[str, Any], open_engine: OpenEngine) -> None:
        self.path = path
        self.expected = expected
        self._open_engine = open_engine
        self.last_lsn = max(branch["head_lsn"] for branch in expected["branches"].values())

    def __getitem__(self, name: str) -> Any:
        return self.expected[name]

    def open(self, **settings: Any) -> Engine:
        """Open it with the code of today; the holder of a lock has an hour for its next heartbeat."""
        how = {"lock_grace_s": LONG_S, "failed_keep_s": A_CENTURY_S, "copy_slice_rows": 10, **settings}
        return self._open_engine(self.path, **how)

    def records(self, branch: str) -> dict[tuple[str, str], tuple[dict[str, Any], int]]:
        """Fields and LSN of every record, by type and id."""
        return {(kind, id): (fields, lsn) for kind, id, fields, lsn in self["branches"][branch]["records"]}

    def shadow_id(self, index_type: str) -> str:
        """The shadow of `main` and that index type."""
        (id,) = [id for id, (_, _, kind, _) in self["shadows"].items() if kind == index_type]
        return str(id)


def unpacked(variant: str, target: Path, open_engine: OpenEngine) -> Older:
    """One of the two directories, below `target`."""
    with tarfile.open(FIXTURES / "c1abf58.tar.xz") as archive:
        members = [member for member in archive if member.name.split("/")[0] == variant]
        archive.extractall(target, members, filter="data")
    expected = json.loads((FIXTURES / "c1abf58.json").read_text(encoding="utf-8"))[variant]
    return Older(target / variant, expected, open_engine)


def as_written(found: list[Any], expected: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The structs as JSON-like values, reduced to the fields of the expectations: a later version may add fields."""
    plain: list[dict[str, Any]] = msgspec.to_builtins(found)
    return [{name: one[name] for name in wanted} for one, wanted in zip(plain, expected, strict=True)]


def found_by(reader: Reader, query: str) -> set[tuple[str, str, int]]:
    return {(hit.resource_type, hit.id, hit.lsn) for hit in reader.search(query, 1000)}


def beginning_with(records: Mapping[tuple[str, str], tuple[Any, int]], prefix: str) -> set[tuple[str, str, int]]:
    """Type, id and LSN of the link records whose id begins with a prefix."""
    return {(kind, id, lsn) for (kind, id), (_, lsn) in records.items() if kind == LINK and id.startswith(prefix)}


def indexed_fields(index: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    """The indexed fields of a record: kv has all, fts5 has two columns on `main` and one text on the other branch."""
    if index["index_type"] == LINKS:
        return fields
    texts = {name: fields[name] for name in ("title", "body")}
    return texts if index["branch"] == MAIN else {"text": "\n".join(texts.values())}


def shows_everything(older: Older, engine: Engine, index: dict[str, Any]) -> None:
    """Assert that an index has every record in its version, and every hit of every query."""
    branch, kind, types = index["branch"], index["index_type"], index["types"]
    records = {key: value for key, value in older.records(branch).items() if key[0] in types}
    with engine.reader(branch, kind, min_lsn=older["branches"][branch]["head_lsn"]) as reader:
        assert reader.count() == len(records)
        for (resource_type, id), (fields, lsn) in records.items():
            held = reader.get(resource_type, id)
            assert held is not None
            assert (held.lsn, held.fields) == (lsn, indexed_fields(index, fields))
        if kind == LINKS:
            for prefix in ("owns/größe-1", "owns/", "größe"):
                assert found_by(reader, prefix) == beginning_with(records, prefix)
        else:
            for word, hits in index["hits"].items():
                assert found_by(reader, word) == {tuple(hit) for hit in hits}, word


def same_lock(lock: Lock, expected: dict[str, Any]) -> bool:
    return bool(as_written([lock], [expected]) == [expected])
