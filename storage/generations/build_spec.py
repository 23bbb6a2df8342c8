"""The spec of a build in canonical form. Two builds with equal fingerprints make equal indexes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import msgspec

from shadowswitch.model.digest import BUCKETS
from shadowswitch.model.errors import DuplicateBuild, InvalidConfig
from shadowswitch.model.names import check_index_type, check_resource_type
from shadowswitch.storage.backends import registry
from shadowswitch.storage.catalog.rows import EXTERNAL

WORKERS_MAX = 32
_OWN_OPTIONS = frozenset({"backend", "parallel_workers", "shards", "full_rebuild"})


class Spec(msgspec.Struct, frozen=True):
    """A checked build_config. `options` are the backend's own, complete."""

    index_type: str
    resource_types: list[str]
    backend: str
    options: dict[str, Any]
    shards: int
    parallel_workers: int
    fingerprint: str


def make_spec(
    index_type: str, resource_types: Sequence[str], build_config: Mapping[str, Any] | None, external: bool = False
) -> Spec:
    """The spec of the arguments of `start_build`. Raises InvalidName or InvalidConfig before anything is written.

    An `external` build that names no backend gets the backend `external`.
    """
    if build_config is not None and not isinstance(build_config, Mapping):
        raise InvalidConfig(f"build_config must be a dict, not {build_config!r:.80}", operation="start_build")
    config = dict(build_config or {})
    check_index_type(index_type)
    if isinstance(resource_types, str) or not isinstance(resource_types, Iterable) or not resource_types:
        raise InvalidConfig("resource_types must be a list of at least one resource type", operation="start_build")
    types = sorted({check_resource_type(name) for name in resource_types})
    name = config.get("backend") or (EXTERNAL if external else registry.default_backend(index_type))
    if name == EXTERNAL and not external:
        raise InvalidConfig(f"only an external build can have the backend {EXTERNAL!r}", hint="name another backend")
    backend = registry.backend(name)
    workers = _whole(config, "parallel_workers", min(2, os.cpu_count() or 1), WORKERS_MAX)
    shards = _whole(config, "shards", 1 if external else workers, 1 if name == EXTERNAL else BUCKETS)
    options = backend.configure({key: value for key, value in config.items() if key not in _OWN_OPTIONS})
    identity = msgspec.json.encode([name, backend.version, options, shards, types], order="deterministic")
    fingerprint = blake2b(identity, digest_size=16).hexdigest()
    return Spec(index_type, types, name, options, shards, min(workers, shards), fingerprint)


def _whole(config: Mapping[str, Any], key: str, default: int, most: int) -> int:
    value = config.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise InvalidConfig(f"build_config[{key!r}] must be a whole number from 1 to {most}, not {value!r}")
    return value


def refuse_other_options(
    error: DuplicateBuild,
    index_type: str,
    begun: tuple[Sequence[str], Mapping[str, Any]],
    asked: tuple[Sequence[str], Mapping[str, Any] | None],
) -> None:
    """Raise `error` unless a build that is under way was begun with the types and options that are asked for, so that
    the caller may join it."""
    if make_spec(index_type, *begun).fingerprint != make_spec(index_type, *asked).fingerprint:
        error.message += f"; it was begun with other options: {begun[1]}, {begun[0]}"
        raise error
