"""A host for the stateful test: reads one JSON command a line, answers one line. The test kills it now and then.

python stateful_host.py DATA
"""

from __future__ import annotations

import json
import sys
from typing import Any

from shadowswitch import Config, Delete, Engine, Put, ShadowState, ShadowSwitchError, SwitchRequest

BRANCH, KIND, TYPE = "main", "SEARCH_INDEX", "object_type"
CONFIGS = [{"tokenizer": "porter", "shards": 1}, {"shards": 2}, {"backend": "kv", "shards": 2}]


def built(engine: Engine) -> str | None:
    """The shadow that waits for its switch, if there is one."""
    waiting = engine.shadows(BRANCH, ShadowState.BUILT)
    return waiting[0].shadow_index_id if waiting else None


def under_way(engine: Engine) -> list[str]:
    states = (ShadowState.PREPARING, ShadowState.BUILDING, ShadowState.BUILT)
    return [s.shadow_index_id for s in engine.shadows(BRANCH) if s.state in states]


def perform(engine: Engine, name: str, arguments: list[Any]) -> Any:
    if name == "write":
        changes = [Put(TYPE, id, {"text": text}) if text is not None else Delete(TYPE, id) for id, text in arguments]
        return engine.write(BRANCH, changes).lsn
    if name == "build":
        return engine.start_build(BRANCH, KIND, [TYPE], CONFIGS[arguments[0]]).shadow_index_id
    if name == "wait":
        return [engine.wait_for(shadow, timeout_s=60).state for shadow in under_way(engine)]
    if name == "cancel":
        return [engine.cancel_build(shadow).state for shadow in under_way(engine)]
    if name == "switch":
        waiting = built(engine)
        return engine.switch(waiting, SwitchRequest(allow_empty=True)).success if waiting else None
    if name == "rollback":
        return engine.rollback(BRANCH, KIND).success
    if name == "clean_up":
        return engine.clean_up()
    return observe(engine)


def observe(engine: Engine) -> dict[str, Any]:
    """The visible state: the records, the records in the live index, the findings of fsck."""
    records = {record.id: (record.fields["text"], record.lsn) for record in engine.scan(BRANCH)}
    held = None
    if engine.indexes(BRANCH):
        with engine.reader(BRANCH, KIND, min_lsn=engine.head(BRANCH), timeout_s=20) as reader:
            held = {record.id: (record.fields["text"], record.lsn) for record in reader.scan()}
            assert reader.count() == len(held)
    return {"records": records, "held": held, "check": [str(finding) for finding in engine.check()]}


def main() -> None:
    settings = Config(refresh_interval_ms=5, janitor_interval_s=0.1, copy_slice_rows=3, disk_reserve_bytes=0)
    with Engine.open(sys.argv[1], settings) as engine:
        if not engine.branches():
            engine.create_branch(BRANCH)
        print(json.dumps("ready"), flush=True)
        for line in sys.stdin:
            name, arguments = json.loads(line)
            try:
                answer: Any = {"done": perform(engine, name, arguments)}
            except ShadowSwitchError as error:
                answer = {"refused": f"{type(error).__name__}: {error}"}
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
