"""The digest of a set of record versions: order-independent, kept in buckets, O(1) to maintain and to compare.

Every record version has the 64-bit hash `version_hash(key_hash, lsn)`. A bucket holds the number of its live records
and the sum (mod 2**64) of their version hashes. Equal buckets at a common LSN mean: exactly the same version of every
record on both sides, neither a lost write, nor a revived delete, nor a duplicate. Equal counts alone prove nothing.

`key_hash` is BLAKE2b (RFC 7693) of the key; `version_hash` mixes it with the LSN by the finaliser of SplitMix64
(Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014), so that updating a record costs
integer arithmetic and no second cryptographic hash.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from hashlib import blake2b

BUCKETS = 64
"""Buckets of a digest: its encoded form is 1 KiB, small enough to live inside one LMDB leaf page."""

_MASK = (1 << 64) - 1
_FORMAT = struct.Struct(f"<{BUCKETS * 2}Q")


def key_hash(resource_type: str, id: str) -> int:
    """The 64-bit hash of a record's key. A resource type holds no NUL, so the joined bytes are unambiguous."""
    return int.from_bytes(blake2b(f"{resource_type}\0{id}".encode(), digest_size=8).digest(), "little")


def bucket_of(key_hash: int) -> int:
    """The bucket, 0 to BUCKETS - 1, of a key: the top six bits of its hash."""
    return key_hash >> 58


def shard_of(bucket: int, shards: int) -> int:
    """The shard, 0 to shards - 1, that owns a bucket: shards own contiguous, nearly equal ranges of buckets."""
    return bucket * shards // BUCKETS


def buckets_of_shard(shard: int, shards: int) -> range:
    """The buckets that a shard owns; the inverse of `shard_of`."""
    first = -(-shard * BUCKETS // shards)
    last = -(-(shard + 1) * BUCKETS // shards)
    return range(first, last)


def version_hash(key_hash: int, lsn: int) -> int:
    """The 64-bit hash of one version of one record."""
    z = (key_hash + lsn * 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


class Digest:
    """Counts and sums by bucket. Not thread-safe: its owner serialises."""

    __slots__ = ("counts", "sums")

    def __init__(self) -> None:
        self.counts = [0] * BUCKETS
        self.sums = [0] * BUCKETS

    def add(self, key_hash: int, lsn: int) -> None:
        """Add the version `lsn` of an absent record."""
        bucket = key_hash >> 58
        self.counts[bucket] += 1
        self.sums[bucket] = (self.sums[bucket] + version_hash(key_hash, lsn)) & _MASK

    def add_versions(self, versions: Iterable[tuple[str, str, int]]) -> None:
        """Add many (resource type, id, LSN): as `add` of each, at two thirds of its cost."""
        counts, sums, number = self.counts, self.sums, int.from_bytes
        for resource_type, id, lsn in versions:  # `key_hash` and `version_hash`, inlined
            hashed = number(blake2b(f"{resource_type}\0{id}".encode(), digest_size=8).digest(), "little")
            z = (hashed + lsn * 0x9E3779B97F4A7C15) & _MASK
            z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
            z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
            bucket = hashed >> 58
            counts[bucket] += 1
            sums[bucket] += z ^ (z >> 31)
        self.sums = [total & _MASK for total in sums]

    def remove(self, key_hash: int, lsn: int) -> None:
        """Remove the version `lsn` of a present record."""
        bucket = key_hash >> 58
        self.counts[bucket] -= 1
        self.sums[bucket] = (self.sums[bucket] - version_hash(key_hash, lsn)) & _MASK

    def replace(self, key_hash: int, old_lsn: int, lsn: int) -> None:
        """Replace the version `old_lsn` of a record by `lsn`: `remove` and `add` in one step."""
        bucket = key_hash >> 58
        changed = version_hash(key_hash, lsn) - version_hash(key_hash, old_lsn)
        self.sums[bucket] = (self.sums[bucket] + changed) & _MASK

    def merge(self, other: Digest) -> None:
        """Add a digest of a disjoint set of records, or what `minus` returned."""
        for bucket in range(BUCKETS):
            self.counts[bucket] = (self.counts[bucket] + other.counts[bucket]) & _MASK
            self.sums[bucket] = (self.sums[bucket] + other.sums[bucket]) & _MASK

    def minus(self, other: Digest, buckets: Iterable[int] = range(BUCKETS)) -> Digest:
        """What must be merged into `other` to make it equal to this digest in these buckets."""
        gap = Digest()
        for bucket in buckets:
            gap.counts[bucket] = (self.counts[bucket] - other.counts[bucket]) & _MASK
            gap.sums[bucket] = (self.sums[bucket] - other.sums[bucket]) & _MASK
        return gap

    def differing(self, other: Digest, buckets: Iterable[int] = range(BUCKETS)) -> list[int]:
        """The buckets in which two digests differ, in order. Equal digests take a microsecond."""
        if self.counts == other.counts and self.sums == other.sums:
            return []
        return [b for b in buckets if self.counts[b] != other.counts[b] or self.sums[b] != other.sums[b]]

    @property
    def count(self) -> int:
        """The number of records."""
        return sum(self.counts)

    def clear(self, bucket: int) -> None:
        """Empty a bucket."""
        self.counts[bucket] = 0
        self.sums[bucket] = 0

    def copy(self) -> Digest:
        """An independent copy."""
        twin = Digest()
        twin.counts = self.counts.copy()
        twin.sums = self.sums.copy()
        return twin

    def encode(self) -> bytes:
        """64 counts, then 64 sums, each an unsigned 64-bit little-endian integer."""
        try:
            return _FORMAT.pack(*self.counts, *self.sums)
        except struct.error:  # a damaged digest may have counted below zero
            return _FORMAT.pack(*(count & _MASK for count in self.counts), *self.sums)

    @classmethod
    def decode(cls, data: bytes | memoryview) -> Digest:
        """The inverse of `encode`; raises `struct.error` for anything of another size."""
        values = _FORMAT.unpack(data)
        digest = cls()
        digest.counts = list(values[:BUCKETS])
        digest.sums = list(values[BUCKETS:])
        return digest

    @classmethod
    def stored(cls, data: bytes | memoryview | None) -> Digest:
        """The digest of a stored value; empty without a value, and for a damaged one of another size (ST-3)."""
        return cls.decode(data) if data is not None and len(data) == _FORMAT.size else cls()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Digest) and self.counts == other.counts and self.sums == other.sums

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Digest(count={self.count}, sum={sum(self.sums) & _MASK:016x})"


_COUNTS = struct.Struct(f"<{BUCKETS}Q")
_EVEN = int.from_bytes((b"\xff" * 8 + bytes(8)) * BUCKETS, "little")
_WRAP = int.from_bytes((bytes(8) + b"\1" + bytes(7)) * BUCKETS, "little")


class DigestSum:
    """The sum of many encoded digests: `merge` of each, at a tenth of its cost. Not thread-safe.

    Even and odd 64-bit values stand apart in two long integers, each with 64 bits of room above it. So one addition
    adds 64 values, and no carry reaches the next one.
    """

    __slots__ = ("_even", "_odd")

    def __init__(self) -> None:
        self._even = self._odd = 0

    def add(self, encoded: bytes | memoryview | None) -> None:
        """Add a stored digest; nothing for None, and for a damaged one of another size (ST-3)."""
        if encoded is not None and len(encoded) == _FORMAT.size:
            values = int.from_bytes(encoded, "little")
            self._even += values & _EVEN
            self._odd += (values >> 64) & _EVEN

    def remove(self, encoded: bytes | memoryview | None) -> None:
        """Take away what was added."""
        if encoded is not None and len(encoded) == _FORMAT.size:
            values = int.from_bytes(encoded, "little")
            self._even += _WRAP - (values & _EVEN)
            self._odd += _WRAP - ((values >> 64) & _EVEN)

    def digest(self) -> Digest:
        """The sum as a digest."""
        self._even &= _EVEN
        self._odd &= _EVEN
        return Digest.decode((self._even | self._odd << 64).to_bytes(_FORMAT.size, "little"))


def count_of(encoded: bytes | memoryview) -> int:
    """The number of records of a stored digest; 0 for a damaged one of another size."""
    return sum(_COUNTS.unpack_from(encoded)) if len(encoded) == _FORMAT.size else 0
