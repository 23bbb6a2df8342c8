"""The backends by name, the default for each index type, and the registration of a host's own backends.

`build_config["backend"]` is the name of a registered backend, or "module:attr" of a backend that any process can
import: an instance, or a class that is called without arguments. A registration holds in its own process only: in
worker processes, a backend from outside this library needs the second form.
"""

from __future__ import annotations

import difflib
import importlib
import threading
from collections.abc import Callable, Mapping
from typing import Any

from shadowswitch.model.errors import InvalidConfig, ResourceExhausted
from shadowswitch.storage.backends.protocol import Backend
from shadowswitch.storage.shortages import shortage

_METHODS = (
    "configure", "project", "create_shard", "open_writer", "open_reader", "check", "snapshot", "closed_files",
)  # fmt: skip
_BUILT_IN = {
    "fts5": "shadowswitch.storage.backends.fts5.backend:Fts5Backend",
    "kv": "shadowswitch.storage.backends.kv.backend:KvBackend",
    "graph": "shadowswitch.storage.backends.graph.backend:GraphBackend",
    "tantivy": "shadowswitch.storage.backends.tantivy.backend:TantivyBackend",
    "schema": "shadowswitch.storage.backends.schema.backend:SchemaBackend",
    "vector": "shadowswitch.storage.backends.vector.backend:VectorBackend",
    "validation": "shadowswitch.storage.backends.validation.backend:ValidationBackend",
    "external": "shadowswitch.storage.backends.external:ExternalBackend",
}
_DEFAULTS = {"SEARCH_INDEX": "fts5"}
IMPORTED = ("backend", "embedder")
"""The options that may name a module."""
SIMILAR = 0.85
"""The least similarity of a mistyped name: one or two letters."""
_registered: dict[str, Backend] = {}
_guard = threading.Lock()


def backend(name: str) -> Backend:
    """The backend of that name or "module:attr"; raises `InvalidConfig`. Any thread."""
    if not isinstance(name, str):
        raise InvalidConfig(f"backend is {name!r}, not a name", hint=_known())
    with _guard:
        found = _registered.get(name)
    if found is not None:
        return found
    if name in _BUILT_IN:
        register(load(_BUILT_IN[name]))
        return _registered[name]
    if ":" in name:
        return load(name)
    raise InvalidConfig(f"unknown backend {name!r}", hint=_known())


def register(backend: Backend) -> None:
    """Register a backend by its name in this process; the newest of a name wins. Any thread."""
    _require_backend(backend, repr(backend))
    with _guard:
        _registered[backend.name] = backend


def default_backend(index_type: str) -> str:
    """The name of the backend for an index type when the build names none."""
    return _DEFAULTS.get(index_type, "kv")


def likely_index_type(index_type: str) -> str:
    """The well-known index type that a name was likely meant to be; "" for one that is like none, or is one."""
    close = [] if index_type in _DEFAULTS else difflib.get_close_matches(index_type, _DEFAULTS, 1, SIMILAR)
    return close[0] if close else ""


def foreign_code(build_config: Mapping[str, Any]) -> list[str]:
    """What a build would import from outside the library: "module:attr" of a backend, of an embedder."""
    return [named for part in IMPORTED if ":" in (named := str(build_config.get(part, "")))]


def load(spec: str) -> Backend:
    """Import a backend from "module:attr"; raises `InvalidConfig`. The host's own code runs here."""
    module, _, attribute = spec.partition(":")
    try:
        found: object = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
        if isinstance(found, type):
            make: Callable[[], object] = found
            found = make()
    except (InvalidConfig, ResourceExhausted):
        raise
    except Exception as error:
        lack = shortage(error, "load backend", spec)
        if lack is not None:
            raise lack from error
        raise InvalidConfig(
            f"backend {spec!r} cannot be loaded: {error}",
            hint="use module:attr of something importable in every process",
            cause=error,
        ) from error
    return _require_backend(found, spec)


def _require_backend(found: object, spec: str) -> Backend:
    missing = [name for name in _METHODS if not callable(getattr(found, name, None))]
    if (
        missing
        or not isinstance(getattr(found, "name", None), str)
        or not isinstance(getattr(found, "version", None), int)
        or not isinstance(getattr(found, "torn_by_power_cut", None), bool)
    ):
        raise InvalidConfig(
            f"{spec} is not a backend: it lacks {', '.join(missing) or 'name, version or torn_by_power_cut'}",
            hint="see shadowswitch.storage.backends.protocol.Backend",
        )
    return found  # type: ignore[return-value]


def _known() -> str:
    with _guard:
        names = sorted({*_BUILT_IN, *_registered})
    return f'known: {", ".join(names)}; or "module:attr" of your own'
