"""Checking and encoding of changes, on the caller's thread, before anything is sent to an actor."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from shadowswitch.model.config import Config
from shadowswitch.model.digest import key_hash
from shadowswitch.model.errors import InvalidChange, InvalidConfig
from shadowswitch.model.names import check_id, check_resource_type
from shadowswitch.model.records import DEPTH_MAX, Delete, Put
from shadowswitch.storage.catalog.journal_format import Batch, Prepared
from shadowswitch.storage.catalog.keys import body_checksum

_encode = msgspec.msgpack.Encoder().encode
_INTEGER_MIN, _INTEGER_MAX = -(1 << 63), (1 << 64) - 1


def prepare(changes: Sequence[Put | Delete], config: Config) -> Batch:
    """Check a batch whole, and encode it. Raises InvalidChange or InvalidName before anything is written."""
    if isinstance(changes, Put | Delete):
        raise InvalidChange("changes must be a list of Put and Delete", hint="put the change into a list")
    prepared: list[Prepared] = []
    size = 0
    for change in changes:
        if len(prepared) == config.batch_changes_max:
            raise InvalidChange(
                f"the batch has more than {config.batch_changes_max} changes",
                operation="write",
                hint="split it, or raise Config.batch_changes_max",
            )
        one = _prepare(change, config)
        size += len(one.fields)
        prepared.append(one)
    if not prepared:
        raise InvalidChange("the batch is empty", operation="write", hint="give at least one Put or Delete")
    if size > config.batch_size_max_bytes:
        raise InvalidChange(
            f"the batch has {size} bytes, more than {config.batch_size_max_bytes}", operation="write", hint="split it"
        )
    return Batch(prepared)


def _prepare(change: Put | Delete, config: Config) -> Prepared:
    if not isinstance(change, Put | Delete):
        raise InvalidChange(f"a change must be a Put or a Delete, not {type(change).__name__}", operation="write")
    resource_type = check_resource_type(change.resource_type)
    id = check_id(change.id)
    hashed = key_hash(resource_type, change.id)
    if isinstance(change, Delete):
        return Prepared(resource_type, hashed, id, b"", 0)
    where = f"{resource_type} {change.id[:80]!r}"
    if not isinstance(change.fields, dict):
        raise InvalidChange(
            f"the fields of {where} must be a dict, not {type(change.fields).__name__}", operation="write"
        )
    _check_json_like(change.fields, where, 0)
    try:
        fields = _encode(change.fields)
    except (UnicodeEncodeError, OverflowError, RecursionError, ValueError) as error:
        raise InvalidChange(f"the fields of {where} cannot be stored: {error}", operation="write") from error
    if len(fields) > config.record_size_max_bytes:
        raise InvalidChange(
            f"the fields of {where} have {len(fields)} bytes encoded, more than {config.record_size_max_bytes}",
            operation="write",
            object=where,
            hint="store large content elsewhere and keep a reference, or raise Config.record_size_max_bytes",
        )
    return Prepared(resource_type, hashed, id, fields, body_checksum(id, fields))


def _check_json_like(value: Any, where: str, depth: int) -> None:
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return
    if kind is int:
        if not _INTEGER_MIN <= value <= _INTEGER_MAX:
            raise InvalidChange(f"{where} has the integer {value}, which does not fit into 64 bits", operation="write")
    elif kind is float:
        if not math.isfinite(value):
            raise InvalidChange(f"{where} has the number {value}, which JSON cannot carry", operation="write")
    elif depth >= DEPTH_MAX:
        raise InvalidChange(f"{where} is nested deeper than {DEPTH_MAX} levels", operation="write")
    elif kind is dict:
        for key, inner in value.items():
            if type(key) is not str:
                raise InvalidChange(f"{where} has the key {key!r}, which is not a string", operation="write")
            _check_json_like(inner, where, depth + 1)
    elif kind is list:
        for inner in value:
            _check_json_like(inner, where, depth + 1)
    else:
        raise InvalidChange(
            f"{where} holds a {kind.__name__}, which is not JSON-like",
            operation="write",
            hint="use dict, list, str, int, float, bool and None",
        )


def lock_tokens(tokens: Iterable[int]) -> tuple[int, ...]:
    """Fencing tokens as a tuple. Raises InvalidConfig for a value that is no token."""
    if tokens == ():
        return ()
    found = tuple(tokens) if isinstance(tokens, Iterable) else (None,)
    if any(not isinstance(token, int) or isinstance(token, bool) for token in found):
        raise InvalidConfig(f"tokens must be those of locks, not {tokens!r:.80}", hint="give [lock.token]")
    return tuple(token for token in found if token is not None)
