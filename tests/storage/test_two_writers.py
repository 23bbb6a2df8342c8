"""Two writers of one catalog, as when a stopped JournalWriter is still in its last commit."""

from __future__ import annotations

from pathlib import Path

import pytest

from shadowswitch import Put, Receipt
from shadowswitch.engine.encode import prepare
from shadowswitch.model.config import Config
from shadowswitch.storage.catalog.counters import Counters
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.journal import changes
from shadowswitch.storage.catalog.transaction import Commit


def written(catalog: Catalog, counters: Counters, branch: int, id: str) -> Receipt:
    found: list[Receipt] = []
    batch = prepare([Put("object_type", id, {"text": id})], Config())
    Commit(catalog, counters).run(lambda commit: found.append(commit.write(branch, batch)))
    return found[0]


def make_branch(commit: Commit) -> None:
    commit.create_branch("main", 0.0)


def test_a_writer_that_another_has_overtaken_gives_no_lsn_twice(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path)
    old = Counters(catalog)
    Commit(catalog, old).run(make_branch)
    branch = catalog.branch("main").number
    written(catalog, old, branch, "first")
    new = Counters(catalog)
    assert written(catalog, old, branch, "second").lsn == 2
    assert written(catalog, new, branch, "third").lsn == 3
    assert written(catalog, old, branch, "fourth").lsn == 4
    assert [change.id for change in changes(catalog, branch, 0, 10)] == ["first", "second", "third", "fourth"]
    head, digest = catalog.source_digest(branch, set(catalog.types()))
    assert (head, digest.count) == (4, 4)
    catalog.close()


def test_a_transaction_that_cannot_begin_raises_the_error_of_the_store(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path)
    counters = Counters(catalog)
    catalog.env.close()
    with pytest.raises(Exception, match="closed") as raised:
        Commit(catalog, counters).run(make_branch)
    assert not isinstance(raised.value, AttributeError)
    catalog.close()
