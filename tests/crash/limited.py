"""A host under the limits of the operating system. Run as a script: python -m tests.crash.limited DATA MODE.

It prints one line of JSON with what came about; its limits are those of this process and of its workers.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from shadowswitch import Config, Engine, Put, ResourceExhausted, ShadowSwitchError
from tests.support import inside
from tests.support.engine_helpers import KIND, TYPES, fill, found, live, put, wait_until

LEFT_DESCRIPTORS = 40
TRIES_MAX = 2000
GIB = 1 << 30
SETTINGS: dict[str, Any] = {"refresh_interval_ms": 5.0, "disk_reserve_bytes": 1 << 20}


def readers(data: Path) -> dict[str, Any]:
    """Readers are opened until no descriptor is left, searched in, and closed again."""
    with Engine.open(data, Config(**SETTINGS)) as engine:
        engine.create_branch("main")
        fill(engine, 50)
        live(engine)
        number = live(engine, tokenizer="porter")
        highest = max(int(name) for name in os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + LEFT_DESCRIPTORS, resource.getrlimit(7)[1]))
        error: ShadowSwitchError | None = None
        with ExitStack() as opened:
            for _ in range(TRIES_MAX):
                try:
                    opened.enter_context(engine.reader("main", KIND))
                except ShadowSwitchError as caught:
                    error = caught
                    break
            refused = [attempt(lambda: found(engine, "hello")) for _ in range(3)]
        lsn = engine.write("main", [put("late", "late")]).lsn
        return {
            "error": type(error).__name__,
            "resource": getattr(error, "resource", ""),
            "hint": error.hint if error is not None else "",
            "refused": refused,
            "back": len(found(engine, "hello", min_lsn=lsn)),
            "live": engine.index("main", KIND).generation == number,
            "previous": engine.index("main", KIND).previous_generation is not None,
            "pins": engine.stats()["pins"],
            "findings": [str(finding) for finding in engine.check()],
            "rollbacks": inside.counter(engine, "automatic_rollbacks"),
        }


def attempt(call: Any) -> str:
    try:
        call()
    except ShadowSwitchError as error:
        return type(error).__name__
    return ""


def file_size(data: Path) -> dict[str, Any]:
    """Files may not grow beyond a limit: writes, an index that follows, a build; then the limit is lifted."""
    with Engine.open(data, Config(**SETTINGS)) as engine:
        engine.create_branch("main")
        fill(engine, 200)
        live(engine)
        live_kv = engine.rebuild("main", "GRAPH_INDEX", TYPES, {"parallel_workers": 1}, timeout_s=60)
        assert live_kv.success, live_kv.message
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        size = max(file.stat().st_size for file in data.rglob("*") if file.is_file())
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 300_000, hard))
        errors: list[ShadowSwitchError] = []
        acknowledged = 0
        for number in range(TRIES_MAX):
            try:
                engine.write("main", [Put("object_type", f"large{number}", {"text": os.urandom(20_000).hex()})])
                acknowledged += 1
            except ShadowSwitchError as error:
                errors.append(error)
                if len(errors) == 5:
                    break
        small = attempt(lambda: engine.rebuild("main", KIND, TYPES, {"parallel_workers": 1}, timeout_s=60))
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        lsn = engine.write("main", [put("late", "late")]).lsn
        late = found(engine, "late", min_lsn=lsn, timeout_s=60)
        again = engine.rebuild("main", KIND, TYPES, {"parallel_workers": 1}, timeout_s=60)
        with engine.reader("main", "GRAPH_INDEX", min_lsn=lsn, timeout_s=60) as reader:
            held = reader.count()
        return {
            "errors": sorted({type(error).__name__ for error in errors}),
            "hints": sorted({error.hint for error in errors}),
            "build": small,
            "late": sorted(late),
            "again": again.success,
            "lost": 200 + acknowledged + 1 - engine.count("main"),
            "held": held - engine.count("main"),
            "findings": [str(finding) for finding in engine.check()],
        }


def address_space(data: Path) -> dict[str, Any]:
    """There is not enough address space for the ordinary map; a smaller one does, in the workers, too."""
    resource.setrlimit(resource.RLIMIT_AS, (6 * GIB, resource.RLIM_INFINITY))
    error: ShadowSwitchError | None = None
    try:
        Engine.open(data, Config(**SETTINGS)).close()
    except ResourceExhausted as caught:
        error = caught
    with Engine.open(data, Config(**SETTINGS, map_size_bytes=GIB // 4)) as engine:
        engine.create_branch("main")
        fill(engine, 50)
        number = live(engine)
        too_large = {"parallel_workers": 1, "map_size_mib": 1 << 14}
        shadow = engine.start_build("main", "GRAPH_INDEX", TYPES, too_large)
        wait_until(lambda: engine.shadow(shadow.shadow_index_id).error, 60.0, "a build that waits")
        waiting = engine.shadow(shadow.shadow_index_id)
        engine.cancel_build(shadow.shadow_index_id, "enough seen")
        return {
            "resource": error.resource if isinstance(error, ResourceExhausted) else "",
            "hint": error.hint if error is not None else "",
            "generation": number,
            "found": len(found(engine, "hello")),
            "waiting": [waiting.state, waiting.error],
            "deaths": inside.counter(engine, "worker_deaths"),
            "findings": [str(finding) for finding in engine.check()],
        }


if __name__ == "__main__":
    modes = {"readers": readers, "file_size": file_size, "address_space": address_space}
    print(json.dumps(modes[sys.argv[2]](Path(sys.argv[1]))))
