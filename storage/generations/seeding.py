"""A shard that begins with the rows of another generation, of the same branch or of one that it was forked from.

    choose     the live generation of the index, or that of the nearest ancestor of the branch, if its backend can take
               over from it, and if most of its rows are those of the build
    seed       the backend makes the shard of a copy, as of any moment. The worker pins the generation meanwhile (SW-5)
    compare    the digest of the rows is compared with that of the source, bucket by bucket. Where they differ, the
               versions of all rows are compared with the records: only what differs is written

Behind that the shard holds each record as of some moment since S, as behind a copy. The replay of the journal after S
does the rest, and the validation reads every row. So it does not matter at which LSN the other generation was, what it
had in excess, or whether the journal still holds what it lacked.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import msgspec

from shadowswitch.model.digest import buckets_of_shard, key_hash
from shadowswitch.model.errors import CorruptData, InvalidConfig
from shadowswitch.model.records import Item
from shadowswitch.model.shadow_state import GenerationRole
from shadowswitch.storage.backends import registry
from shadowswitch.storage.backends.protocol import Reuse, SeedableWriter, Seeding, ShardWriter
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.journal import read_unlike
from shadowswitch.storage.catalog.rows import GenerationRow
from shadowswitch.storage.failpoints import failpoint
from shadowswitch.storage.generations.build_spec import Spec
from shadowswitch.storage.generations.directory import shared_pin

ROWS_AT_ONCE = 200_000
"""The versions of so many rows are held in memory, about 40 MB."""
AUTO, NEVER, REQUIRE = "auto", "never", "require"
SEEDS = (AUTO, NEVER, REQUIRE)
"""The values of `seed` of `start_build`."""
CLONE = "clone"
"""The index of a fork that was asked for: from its parent's at any size. The check of the backend comes once it is
live, for readers wait, and see at worst what those of the parent see."""
ROWS_MIN = 10_000
"""With `auto`, a smaller index is built from the records: that takes as long, and leaves no old page behind."""


class Seed(msgspec.Struct, frozen=True):
    """To a worker: the generation that its shard begins from. Without `required`, a copy of the records will do."""

    generation: int
    path: str
    options: dict[str, Any]
    required: bool = False


def check_seed(seed: object, external: bool, build_config: Mapping[str, Any] | None) -> str:
    """The `seed` of `start_build` as it is meant. Raises InvalidConfig."""
    if seed not in SEEDS:
        raise InvalidConfig(f"seed is one of {', '.join(SEEDS)}, not {seed!r:.80}", operation="start_build")
    from_records = external or (isinstance(build_config, Mapping) and bool(build_config.get("full_rebuild")))
    if from_records and seed == REQUIRE:
        text = "an external build, and one with full_rebuild, begins from the records"
        raise InvalidConfig(text, operation="start_build", hint="leave seed out")
    return NEVER if from_records else str(seed)


def unfit(generation: GenerationRow, spec: Spec) -> str:
    """Why a build cannot begin from a generation; "" if it can. Pure."""
    kind = registry.backend(spec.backend)
    if not isinstance(kind, Seeding):
        return f"backend {spec.backend} builds from the records"
    if generation.backend != spec.backend:
        return f"its backend is {generation.backend}, and that of the build {spec.backend}"
    if generation.shards != spec.shards:
        return f"it has {generation.shards} shards, and the build {spec.shards}"
    if kind.plan(generation.options, spec.options) is Reuse.NOTHING:
        return "its options leave nothing to take over"
    return ""


def settings_of(generation: GenerationRow, spec: Spec) -> dict[str, Any]:
    """The options of a spec that only readers of a generation need. Raises InvalidConfig if its files need others."""
    kind = registry.backend(spec.backend)
    reason = unfit(generation, spec)
    if not reason and cast(Seeding, kind).plan(generation.options, spec.options) is Reuse.REINDEX:
        reason = "its words are those of other options"
    if reason:
        raise InvalidConfig(
            f"these options need other files: {reason}",
            operation="retune",
            hint="build the index with them: start_build, or rebuild",
        )
    asked = {**dict.fromkeys(generation.options), **spec.options}  # None for what is left out, and has its default
    return {name: value for name, value in asked.items() if value != generation.options.get(name)}


def choose(
    catalog: Catalog, branch: int, spec: Spec, seed: str, is_served: Callable[[int], bool]
) -> GenerationRow | None:
    """The generation that a build begins from, or None. `is_served` says whether a generation is open and sound.

    Raises InvalidConfig if a seed is required and none fits.
    """
    if seed == NEVER:
        return None
    reasons = []
    with catalog.read() as txn:
        ancestors = catalog.lineage_in(txn, branch).ancestors
    for of in (branch, *(number for number, _ in ancestors)):
        index = catalog.index(of, spec.index_type)
        generation = catalog.generation(index.live) if index is not None and index.live else None
        if generation is None:
            continue
        reason = unfit(generation, spec)
        if not reason and (not is_served(generation.number) or catalog.shadow(generation.shadow_id).error):
            reason = "it is unsound, or cannot be read"
        if not reason and seed == AUTO and not _is_worth_it(catalog, branch, spec, generation):
            reason = "most of its rows are others"
        if not reason:
            return generation
        reasons.append(f"generation {generation.number}: {reason}")
    if seed == REQUIRE:
        why = "; ".join(reasons) or "neither the branch nor one that it was forked from serves the index"
        raise InvalidConfig(
            f"the build has no generation to begin from: {why}",
            operation="start_build",
            hint="leave seed out: the build begins from the records then",
        )
    return None


def _is_worth_it(catalog: Catalog, branch: int, spec: Spec, generation: GenerationRow) -> bool:
    """Is the build large, and are most rows of the generation of its types?"""
    numbers = catalog.type_numbers()
    mine, theirs = set(spec.resource_types), set(generation.resource_types)

    def count(of: int, names: set[str]) -> int:
        return catalog.count_of(of, [numbers[name] for name in names if name in numbers])

    rows, shared = count(branch, mine), count(branch, mine & theirs)
    return rows >= ROWS_MIN and 2 * shared >= max(rows, count(generation.branch, theirs))


def seed_shard(
    catalog: Catalog, seed: Seed, backend: str, target: Path, options: Mapping[str, Any], rest: Callable[[], None]
) -> None:
    """Make the empty shard `target` of that of another generation. It stays empty if that one is gone, or damaged.

    Raises InvalidConfig or CorruptData instead if the seed is required; StorageFull.
    """
    kind = cast(Seeding, registry.backend(backend))
    try:
        with shared_pin(Path(seed.path)):
            row = catalog.generation(seed.generation)
            if row is None or row.role is GenerationRole.RETIRING:
                raise FileNotFoundError(seed.path)
            kind.seed(Path(seed.path, target.name), seed.options, target, options, rest)
    except FileNotFoundError:
        if seed.required:
            text = f"generation {seed.generation}, from which the build began, was removed"
            raise InvalidConfig(text, operation="build", hint="start another build") from None
    except CorruptData:
        if seed.required:
            raise
    failpoint("seed.made")


class Comparison:
    """Makes the rows of a seeded shard those of its source. On the thread of its writer."""

    def __init__(
        self,
        catalog: Catalog,
        branch: int,
        types: Mapping[int, str],
        slice_rows: int,
        writer: ShardWriter,
        wrote: Callable[[list[Item]], None],
    ) -> None:
        """`wrote` is called behind each slice, with what was stored."""
        self._catalog = catalog
        self._branch = branch
        self._types = types
        self._slice_rows = slice_rows
        self._writer = cast(SeedableWriter, writer)
        self._wrote = wrote

    def run(self, shard: int, shards: int) -> None:
        """Compare what differs; a second run compares what the first one, cut off by a kill, has left."""
        _, source = self._catalog.source_digest(self._branch, self._types)
        own = self._writer.state().digest
        for buckets in _parts(own.differing(source, buckets_of_shard(shard, shards)), own.counts):
            self._compare(buckets)

    def _compare(self, buckets: Collection[int]) -> None:
        versions = {(type, id): lsn for type, id, lsn in self._writer.versions(buckets)}
        for number, name in sorted(self._types.items()):
            for bucket in buckets:
                cursor, done = b"", False
                while not done:
                    part = read_unlike(
                        self._catalog, self._branch, number, name, bucket, cursor, self._slice_rows, versions
                    )
                    cursor, done = part.cursor, part.done
                    self._amend(part.items)
        gone = [Item(lsn, type, id, key_hash(type, id), None) for (type, id), lsn in versions.items()]
        for first in range(0, len(gone), self._slice_rows):
            self._amend(gone[first : first + self._slice_rows])

    def _amend(self, items: list[Item]) -> None:
        if items:
            self._writer.amend(items)
            failpoint("seed.slice")
        self._wrote(items)


def _parts(buckets: Iterable[int], counts: list[int]) -> Iterator[list[int]]:
    """The buckets, so many at a time that their rows fit into memory."""
    part: list[int] = []
    rows = 0
    for bucket in buckets:
        if part and rows + counts[bucket] > ROWS_AT_ONCE:
            yield part
            part, rows = [], 0
        part.append(bucket)
        rows += counts[bucket]
    if part:
        yield part
