"""The other process of some tests: a writer that is killed, or a reader beside a writer.

    main("write", SPEC, OPTIONS, PATH, FIELDS, SEED)
    main("read", SPEC, OPTIONS, PATH)

`write` carries out the steps of a seed and prints the number of each after its commit; `read` answers each line of its
input, a query, with {"applied_lsn", "count", "hits"}. OPTIONS and FIELDS are JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from shadowswitch.storage.backends import registry
from shadowswitch.storage.backends.protocol import Backend, ShardWriter
from shadowswitch.storage.conformance.expected import Batches, Expected, Fields, last_lsn
from shadowswitch.storage.interpreter import start_python

LOADS, APPLIES, ITEMS = 12, 24, 150
STEPS = LOADS + 1 + APPLIES
Step = Callable[[ShardWriter | Expected], None]


def steps(seed: int, fields_for: Callable[[str], Fields]) -> Iterator[Step]:
    """The life of a shard: slices of a copy, its end, then slices of a journal."""
    batches = Batches(seed, fields_for)
    for number in range(LOADS):
        yield _load(batches.puts(ITEMS), b"slice-%d" % number)
    at_lsn = batches.lsn
    yield lambda shard: shard.finish_load(at_lsn)
    for _ in range(APPLIES):
        yield _apply(batches.changes(ITEMS), batches.lsn)


def _load(items: list[Any], cursor: bytes) -> Step:
    return lambda shard: shard.load(items, cursor)


def _apply(items: list[Any], before: int) -> Step:
    lsn = last_lsn(items, before)

    def step(shard: ShardWriter | Expected) -> None:
        shard.apply(items, lsn)

    return step


def fields_maker(template: str) -> Callable[[str], Fields]:
    """A function from a word to the fields of a JSON template with WORD."""
    return lambda word: json.loads(template.replace("WORD", word))


def start(role: str, spec: str, options: Any, path: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start the other process; it can import what this one can."""
    return start_python(
        f"from {__name__} import main; main(*sys.argv[1:])",
        role,
        spec,
        json.dumps(options),
        str(path),
        *arguments,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )


def _write(backend: Backend, options: Any, path: Path, template: str, seed: str) -> None:
    writer = backend.open_writer(path, options)
    for number, step in enumerate(steps(int(seed), fields_maker(template)), 1):
        step(writer)
        if number % 7 == 0:
            writer.flush()
        os.write(1, b"%d\n" % number)
    writer.close()


def _read(backend: Backend, options: Any, path: Path) -> None:
    reader = backend.open_reader([path], options)
    for line in sys.stdin:
        hits = reader.search(line.rstrip("\n"), 1000)
        answer = {"applied_lsn": reader.applied_lsn(), "count": reader.count(), "hits": [hit.id for hit in hits]}
        print(json.dumps(answer), flush=True)
    reader.close()


def main(role: str, spec: str, options: str, path: str, *arguments: str) -> None:
    """The whole process."""
    roles: dict[str, Callable[..., None]] = {"write": _write, "read": _read}
    roles[role](registry.load(spec), json.loads(options), Path(path), *arguments)
