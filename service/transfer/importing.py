"""Records of a file become records of a branch, in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from shadowswitch.engine.encode import prepare
from shadowswitch.engine.engine import Engine
from shadowswitch.model.errors import InvalidChange, InvalidName
from shadowswitch.model.records import Put
from shadowswitch.service.remote import RemoteEngine
from shadowswitch.service.transfer.lines import Line, WrongLine

BATCH_CHANGES = 500
BATCH_BYTES = 2 << 20
"""A batch is one transaction. Other writers of the branch wait for it, so it stays small."""
WRITE_TIMEOUT_S = 60.0
Progressed = Callable[[int, int], None]
"""Receives the records done, and the bytes of the file up to there."""


class ImportedRecords(msgspec.Struct):
    """The result. `unchanged` records were there already; `lsn` is that of the last write, or 0."""

    records: int = 0
    unchanged: int = 0
    lsn: int = 0


class RecordImport:
    """One import."""

    def __init__(self, engine: Engine | RemoteEngine, branch: str, name: str, progressed: Progressed) -> None:
        self._engine = engine
        self._branch = branch
        self._name = name
        self._progressed = progressed
        self._most = min(BATCH_CHANGES, engine.config.batch_changes_max)
        self.result = ImportedRecords()
        """Up to the last batch that is stored."""
        self._batch: dict[tuple[str, str], Line] = {}
        self._since = 0
        """Where the batch begins, in bytes."""

    def run(self, lines: Iterable[Line]) -> ImportedRecords:
        """Write what differs from the branch. Raises WrongLine, and as `Engine.write`; `result` says what is stored."""
        for line in lines:
            key = (line.put.resource_type, line.put.id)
            if key in self._batch or len(self._batch) >= self._most or line.end - self._since > BATCH_BYTES:
                self._store()
            self._batch[key] = line
        self._store()
        return self.result

    def _store(self) -> None:
        lines = list(self._batch.values())
        self._batch.clear()
        if not lines:
            return
        changed = [line for line in lines if self._differs(line)]
        if changed:
            receipt = self._engine.write(
                self._branch, [line.put for line in changed], owner="import", timeout_s=WRITE_TIMEOUT_S
            )
            self.result.records += len(changed)
            self.result.lsn = receipt.lsn
        self.result.unchanged += len(lines) - len(changed)
        self._since = lines[-1].end
        self._progressed(self.result.records + self.result.unchanged, self._since)

    def _differs(self, line: Line) -> bool:
        put: Put = line.put
        try:
            prepare([put], self._engine.config)
        except (InvalidChange, InvalidName) as error:
            raise WrongLine(f"{self._name}, line {line.number}: {error}") from error
        present = self._engine.get(self._branch, put.resource_type, put.id)
        return present is None or present.fields != put.fields
