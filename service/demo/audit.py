"""The audit: it reads every acknowledged change back through the live index, and accepts no other record.

Each record has one writer, so the audit is exact. The index must have the last acknowledged version of a record, and no
deleted record. A search for a word of a replaced or deleted text must find nothing.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

import msgspec

from shadowswitch.engine.engine import Engine
from shadowswitch.engine.reader import Reader
from shadowswitch.service.daemon.text_files import RESOURCE_TYPE
from shadowswitch.service.demo.workload import INDEX_TYPE, Acked

SEARCHED_MAX = 1000
"""The audit searches for the marker words of this many records; it looks up every record by id."""
CATCH_UP_TIMEOUT_S = 30.0


class Audited(msgspec.Struct):
    """The work of the audit, and every problem."""

    records: int = 0
    deletes: int = 0
    searches: int = 0
    problems: list[str] = msgspec.field(default_factory=list)


def audit(engine: Engine, branch: str, acked: Mapping[str, Acked], seed: int = 0) -> Audited:
    """Read everything back at the head of the branch. The branch must have no other writer."""
    result = Audited()
    edited = sorted(id for id, last in acked.items() if last.marker)
    searched = set(random.Random(seed).sample(edited, min(SEARCHED_MAX, len(edited))))
    with engine.reader(branch, INDEX_TYPE, min_lsn=engine.head(branch), timeout_s=CATCH_UP_TIMEOUT_S) as reader:
        for id, last in acked.items():
            result.records += 1
            result.deletes += last.deleted
            problem = _look_up(engine, branch, reader, id, last)
            if problem is None and id in searched:
                problem = _search(reader, result, id, last)
            if problem is not None:
                result.problems.append(f"{id}: {problem}")
        indexed, stored = reader.count(), engine.count(branch, RESOURCE_TYPE)
    expected = sum(not last.deleted for last in acked.values())
    if not indexed == stored == expected:
        result.problems.append(f"{expected} records were acknowledged, the branch has {stored}, the index {indexed}")
    return result


def _look_up(engine: Engine, branch: str, reader: Reader, id: str, last: Acked) -> str | None:
    for place, found in (("index", reader.get(RESOURCE_TYPE, id)), ("branch", engine.get(branch, RESOURCE_TYPE, id))):
        if last.deleted:
            if found is not None:
                return f"deleted at LSN {last.lsn}, and back in the {place} with LSN {found.lsn}"
        elif found is None:
            return f"written at LSN {last.lsn}, and lost from the {place}"
        elif found.lsn != last.lsn:
            return f"acknowledged at LSN {last.lsn}, the {place} has LSN {found.lsn}"
        elif last.marker not in found.fields.get("text", ""):
            return f"the {place} has LSN {found.lsn} with another text"
    return None


def _search(reader: Reader, result: Audited, id: str, last: Acked) -> str | None:
    for marker, expected in ((last.marker, [] if last.deleted else [id]), (last.former, [])):
        if marker:
            result.searches += 1
            found = [hit.id for hit in reader.search(marker, limit=5)]
            if found != expected:
                return f"a search for {marker} finds {found}, not {expected}"
    return None
