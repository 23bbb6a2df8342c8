"""The counters of the JournalWriter, in memory between transactions: LSN, heads, counts, digests. Invariant: ST-3."""

from __future__ import annotations

from typing import Protocol

from shadowswitch.model.digest import Digest
from shadowswitch.model.shadow_state import UNDER_WAY
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.source.shadow_table import shadow_heads


class Committed(Protocol):
    """The counters of a transaction; see `Commit`."""

    last_lsn: int
    txn_id: int
    new_types: dict[str, int]
    heads: dict[int, tuple[int, int]]
    counts: dict[int, int]
    digests: dict[tuple[int, int], Digest]
    moved: dict[tuple[int, str], str]


class Counters:
    """The counters that the writer keeps in memory between transactions; always equal to those in the catalog."""

    def __init__(self, catalog: Catalog) -> None:
        self.load(catalog)

    def load(self, catalog: Catalog) -> None:
        """Read what is durable."""
        self.txn_id: int = catalog.last_txn_id()
        """The id of the last transaction that these counters know of."""
        with catalog.read() as txn:
            self.last_lsn = catalog.number("last_lsn", txn)
        self.types = dict(catalog.type_numbers())
        self.heads: dict[int, tuple[int, int]] = {}
        self.counts: dict[int, int] = {}
        self.digests: dict[tuple[int, int], Digest] = {}
        self.under_way: dict[tuple[int, str], str] = {}
        """The shadow under way of each index, by branch and index type: a claim need not read all shadows."""
        with catalog.read() as txn:
            for head in shadow_heads(catalog, txn):
                if head.state in UNDER_WAY:
                    self.under_way[head.branch, head.index_type] = head.id

    DIGESTS_MAX = 4096
    """Digests kept in memory (1 KiB each as stored); others are read again when needed."""

    def adopt(self, commit: Committed) -> None:
        """The transaction is durable: its counters are those of the writer from now on."""
        self.last_lsn, self.txn_id = commit.last_lsn, commit.txn_id
        self.types.update(commit.new_types)
        self.heads.update(commit.heads)
        for index, shadow_id in commit.moved.items():
            if shadow_id:
                self.under_way[index] = shadow_id
            else:
                self.under_way.pop(index, None)
        self.counts.update(commit.counts)
        if len(self.digests) + len(commit.digests) > self.DIGESTS_MAX:
            self.digests.clear()
        self.digests.update(commit.digests)
        if len(self.heads) > 4 * self.DIGESTS_MAX:
            self.heads.clear()
            self.counts.clear()
