"""What the workload builds. Its indexes have the backend of WORKLOAD_BACKEND in the environment, else `fts5`."""

from __future__ import annotations

import os
from typing import Any

from shadowswitch.storage.backends.tantivy import writer

BACKEND = os.environ.get("WORKLOAD_BACKEND", "fts5")
TYPES = ["object_type", "link_type"]
OPTIONS: dict[str, dict[str, Any]] = {
    "kv": {},
    "graph": {"edges": {resource_type: {"to": "title"} for resource_type in TYPES}},
    "vector": {"embedder": "words", "field": "title", "dimensions": 384, "fields": ["title"], "exact_max": 5},
}


def build_of(backend: str) -> dict[str, Any]:
    """The build_config of an index with a backend."""
    return {"shards": 2, "parallel_workers": 2, "backend": backend, **OPTIONS.get(backend, {"columns": ["title"]})}


BUILD = build_of(BACKEND)
if BACKEND == "tantivy":
    writer.CARRY_ROWS, writer.CARRY_S = 1, 0.0  # each flush carries rows into the words
