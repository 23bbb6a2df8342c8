"""An index that cannot follow the journal says why, wherever one looks, until it follows again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shadowswitch import Engine, Put, SwitchRequest, Timeout
from tests.support.cli_helpers import spawn
from tests.support.engine_helpers import KIND, TYPES, wait_until

REASON = "the map of the index is full and cannot grow now: a scan or a copy of it is open in this process"


def write(engine: Engine, first: int, last: int) -> int:
    batch = [Put("object_type", f"id{number}", {"text": "x" * 5000}) for number in range(first, last)]
    return engine.write("main", batch).lsn


def events(engine: Engine, kind: str) -> list[dict[str, Any]]:
    return [event.data for event in engine.events(limit=1000) if event.type == f"com.shadowswitch.{kind}"]


def index_error(engine: Engine) -> str:
    return engine.index("main", KIND).error or ""


@pytest.fixture
def hindered(open_engine: Any) -> Iterator[tuple[Engine, int, Callable[[], None]]]:
    """An engine with a live `kv` index whose map is full, the LSN that it does not reach, and what ends the cause."""
    engine = open_engine(refresh_interval_ms=10.0)
    engine.create_branch("main")
    write(engine, 0, 20)
    build = {"backend": "kv", "map_size_mib": 1}
    assert engine.rebuild("main", KIND, TYPES, build, SwitchRequest(), timeout_s=60).success
    reader = engine.reader("main", KIND)
    rows = reader.scan()
    next(rows)
    lsn = write(engine, 20, 1000)

    def end() -> None:
        list(rows)
        reader.close()

    yield engine, lsn, end
    reader.close()


def test_the_reason_is_in_every_place_until_the_index_follows_again(
    hindered: tuple[Engine, int, Callable[[], None]], data_dir: Path
) -> None:
    engine, lsn, end = hindered
    wait_until(lambda: index_error(engine))
    assert REASON in index_error(engine)
    with pytest.raises(Timeout, match=f"it cannot follow the journal: {REASON}") as late:
        engine.reader("main", KIND, min_lsn=lsn, timeout_s=0.1)
    assert "end the cause" in late.value.hint
    wait_until(lambda: events(engine, "generation.hindered"))
    assert REASON in events(engine, "generation.hindered")[0]["reason"]
    status, _ = spawn("status", "--data", data_dir, "--json").communicate(timeout=60)
    assert REASON in json.loads(status)["indexes"][0]["error"]
    end()
    with engine.reader("main", KIND, min_lsn=lsn, timeout_s=30) as found:
        assert found.count() == 1000
    wait_until(lambda: events(engine, "generation.follows"))
    assert index_error(engine) == ""
    assert len(events(engine, "generation.hindered")) == len(events(engine, "generation.follows")) == 1


def test_a_restart_forgets_a_reason_that_is_gone(
    hindered: tuple[Engine, int, Callable[[], None]], open_engine: Any
) -> None:
    engine, lsn, _ = hindered
    wait_until(lambda: events(engine, "generation.hindered"))
    engine.close()
    again = open_engine()
    with again.reader("main", KIND, min_lsn=lsn, timeout_s=30) as found:
        assert found.count() == 1000
    wait_until(lambda: index_error(again) == "")
    wait_until(lambda: events(again, "generation.follows"))


def test_a_map_that_is_full_grows_beside_readers_and_is_no_reason(open_engine: Any) -> None:
    engine = open_engine()
    engine.create_branch("main")
    write(engine, 0, 20)
    build = {"backend": "kv", "map_size_mib": 1, "shards": 2}
    assert engine.rebuild("main", KIND, TYPES, build, SwitchRequest(), timeout_s=60).success
    with engine.reader("main", KIND) as early:
        lsn = write(engine, 20, 1500)
        with engine.reader("main", KIND, min_lsn=lsn, timeout_s=30) as found:
            assert found.count() == 1500
        assert early.get("object_type", "id1499") is not None
    assert events(engine, "generation.hindered") == []
    assert engine.rebuild("main", KIND, TYPES, build, SwitchRequest(), timeout_s=60).success  # a worker grows it, too
    assert engine.rollback("main", KIND).success
