"""Verification of a generation that has just become live, while writers write and delete."""

from __future__ import annotations

from typing import Any

import pytest

from shadowswitch import Delete, Engine
from tests.support import inside
from tests.support.engine_helpers import KIND, built, fill, live, put


@pytest.mark.parametrize("change", ["deleted", "edited"])
def test_a_record_that_changes_between_two_looks_is_no_finding(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    fill(engine, 300)
    live(engine)
    shadow = built(engine)
    changed: list[str] = []

    def read_records(ordinary: Any, *arguments: Any) -> Any:
        piece = ordinary(*arguments)
        for item in piece.items if not changed else ():
            what = Delete("object_type", item.id) if change == "deleted" else put(item.id, "edited")
            lsn = engine.write("main", [what]).lsn
            engine.reader("main", KIND, min_lsn=lsn).close()  # the index has applied it
            changed.append(item.id)
        return piece

    inside.wrap(monkeypatch, inside.Step.VERIFY_READ_SOURCE, read_records)
    result = engine.switch(shadow.shadow_index_id)
    assert result.success, result.message
    assert len(changed) == 1


def test_a_record_that_is_not_there_is_a_finding(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(engine, 300)
    first = live(engine)
    shadow = built(engine)

    class Blind:
        def __init__(self, reader: Any) -> None:
            self._reader = reader

        def __getattr__(self, name: str) -> Any:
            return getattr(self._reader, name)

        def get(self, *_: str) -> None:
            return None

    inside.verify_through(monkeypatch, Blind)
    result = engine.switch(shadow.shadow_index_id)
    assert (result.success, result.rolled_back) == (False, True), result.message
    assert "cannot be read (IX-3)" in result.message
    assert engine.index("main", KIND).generation == first
