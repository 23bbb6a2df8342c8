"""Properties of the digest: independent of order, exact for every version, with the bucket of a difference."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowswitch.model.digest import (
    BUCKETS,
    Digest,
    DigestSum,
    bucket_of,
    buckets_of_shard,
    count_of,
    key_hash,
    shard_of,
    version_hash,
)

Row = tuple[int, int]
HASHES = st.integers(0, 2**64 - 1)
LSNS = st.integers(0, 2**63 - 1)
ROWS = st.dictionaries(HASHES, LSNS, max_size=60)
KEY_HASH_OF_USER = 0x1CB63DEE59F3F922
VERSION_HASH_OF_USER_AT_42 = 0x0639680F116E44F2
NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


def digest_of(rows: Iterable[Row]) -> Digest:
    digest = Digest()
    for hash_, lsn in rows:
        digest.add(hash_, lsn)
    return digest


@given(ROWS, st.randoms(use_true_random=False))
def test_the_order_of_adding_does_not_matter(rows: dict[int, int], source: random.Random) -> None:
    shuffled = list(rows.items())
    source.shuffle(shuffled)
    assert digest_of(shuffled) == digest_of(rows.items())


@given(ROWS, st.dictionaries(st.tuples(NAMES, NAMES), LSNS, max_size=60))
def test_adding_many_versions_is_adding_each(rows: dict[int, int], versions: dict[tuple[str, str], int]) -> None:
    at_once, one_by_one = digest_of(rows.items()), digest_of(rows.items())
    at_once.add_versions((*key, lsn) for key, lsn in versions.items())
    for key, lsn in versions.items():
        one_by_one.add(key_hash(*key), lsn)
    assert at_once == one_by_one


@given(ROWS, ROWS)
def test_removing_undoes_adding(rows: dict[int, int], others: dict[int, int]) -> None:
    digest = digest_of(rows.items())
    for row in others.items():
        digest.add(*row)
    for row in reversed(others.items()):
        digest.remove(*row)
    assert digest == digest_of(rows.items())


@given(ROWS, HASHES, LSNS, LSNS)
def test_another_version_of_one_record_changes_its_bucket_only(
    rows: dict[int, int], hash_: int, lsn: int, other: int
) -> None:
    one, two = digest_of({**rows, hash_: lsn}.items()), digest_of({**rows, hash_: other}.items())
    assert one.count == two.count
    assert one.differing(two) == ([] if lsn == other else [bucket_of(hash_)])


@given(ROWS, HASHES, LSNS)
def test_a_missing_or_doubled_record_changes_the_digest(rows: dict[int, int], hash_: int, lsn: int) -> None:
    whole = digest_of({**rows, hash_: lsn}.items())
    lacking, doubled = whole.copy(), whole.copy()
    lacking.remove(hash_, lsn)
    doubled.add(hash_, lsn)
    for wrong in (lacking, doubled):
        assert wrong != whole
        assert wrong.differing(whole) == [bucket_of(hash_)]
        outside = [bucket for bucket in range(BUCKETS) if bucket != bucket_of(hash_)]
        assert wrong.differing(whole, outside) == []


@given(ROWS, st.integers(1, BUCKETS))
def test_the_digests_of_the_shards_merge_to_that_of_the_whole(rows: dict[int, int], shards: int) -> None:
    parts = [Digest() for _ in range(shards)]
    for hash_, lsn in rows.items():
        parts[shard_of(bucket_of(hash_), shards)].add(hash_, lsn)
    merged = Digest()
    for part in parts:
        merged.merge(part)
    assert merged == digest_of(rows.items())
    assert merged.count == len(rows)


@given(ROWS, st.integers(0, BUCKETS - 1))
def test_clearing_a_bucket_removes_its_records_and_no_others(rows: dict[int, int], bucket: int) -> None:
    digest = digest_of(rows.items())
    digest.clear(bucket)
    assert digest == digest_of(row for row in rows.items() if bucket_of(row[0]) != bucket)


@given(ROWS)
def test_encoding_keeps_everything_and_has_one_size(rows: dict[int, int]) -> None:
    digest = digest_of(rows.items())
    data = digest.encode()
    assert len(data) == 16 * BUCKETS
    assert Digest.decode(data) == Digest.decode(memoryview(data)) == digest
    assert Digest.decode(data).encode() == data


def test_data_of_another_size_is_not_a_digest() -> None:
    for size in (0, 16 * BUCKETS - 1, 16 * BUCKETS + 1):
        with pytest.raises(struct.error):
            Digest.decode(bytes(size))


@given(ROWS, HASHES, LSNS)
def test_a_copy_is_independent(rows: dict[int, int], hash_: int, lsn: int) -> None:
    digest = digest_of(rows.items())
    twin = digest.copy()
    twin.add(hash_, lsn)
    assert digest == digest_of(rows.items())
    assert twin != digest


@given(st.integers(1, BUCKETS))
def test_shards_own_every_bucket_once_in_nearly_equal_contiguous_ranges(shards: int) -> None:
    ranges = [buckets_of_shard(shard, shards) for shard in range(shards)]
    assert [bucket for owned in ranges for bucket in owned] == list(range(BUCKETS))
    assert all(shard_of(bucket, shards) == shard for shard, owned in enumerate(ranges) for bucket in owned)
    assert max(map(len, ranges)) - min(map(len, ranges)) <= 1


@given(NAMES, NAMES, NAMES, NAMES)
def test_different_keys_have_different_hashes(type_a: str, id_a: str, type_b: str, id_b: str) -> None:
    same = (type_a, id_a) == (type_b, id_b)
    assert (key_hash(type_a, id_a) == key_hash(type_b, id_b)) is same
    assert 0 <= key_hash(type_a, id_a) < 2**64


def test_the_boundary_between_type_and_id_is_part_of_the_hash() -> None:
    assert len({key_hash("a", "bc"), key_hash("ab", "c"), key_hash("abc", ""), key_hash("", "abc")}) == 4


@given(HASHES, LSNS)
def test_the_version_hash_is_64_bits_and_differs_from_its_neighbours(hash_: int, lsn: int) -> None:
    values = {version_hash(hash_, lsn), version_hash(hash_, lsn + 1), version_hash(hash_ ^ 1, lsn)}
    assert len(values) == 3
    assert all(0 <= value < 2**64 for value in values)


def test_stored_digests_stay_readable_because_the_hashes_are_fixed_for_ever() -> None:
    assert key_hash("object_type", "User") == KEY_HASH_OF_USER
    assert version_hash(KEY_HASH_OF_USER, 42) == VERSION_HASH_OF_USER_AT_42
    assert bucket_of(KEY_HASH_OF_USER) == KEY_HASH_OF_USER >> 58


@given(st.lists(ROWS, max_size=5), st.lists(ROWS, max_size=5))
def test_a_sum_of_encoded_digests_is_their_merge(stay: list[dict[int, int]], leave: list[dict[int, int]]) -> None:
    total, merged = DigestSum(), Digest()
    kept = [digest_of(rows.items()) for rows in stay]
    for digest in kept:
        merged.merge(digest)
        total.add(digest.encode())
    gone = [digest_of(rows.items()).encode() for rows in leave]
    for encoded in gone:
        total.add(encoded)
    for encoded in gone:
        total.remove(encoded)
    assert total.digest() == merged
    assert total.digest() == merged, "a look changes nothing"
    assert [count_of(digest.encode()) for digest in kept] == [digest.count for digest in kept]


def test_a_sum_leaves_out_what_is_no_digest_and_wraps_as_merge_does() -> None:
    total, merged, high = DigestSum(), Digest(), Digest()
    high.sums = [2**64 - 1 - n for n in range(BUCKETS)]
    for _ in range(3):
        total.add(high.encode())
        merged.merge(high)
    total.add(None)
    total.add(b"damage")
    total.remove(high.encode())
    merged.merge(Digest().minus(high))
    assert total.digest() == merged
    assert count_of(b"damage") == 0
