"""What a build would read and embed, counted before it begins. A worker of the host does it, or a command."""

from __future__ import annotations

from pathlib import Path

import msgspec

from shadowswitch.model.digest import BUCKETS
from shadowswitch.model.views import BuildCost
from shadowswitch.storage.backends import registry
from shadowswitch.storage.backends.protocol import Embedding, Tally
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.journal import read_records
from shadowswitch.storage.generations.build_spec import Spec
from shadowswitch.storage.reading import Count, no_look

SLICE_ROWS = 500


class CountCost(msgspec.Struct, frozen=True, tag=True):
    """To a worker: the cost of a build in a data directory."""

    data: str
    branch: int
    spec: Spec


class CostCounted(msgspec.Struct, frozen=True, tag=True):
    """The cost."""

    cost: BuildCost


def embeds(spec: Spec) -> bool:
    """Whether such a build embeds texts: the count reads every record then."""
    backend = registry.backend(spec.backend)
    return isinstance(backend, Embedding) and backend.embeds(spec.options)


def count_cost(catalog: Catalog, task: CountCost, looked: Count = no_look) -> CostCounted:
    """Do the task. `looked` is called behind each slice. Raises CorruptData."""
    spec, backend = task.spec, registry.backend(task.spec.backend)
    types = {number: name for number, name in sorted(catalog.types().items()) if name in spec.resource_types}
    if not isinstance(backend, Embedding) or not backend.embeds(spec.options):
        counts = catalog.counts(task.branch)
        return CostCounted(BuildCost(sum(counts.get(number, 0) for number in types), 0, 0, 0.0))
    tally = backend.tally(Path(task.data), spec.options)
    try:
        for number, name in types.items():
            _read(catalog, task.branch, number, name, tally, looked)
        cost = tally.cost()
    finally:
        tally.close()
    if cost.embedding_s is not None:
        cost = msgspec.structs.replace(cost, embedding_s=cost.embedding_s / spec.parallel_workers)
    return CostCounted(cost)


def _read(catalog: Catalog, branch: int, number: int, name: str, tally: Tally, looked: Count) -> None:
    cursor, done = b"", False
    while not done:
        found = read_records(catalog, branch, number, name, range(BUCKETS), cursor, SLICE_ROWS)
        cursor, done = found.cursor, found.done
        for item in found.items:
            tally.add(item.fields or {})
        looked(len(found.items))
