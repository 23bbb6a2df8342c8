"""The `vector` backend: records that carry vectors, or whose texts are embedded, found by the nearest ones.

    {"vector_field": "embedding", "dimensions": 384, "metric": "cos"}
    {"embedder": "my_module:embed", "embedder_version": "1", "field": "text", "dimensions": 384}

Rows and vectors lie in the LMDB shard (`derived`), each vector under the LSN of its row. A search is exact: over a
matrix of the vectors that were read before, and over those of later LSNs (`matrix`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from shadowswitch.storage.backends.derived.backend import DerivedBackend
from shadowswitch.storage.backends.derived.writer import DerivedWriter
from shadowswitch.storage.backends.kv import store
from shadowswitch.storage.backends.protocol import Tally
from shadowswitch.storage.backends.vector import hnsw
from shadowswitch.storage.backends.vector.costs import EmbeddingTally
from shadowswitch.storage.backends.vector.embedder import check_embedder, file_of
from shadowswitch.storage.backends.vector.options import OWN, check_options
from shadowswitch.storage.backends.vector.reader import VectorReader
from shadowswitch.storage.backends.vector.writer import VectorWriter


class VectorBackend(DerivedBackend):
    """See the module. Stateless."""

    name = "vector"
    version = 1
    reader_type = VectorReader
    own_options = OWN

    def configure(self, build_config: Mapping[str, Any]) -> dict[str, Any]:
        """`get` gives no fields but those in the option `fields`."""
        embedder = build_config.get("embedder")
        named = {"embedder": check_embedder(embedder)} if embedder is not None else {}
        return {**super().configure({"fields": [], **build_config}), **check_options(build_config), **named}

    def chosen_fields(self, options: Mapping[str, Any]) -> list[str]:
        of_vectors = options["field"] if "embedder" in options else [options["vector_field"]]
        return [*of_vectors, *super().chosen_fields(options)]

    def embeds(self, options: Mapping[str, Any]) -> bool:
        return "embedder" in options

    def kept_in(self, options: Mapping[str, Any]) -> str:
        return file_of(options, Path()).name

    def tally(self, data: Path, options: Mapping[str, Any]) -> Tally:
        return EmbeddingTally(options, data)

    def seed(
        self, source: Path, old: Mapping[str, Any], target: Path, new: Mapping[str, Any], rest: Callable[[], None]
    ) -> None:
        super().seed(source, old, target, new, rest)
        hnsw.take_over(source, target)

    def _writer(self, environment: store.Environment, options: Mapping[str, Any]) -> DerivedWriter:
        return VectorWriter(environment, partial(self.project, options), options)
