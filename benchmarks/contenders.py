"""The contenders of bench_switch: shadowswitch, and the usual alternatives. Each has two whole generations.

    ShadowSwitch   Engine.rollback, back and forth: the switch with its digest check
    LinkFlip       SQLite FTS5: writers kept out by a lock, the changes of the log replayed, a link replaced
    Moves          SQLite FTS5: two `shutil.move` under a lock, as in the report; nothing is replayed
    TantivyFlip    Tantivy: a log on disk, a lock, replay, commit, a link replaced

Every write is durable when it returns. Writers overwrite random records. A reader searches for two words, and resolves
the path before each search.
"""

from __future__ import annotations

import os
import random
import shutil
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any, Protocol

import msgspec

from benchmarks.common import BENCH_CONFIG, BRANCH, KIND, TYPE, WORDS, fill, fill_values, optional, record
from benchmarks.ledger import Key, Ledger
from benchmarks.paths import BACKEND, OPTIONS, SHARD, PathIndex, create, item_of, point_link
from shadowswitch.engine.engine import Engine
from shadowswitch.model.records import Item, Put
from shadowswitch.model.views import SwitchRequest


class Contender(Protocol):
    """A host with an index that can be switched. `write` and `read` on any thread."""

    name: str
    ledger: Ledger

    def write(self, chance: random.Random) -> None:
        """One durable write of any record."""
        ...

    def read(self, chance: random.Random) -> None:
        """One search."""
        ...

    def switch(self) -> float | None:
        """Switch to the other generation; the ms for which writers were kept out, None when that is unknown."""
        ...

    def held(self) -> dict[Key, int]:
        """Everything that the live index holds, while no writer runs."""
        ...

    def close(self) -> None:
        """Release everything."""
        ...


def words(chance: random.Random) -> str:
    """A query of two words."""
    return " ".join(chance.choices(WORDS, k=2))


def key_of(id: str) -> Key:
    """The key of a record of these benchmarks."""
    return (BRANCH, TYPE, id)


class ShadowSwitch:
    """Ours."""

    def __init__(self, folder: Path, records: int, build_config: dict[str, Any], rebuilds: int = 2) -> None:
        self.name = f"shadowswitch {build_config['backend']}"
        self.ledger = Ledger()
        self._records = records
        self._text_search = build_config["backend"] == "fts5"
        self.engine = Engine.open(folder / "data", BENCH_CONFIG)
        self.engine.create_branch(BRANCH)
        fill(self.engine, records)
        for found in self.engine.scan(BRANCH):
            self.ledger.imported(key_of(found.id), found.lsn)
        for _ in range(rebuilds):
            result = self.engine.rebuild(BRANCH, KIND, [TYPE], build_config, seed="never")
            assert result.success, result.message

    def write(self, chance: random.Random) -> None:
        change = record(chance.randrange(self._records), chance)
        lsn = self.engine.write(BRANCH, [change]).lsn
        self.ledger.acked(key_of(change.id), lsn, deleted=False)

    def read(self, chance: random.Random) -> None:
        with self.engine.reader(BRANCH, KIND) as reader:
            if self._text_search:
                reader.search(words(chance))
            else:
                reader.get(TYPE, f"r{chance.randrange(self._records):07d}")

    def switch(self) -> float:
        result = self.engine.rollback(BRANCH, KIND, SwitchRequest(validation_checks=("DIGEST",)))
        if not result.success:
            raise RuntimeError(result.message)
        return result.sealed_ms

    def held(self) -> dict[Key, int]:
        with self.engine.reader(BRANCH, KIND, min_lsn=self.engine.head(BRANCH), timeout_s=60) as reader:
            return {key_of(found.id): found.lsn for found in reader.scan()}

    def close(self) -> None:
        self.engine.close()


class LinkFlip:
    """Two fts5 directories and a link. Writers hold the lock for their own write, as does the switch for its replay."""

    name = "SQLite FTS5, lock, replay, link flip"

    def __init__(self, folder: Path, records: int) -> None:
        self.ledger = Ledger()
        self._records = records
        self._lsn = 0
        self._log: deque[Item] = deque()
        self._generations = [create(folder / f"generation-{n}") for n in range(2)]
        self._live = 0
        self._load(records)
        self._link = folder / "current"
        self._place()
        self._index = PathIndex(self._link, durable=True)

    def _load(self, records: int) -> None:
        writers = [BACKEND.open_writer(path / SHARD, OPTIONS) for path in self._generations]
        for start, changes in fill_values(records):
            items = [item_of(change, start + at + 1) for at, change in enumerate(changes)]
            for writer in writers:
                writer.load(items, b"")
            for item in items:
                self.ledger.imported(key_of(item.id), item.lsn)
        self._lsn = records
        for writer in writers:
            writer.finish_load(0)
            writer.flush()
            writer.close()

    def _place(self) -> None:
        point_link(self._link, self._generations[self._live])

    def write(self, chance: random.Random) -> None:
        change = record(chance.randrange(self._records), chance)
        with self._index.lock:
            self._lsn += 1
            item = item_of(change, self._lsn)
            self._index.apply([item])
            self._log.append(item)
        self.ledger.acked(key_of(change.id), item.lsn, deleted=False)

    def read(self, chance: random.Random) -> None:
        self._index.search(words(chance))

    def switch(self) -> float:
        index = self._index
        waited = time.perf_counter()
        with index.lock:
            begun = time.perf_counter()
            self._live = 1 - self._live
            index.writer.close()
            self._replay()
            self._place()
            index.open()
            ended = time.perf_counter()
        assert waited <= begun
        return (ended - begun) * 1000

    def _replay(self) -> None:
        """Apply to the other generation every change since it was live, and make it durable."""
        writer = BACKEND.open_writer(self._generations[self._live] / SHARD, OPTIONS)
        newest = {(item.resource_type, item.id): item for item in self._log}
        writer.apply(sorted(newest.values(), key=lambda item: item.lsn), 0)
        writer.flush()
        writer.close()
        self._log.clear()

    def held(self) -> dict[Key, int]:
        return {key_of(found.id): found.lsn for found in self._index.reader().scan()}

    def close(self) -> None:
        self._index.close()


class Moves(LinkFlip):
    """Directories are moved under the path. The log is not replayed, so the writes since the copy are lost."""

    name = "SQLite FTS5, shutil.move twice"

    def __init__(self, folder: Path, records: int) -> None:
        self._away = folder / "away"
        super().__init__(folder, records)

    def _place(self) -> None:
        if not self._link.exists():
            shutil.move(self._generations[0], self._link)
            return
        aside = self._link.with_name("aside")
        shutil.move(self._link, aside)
        shutil.move(self._generations[1], self._link)
        shutil.move(aside, self._generations[1])

    def _replay(self) -> None:
        self._log.clear()


class TantivyFlip:
    """Two Tantivy directories. A write is durable in a log, and searchable after the next commit (50 ms)."""

    name = "Tantivy, log, lock, replay, link flip"
    REFRESH_S = 0.05

    def __init__(self, folder: Path, records: int) -> None:
        self._tantivy = optional("tantivy")
        assert self._tantivy is not None
        self.ledger = Ledger()
        self._records, self._lsn = records, records
        self._lock = threading.Lock()
        self._log_file = (folder / "log").open("ab", buffering=0)
        self._behind: list[list[Item]] = [[], []]
        """The changes that each generation has not applied yet."""
        builder = self._tantivy.SchemaBuilder()
        for field in ("id", "lsn"):
            builder.add_text_field(field, stored=True, tokenizer_name="raw")
        self._schema = builder.add_text_field("text", stored=False, tokenizer_name="en_stem").build()
        self._paths = [folder / f"tantivy-{n}" for n in range(2)]
        self._indexes, self._writers = [], []
        for path in self._paths:
            path.mkdir()
            self._indexes.append(self._tantivy.Index(self._schema, path=str(path)))
            self._writers.append(self._indexes[-1].writer(64 << 20, 1))
        for start, changes in fill_values(records):
            for at, change in enumerate(changes, start + 1):
                for writer in self._writers:
                    self._add(writer, change.id, at, change)
                self.ledger.imported(key_of(change.id), at)
        for writer in self._writers:
            writer.commit()
        self._live, self._link = 0, folder / "current"
        point_link(self._link, self._paths[0])
        self._over = threading.Event()
        self._refresher = threading.Thread(target=self._refresh, daemon=True)
        self._refresher.start()

    def _add(self, writer: Any, id: str, lsn: int, change: Put) -> None:
        text = f"{change.fields['title']}\n{change.fields['body']}"
        writer.add_document(self._tantivy.Document(id=[id], lsn=[str(lsn)], text=[text]))

    def _apply(self, number: int) -> None:
        items, self._behind[number] = self._behind[number], []
        writer = self._writers[number]
        newest = {item.id: item for item in items}
        for item in newest.values():
            writer.delete_documents("id", item.id)
            self._add(writer, item.id, item.lsn, Put(TYPE, item.id, item.fields or {}))
        writer.commit()
        self._indexes[number].reload()

    def _refresh(self) -> None:
        while not self._over.wait(self.REFRESH_S):
            with self._lock:
                if self._behind[self._live]:
                    self._apply(self._live)

    def write(self, chance: random.Random) -> None:
        change = record(chance.randrange(self._records), chance)
        with self._lock:
            self._lsn += 1
            item = item_of(change, self._lsn)
            self._log_file.write(msgspec.msgpack.encode(item))
            os.fdatasync(self._log_file.fileno())
            for behind in self._behind:
                behind.append(item)
        self.ledger.acked(key_of(change.id), item.lsn, deleted=False)

    def read(self, chance: random.Random) -> None:
        index = self._indexes[self._paths.index(Path(os.readlink(self._link)))]
        index.searcher().search(index.parse_query(words(chance), ["text"], conjunction_by_default=True), 10)

    def switch(self) -> float:
        with self._lock:
            begun = time.perf_counter()
            other = 1 - self._live
            self._apply(other)
            point_link(self._link, self._paths[other])
            self._live = other
            return (time.perf_counter() - begun) * 1000

    def held(self) -> dict[Key, int]:
        with self._lock:
            self._apply(self._live)
        index = self._indexes[self._live]
        searcher = index.searcher()
        hits = searcher.search(self._tantivy.Query.all_query(), searcher.num_docs or 1).hits
        stored = (searcher.doc(address) for _, address in hits)
        return {key_of(document["id"][0]): int(document["lsn"][0]) for document in stored}

    def close(self) -> None:
        self._over.set()
        self._refresher.join(30)
        self._log_file.close()
