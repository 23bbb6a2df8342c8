"""What the catalog holds, in entries and bytes."""

from __future__ import annotations

from typing import Any

from shadowswitch.storage.catalog.environment import Catalog


def catalog_sizes(catalog: Catalog) -> dict[str, Any]:
    """Used and reserved bytes of the map, entries and bytes by database, open read transactions."""
    with catalog.read() as txn:
        stats = {name: txn.stat(db) for name, db in catalog.db.items()}
    info, stat = catalog.env.info(), catalog.env.stat()
    return {
        "map_used_bytes": (info["last_pgno"] + 1) * stat["psize"],
        "map_size_bytes": info["map_size"],
        "readers": info["num_readers"],
        "entries": {name: found["entries"] for name, found in stats.items()},
        "size_bytes": {
            name: found["psize"] * (found["branch_pages"] + found["leaf_pages"] + found["overflow_pages"])
            for name, found in stats.items()
        },
    }
