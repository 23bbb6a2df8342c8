"""The rows of the catalog: states are enums in memory and plain strings on disk."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import lmdb
import msgspec
import pytest

from shadowswitch import CorruptData, Engine
from shadowswitch.model.shadow_state import GenerationRole, Phase, PublishStrategy, ShadowState
from shadowswitch.storage.catalog.rows import (
    GenerationRow,
    IndexRow,
    ShadowRow,
    decode_generation,
    decode_index,
    decode_shadow,
    encode_row,
)

SHADOW = ShadowRow(
    1, "5f0c", 7, "main", "SEARCH_INDEX", ["object_type"], ShadowState.BUILT, Phase.WAITING, "fts5", {}, "9c1a", 3, 1.0
)  # fmt: skip
GENERATION = GenerationRow(
    1, 12, 7, "SEARCH_INDEX", "5f0c", "fts5", {}, "9c1a", 1, ["object_type"], "generations/main/SEARCH_INDEX/00000012",
    GenerationRole.STANDBY, 1.0,
)  # fmt: skip
INDEX = IndexRow(1, 7, "SEARCH_INDEX", 12, 0, 1, 812, 1.0, PublishStrategy.COPY_AND_REPLACE)


def plain(row: msgspec.Struct) -> list[object]:
    """The fields of a stored row, read by a program that knows no enum."""
    fields: list[object] = msgspec.msgpack.decode(encode_row(row))
    return fields


def test_states_are_stored_as_plain_strings() -> None:
    assert plain(SHADOW)[6:8] == ["BUILT", "waiting"]
    assert plain(GENERATION)[11] == "standby"
    assert plain(INDEX)[8] == "COPY_AND_REPLACE"


def test_stored_strings_are_read_as_states() -> None:
    assert decode_shadow(encode_row(SHADOW)).state is ShadowState.BUILT
    assert decode_generation(encode_row(GENERATION)).role is GenerationRole.STANDBY
    assert decode_index(encode_row(INDEX)).strategy is PublishStrategy.COPY_AND_REPLACE


def test_a_row_with_a_phase_of_another_version_is_read_and_stored_unchanged() -> None:
    fields = plain(SHADOW)
    fields[7] = "polishing"
    stored = msgspec.msgpack.encode(fields)
    row = decode_shadow(stored)
    assert row.phase == "polishing"
    assert msgspec.msgpack.decode(encode_row(row))[7] == "polishing"


def test_a_share_of_a_validation_of_an_older_version_is_read() -> None:
    """Rows of earlier commits end with the time of the validation by that of the copy, or before it."""
    fields = plain(SHADOW)
    pace = ShadowRow.__struct_fields__.index("pace")
    assert decode_shadow(msgspec.msgpack.encode([*fields[:pace], 0.31])).pace == 0.31
    assert decode_shadow(msgspec.msgpack.encode(fields[:pace])).pace is None


@pytest.mark.parametrize("seconds", [-1.0, 1e300, math.nan, math.inf])
def test_a_time_that_is_no_date_is_damage_of_its_row(seconds: float) -> None:
    """A flipped bit of a stored time; `datetime` would raise OverflowError wherever the row is shown."""
    fields = plain(SHADOW)
    fields[12] = seconds
    with pytest.raises(CorruptData, match="the row of a shadow does not decode"):
        decode_shadow(msgspec.msgpack.encode(fields))


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x93\x01", msgspec.msgpack.encode([1, "two"])])
def test_a_row_that_does_not_decode_is_damage(data: bytes) -> None:
    with pytest.raises(CorruptData, match="restore the data directory from a backup"):
        decode_index(data)


def test_an_engine_whose_row_does_not_decode_says_so_at_the_start(
    engine: Engine, data_dir: Path, open_engine: Callable[..., Engine]
) -> None:
    shadow = engine.start_build("main", "SEARCH_INDEX", ["object_type"]).shadow_index_id
    engine.wait_for(shadow, timeout_s=60)
    engine.close()
    with closing(lmdb.open(str(data_dir / "catalog"), max_dbs=64)) as environment:
        shadows = environment.open_db(b"shadows")
        with environment.begin(write=True) as txn:
            key, value = next(iter(txn.cursor(shadows)))
            fields = msgspec.msgpack.decode(value)
            fields[12] = 1e300
            txn.put(key, msgspec.msgpack.encode(fields), db=shadows)
    with pytest.raises(CorruptData, match="the row of a shadow does not decode"):
        open_engine(sound=False)
