"""Benchmark 18, the query kinds: build, changes and queries of graph, schema, validation and vector, beside bare.

    python -m benchmarks.bench_kinds [--records 100000] [--vectors 50000,200000] [--rounds 3]

Bare is the same library without an index around it: LMDB with the rows and two edges of each link; jsonschema-rs, and
LMDB with a row for each record and violation; LMDB with the rows and numpy with a matrix. One shard, batches of 1,000
(a build) and of 50 (changes). Builds and changes by the processor time of the process, queries by that of the thread.
Then HNSW beside an exact search, and what an index that embeds asks of its model.
"""

from __future__ import annotations

import ctypes
import gc
import random
import resource
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import common
from benchmarks.bare_kinds import LOADED, SCHEMA, BareGraph, BareRules, BareVectors, Build, batches
from benchmarks.common import BENCH_CONFIG, BRANCH, Report, quantile
from shadowswitch.engine.engine import Engine
from shadowswitch.model.digest import key_hash
from shadowswitch.model.kinds.asking import Asking
from shadowswitch.model.records import Item, Put
from shadowswitch.storage.backends import registry

APPLIED, CHANGES, QUERIES = 50, 5000, 2000
DIMENSIONS, EMBEDDED = 384, 32
LINK = {"from": "source", "to": "target", "kind": "name", "from_type": "node", "to_type": "node"}
Ask = Callable[[Any], Any]


def item(lsn: int, resource_type: str, id: str, fields: dict[str, Any]) -> Item:
    """A put."""
    return Item(lsn, resource_type, id, key_hash(resource_type, id), fields)


class Ours:
    """A shard of a backend."""

    def __init__(self, backend: str, build_config: dict[str, Any]) -> None:
        self._backend = registry.backend(backend)
        self._options = self._backend.configure({**build_config, "map_size_mib": 16384})
        self.reader: Any = None

    def build(self, folder: Path, items: list[Item]) -> Callable[[Sequence[Item]], object]:
        """See `Build`. Leaves a reader open."""
        path = folder / "shard-000"
        self._backend.create_shard(path, self._options)
        writer = self._backend.open_writer(path, self._options)
        for batch in batches(items, LOADED):
            writer.load(batch, b"c")
        writer.finish_load(items[-1].lsn)
        self.reader = self._backend.open_reader([path], self._options)
        return lambda changes: writer.apply(changes, changes[-1].lsn)


def rates(build: Build, folder: Path, items: list[Item], changes: list[Item]) -> tuple[float, float]:
    """Records of a build and changes, each in a second of the processor."""
    folder.mkdir(parents=True)
    begun = time.process_time()
    apply = build(folder, items)
    built = len(items) / (time.process_time() - begun)
    begun = time.process_time()
    for batch in batches(changes, APPLIED):
        apply(batch)
    return built, len(changes) / (time.process_time() - begun)


def microseconds(call: Callable[[Any], Any], queries: Sequence[Any]) -> float:
    """The median of a query, by the processor time of this thread."""
    times = []
    for query in queries:
        begun = time.thread_time()
        call(query)
        times.append((time.thread_time() - begun) * 1e6)
    return quantile(times, 0.5)


def used_bytes(folder: Path) -> int:
    """What the files of a folder take on the disk: the page cache holds as much of them as there is memory."""
    return sum(512 * file.stat().st_blocks for file in folder.rglob("*") if file.is_file())


def resident_bytes() -> int:
    """The memory of this process without the pages of files, nor what it has freed."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    fields = Path("/proc/self/statm").read_text().split()
    return (int(fields[1]) - int(fields[2])) * resource.getpagesize()


class Kind:
    """One kind beside its bare library: the rows of its table."""

    def __init__(self, report: Report, name: str, rounds: int, folder: Path) -> None:
        self._report = report
        self._name = name
        self._rounds = rounds
        self._folder = folder
        self._lines: list[str] = []

    def measure(self, ours: Ours, bare: Any, items: list[Item], changes: list[Item]) -> None:
        """Build and changes, in turns; the last round stays open."""
        found: list[tuple[tuple[float, float], tuple[float, float]]] = []
        for number in range(self._rounds):
            if number:
                shutil.rmtree(self._folder / str(number - 1))
            both = [
                rates(way.build, self._folder / str(number) / part, items, changes)
                for part, way in (("ours", ours), ("bare", bare))
            ]
            found.append((both[0], both[1]))
        for place, what in enumerate(("build", "changes")):
            ours_s, bare_s = (quantile([one[side][place] for one in found], 0.5) for side in (0, 1))
            self.row(what, f"{ours_s:,.0f} /s", f"{bare_s:,.0f} /s", ours_s / bare_s)
        sizes = [used_bytes(self._folder / str(self._rounds - 1) / part) / len(items) for part in ("ours", "bare")]
        self.row("file", f"{sizes[0]:,.0f} bytes a record", f"{sizes[1]:,.0f}", None)

    def query(
        self, what: str, ours: Callable[[Any], Any], bare: Callable[[Any], Any] | None, asked: Sequence[Any]
    ) -> float:
        """A query in microseconds."""
        mine = microseconds(ours, asked)
        other = microseconds(bare, asked) if bare is not None else None
        shown = f"{other:.1f} us" if other is not None else ""
        self.row(what, f"{mine:.1f} us", shown, other / mine if other is not None else None)
        return mine

    def row(self, what: str, ours: str, bare: str, ratio: float | None) -> None:
        """One line, and a target for a ratio."""
        self._lines.append(f"| {self._name} | {what} | {ours} | {bare} | {'' if ratio is None else f'{ratio:.2f}'} |")
        if ratio is not None:
            self._report.target(f"{self._name}, {what}: at least 0.8 of bare", f"{ratio:.2f}", ratio >= 0.8)

    def close(self) -> None:
        """Add the lines, remove the files."""
        self._report.text += "\n".join(self._lines) + "\n"
        shutil.rmtree(self._folder, ignore_errors=True)


def graph(report: Report, count: int, rounds: int, folder: Path) -> None:
    """Links of chance between a third as many nodes."""
    chance = random.Random(1)

    def link(lsn: int, number: int) -> Item:
        ends = [f"n{chance.randrange(count // 3 + 1)}" for _ in range(2)]
        return item(lsn, "link", f"l{number}", {"source": ends[0], "target": ends[1], "name": "uses"})

    items = [link(number + 1, number) for number in range(count)]
    changes = [link(count + number + 1, chance.randrange(count)) for number in range(min(CHANGES, count))]
    ours, bare = Ours("graph", {"edges": {"link": LINK}}), BareGraph()
    kind, asking = Kind(report, "graph", rounds, folder / "graph"), Asking()
    kind.measure(ours, bare, items, changes)
    nodes = [f"n{chance.randrange(count // 3 + 1)}" for _ in range(QUERIES)]
    with closing(ours.reader) as reader:
        hop = kind.query("one hop", lambda node: reader.neighbours(asking, ("node", node)), bare.hop, nodes)
        kind.query("impact, 3 deep", lambda node: reader.impact(asking, ("node", node)), None, nodes[:200])
        kind.query("path", lambda node: reader.path(asking, ("node", node), ("node", "n1")), None, nodes[:200])
        dangling = microseconds(lambda _: reader.dangling(Asking(resource_types=["link"]), 1), [0])
    report.figure("dangling over all links", dangling / 1e6, "s")
    report.target("graph: one hop at most 20 us", f"{hop:.1f} us", hop <= 20)
    kind.close()


def validation(report: Report, count: int, rounds: int, folder: Path) -> None:
    """A tenth of the records lacks a field."""
    chance = random.Random(2)

    def record(lsn: int, number: int) -> Item:
        fields: dict[str, Any] = {"title": f"t{number}", "size": number, "body": "some words " * 8}
        if chance.random() < 0.1:
            del fields["size"]
        return item(lsn, "doc", f"d{number}", fields)

    items = [record(number + 1, number) for number in range(count)]
    changes = [record(count + number + 1, chance.randrange(count)) for number in range(min(CHANGES, count))]
    ours, bare = Ours("validation", {"schemas": {"doc": SCHEMA}}), BareRules()
    kind, asking = Kind(report, "validation", rounds, folder / "validation"), Asking()
    kind.measure(ours, bare, items, changes)
    ids = [f"d{chance.randrange(count)}" for _ in range(QUERIES)]
    with closing(ours.reader) as reader:
        kind.query("is_valid", lambda id: reader.is_valid(asking, "doc", id), bare.is_valid, ids)
        kind.query("a page of 100", lambda _: reader.list(asking, limit=100), None, range(100))
        kind.query("counts", lambda _: reader.counts(asking), None, range(5))
    from shadowswitch.storage.backends.validation.rules import Rules  # the extra was looked for by now

    rules = Rules({"doc": SCHEMA})
    begun = time.process_time()
    for one in items:
        for _ in rules.violations("doc", one.id, one.fields or {}):
            pass
    rate = count / (time.process_time() - begun)
    report.target("validation: at least 200,000 records/s on one core", f"{rate:,.0f}", rate >= 200_000)
    kind.close()


def schema(report: Report, count: int, rounds: int, folder: Path) -> None:
    """A hundredth of the records are types, the others use them."""
    chance, types = random.Random(3), max(1, count // 100)
    properties = {f"p{number}": "string" for number in range(10)}
    items = [item(number + 1, "object_type", f"T{number}", {"properties": properties}) for number in range(types)]
    for number in range(types, count):
        fields = {"type": f"T{chance.randrange(types)}", "columns": [f"p{chance.randrange(10)}"]}
        items.append(item(number + 1, "view", f"v{number}", fields))
    ours = Ours("schema", {"uses": {"view": {"type": "type", "properties": "columns"}}})
    kind, asking = Kind(report, "schema", rounds, folder / "schema"), Asking()
    built, _ = rates(ours.build, folder / "schema" / "0", items, items[:1])
    kind.row("build", f"{built:,.0f} /s", "", None)
    names = [f"T{chance.randrange(types)}" for _ in range(200)]
    with closing(ours.reader) as reader:
        kind.query("users_of a type", lambda name: reader.users_of(asking, name), None, names)
        kind.query("compatible", lambda name: reader.compatible(asking, {name: {"p1": "int"}}), None, names)
    kind.close()


def vectors(report: Report, count: int, rounds: int, folder: Path) -> None:
    """Vectors of chance."""
    chance = np.random.default_rng(4)
    changed = min(CHANGES, count)
    values = chance.standard_normal((count + changed, DIMENSIONS), np.float32).tolist()
    items = [item(number + 1, "doc", f"d{number}", {"v": values[number]}) for number in range(count)]
    ids = [f"d{number}" for number in chance.integers(count, size=changed)]
    changes = [item(count + n + 1, "doc", id, {"v": values[count + n]}) for n, id in enumerate(ids)]
    ours, bare = Ours("vector", {"vector_field": "v", "dimensions": DIMENSIONS}), BareVectors()
    kind, asking = Kind(report, f"vector, {count:,}", rounds, folder / f"vector-{count}"), Asking()
    kind.measure(ours, bare, items, changes)
    bare.read()
    queries = chance.standard_normal((100, DIMENSIONS), np.float32).tolist()
    with closing(ours.reader) as reader:
        before, begun = resident_bytes(), time.perf_counter()
        reader.nearest(asking, queries[0])
        report.figure(f"first search of {count:,} vectors", time.perf_counter() - begun, "s", "it reads them all")
        report.figure("memory of a process that searches them", (resident_bytes() - before) / 1e6, "MB")
        kind.query("ten nearest", partial(reader.nearest, asking), bare.nearest, queries)
        right = [
            len({hit.id for hit in reader.nearest(asking, query)} & set(bare.nearest(query))) / 10
            for query in queries
        ]  # fmt: skip
    recall = sum(right) / len(right)
    least = 0.98 if count <= 50_000 else 0.95
    report.target(f"vector: recall@10 at least {least} at {count:,}", f"{recall:.3f}", recall >= least)
    kind.close()


def approximate(report: Report, count: int, folder: Path) -> None:
    """HNSW beside an exact search of the same vectors, which lie around 32 directions, as those of texts do."""
    chance = np.random.default_rng(6)
    directions = chance.standard_normal((32, DIMENSIONS), np.float32)

    def drawn(number: int) -> Any:
        inner = chance.standard_normal((number, 32), np.float32) @ directions
        return inner + 0.3 * chance.standard_normal((number, DIMENSIONS), np.float32)

    items = [item(number + 1, "doc", f"d{number}", {"v": row}) for number, row in enumerate(drawn(count).tolist())]
    queries, asking = drawn(200).tolist(), Asking()
    ways = {}
    for name, exact_max in (("exact", count), ("hnsw", count - 1)):
        way = ways[name] = Ours("vector", {"vector_field": "v", "dimensions": DIMENSIONS, "exact_max": exact_max})
        (folder / name).mkdir(parents=True)
        begun = time.perf_counter()
        way.build(folder / name, items)
        report.figure(f"{name}: build of {count:,} vectors", time.perf_counter() - begun, "s")
        before = resident_bytes()
        way.reader.nearest(asking, queries[0])
        report.figure(f"{name}: memory of a process that searches", (resident_bytes() - before) / 1e6, "MB")
        report.figure(
            f"{name}: ten nearest of {count:,}", microseconds(partial(way.reader.nearest, asking), queries), "us"
        )
    exact, hnsw = (ways[name].reader for name in ("exact", "hnsw"))
    right = [
        len({hit.id for hit in hnsw.nearest(asking, query)} & {hit.id for hit in exact.nearest(asking, query)})
        for query in queries
    ]
    recall = sum(right) / len(right) / 10
    report.target(f"hnsw: recall@10 at least 0.95 at {count:,}", f"{recall:.3f}", recall >= 0.95)
    for way in ways.values():
        way.reader.close()
    shutil.rmtree(folder)


def embed(texts: list[str]) -> list[list[float]]:
    """Stands for a model: vectors by the hash of each text."""
    return [[byte - 128.0 for byte in blake2b(text.encode(), digest_size=EMBEDDED).digest()] for text in texts]


def embedding(report: Report, count: int, folder: Path) -> None:
    """What is embedded: cold, after an edit of 1 %, with the same model again, in a fork, and on the way back."""
    build = {"backend": "vector", "embedder": "benchmarks.bench_kinds:embed", "field": "text", "dimensions": EMBEDDED}
    lines = ["\n| an index that embeds | s | texts embedded |", "|---|---|---|"]

    from shadowswitch.storage.backends.vector.cache import embedded_in  # of the extra

    def step(what: str, call: Callable[[], Any]) -> int:
        before, begun = embedded_in(folder / "data"), time.perf_counter()
        call()
        taken, more = time.perf_counter() - begun, embedded_in(folder / "data") - before
        lines.append(f"| {what} | {taken:.2f} | {more:,} |")
        return more

    def edit() -> None:
        changed = [Put("doc", f"d{number}", {"text": f"edited {number}"}) for number in range(max(1, count // 100))]
        lsn = engine.write(BRANCH, changed).lsn
        with engine.reader(BRANCH, "VECTOR_INDEX", lsn, 120):
            pass

    def one() -> None:
        lsn = engine.write(BRANCH, [Put("doc", "d0", {"text": "one more edit"})]).lsn
        with engine.reader(BRANCH, "VECTOR_INDEX", lsn, 120):
            pass

    def fork() -> None:
        engine.fork_branch("fork", BRANCH)
        with engine.reader("fork", "VECTOR_INDEX", timeout_s=120):
            pass

    def rebuild(**more: Any) -> None:
        result = engine.rebuild(BRANCH, "VECTOR_INDEX", ["doc"], {**build, "parallel_workers": 1, **more})
        report.problems += [] if result.success else [result.message]

    with Engine.open(folder / "data", BENCH_CONFIG) as engine:
        engine.create_branch(BRANCH)
        for first in range(0, count, LOADED):
            numbers = range(first, min(count, first + LOADED))
            engine.write(BRANCH, [Put("doc", f"d{number}", {"text": f"text {number}"}) for number in numbers])
        step("a build, cold", rebuild)
        step("an edit of 1 %", edit)
        edited = step("an edit of one record", one)
        again = step("a build with the same model", partial(rebuild, shards=2))
        forked = step("a fork with its index", fork)
        back = step("a rollback", lambda: engine.rollback(BRANCH, "VECTOR_INDEX"))
        report.problems += [str(finding) for finding in engine.check()]
    report.target("an edit embeds exactly one record", str(edited), edited == 1)
    report.target(
        "a rebuild, a fork and a rollback embed none", f"{again}, {forked}, {back}", not (again or forked or back)
    )
    report.text += "\n".join(lines) + "\n"


def main() -> int:
    """The command."""
    parser = common.arguments(__doc__)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--vectors", default="50000,200000")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    what = f"{options.records:,} records; vectors of {DIMENSIONS} dimensions; one shard, batches of {APPLIED} changes"
    report = Report("18. Query kinds", what)
    report.text += "| kind | | ours | bare | ours / bare |\n|---|---|---|---|---|\n"
    with common.scratch(options.folder) as folder:
        for measure in (graph, validation, schema):
            measure(report, options.records, options.rounds, folder)
        for count in map(int, options.vectors.split(",")):
            vectors(report, count, options.rounds if count <= 50_000 else 1, folder)
        approximate(report, max(map(int, options.vectors.split(","))), folder / "approximate")
        embedding(report, options.records // 5, folder)
    return common.finish(report, options)


if __name__ == "__main__":
    sys.exit(main())
