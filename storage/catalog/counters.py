"""The counters of the JournalWriter, in memory between transactions: LSN, heads, counts, digests. Invariant: ST-3."""

from __future__ import annotations

from shadowswitch.model.digest import Digest
from shadowswitch.model.shadow_state import UNDER_WAY
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.source.shadow_table import shadow_heads


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
