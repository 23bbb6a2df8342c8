"""The `graph` backend: each record has the edges that its fields say, by the option `edges`.

    {"link_type": {"from": "source", "to": "target", "kind": "name", "from_type": "person", "to_type": "object_type"},
     "object_type": [{"to": "parent"}, {"to": "owners", "to_type": "person"}]}

`from` and `to` name fields: an id, {"resource_type": ..., "id": ...}, or a list of these. Without `from`, the record
itself is the source. `from_type` and `to_type` are the resource types of ids; by default that of the record. `kind`
names the field that has the kind of the edge; without it, the kind is the name in `to`.

Entries of an edge, which is [source, target, kind, record], each but the kind a key:

    o, hash of the source (16 bytes), kind, 0, target, 0     the edges from a record, by kind and target
    i, hash of the target (16 bytes), kind, 0, source, 0     the edges to a record
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from shadowswitch.model.errors import InvalidConfig, InvalidName
from shadowswitch.model.kinds.asking import Key
from shadowswitch.model.names import check_resource_type
from shadowswitch.storage.backends.derived.backend import DerivedBackend
from shadowswitch.storage.backends.derived.entries import Entry
from shadowswitch.storage.backends.derived.writer import Derive
from shadowswitch.storage.backends.graph.places import IN, OUT, place
from shadowswitch.storage.backends.graph.reader import GraphReader

EDGES_MAX = 10_000
"""Of one record; the others are left out. A list in `from` and one in `to` make an edge of each pair."""
RULES_MAX = 100
_PARTS = ("from", "to", "kind", "from_type", "to_type")
_HINT = '"edges": {"link_type": {"from": "source", "to": "target", "kind": "name", "to_type": "object_type"}}'


class GraphBackend(DerivedBackend):
    """See the module. Stateless."""

    name = "graph"
    version = 1
    reader_type = GraphReader
    own_options = ("edges",)

    def configure(self, build_config: Mapping[str, Any]) -> dict[str, Any]:
        """`get` gives the fields in which edges are, and those in the option `fields`."""
        edges = _edges(build_config.get("edges"))
        options = super().configure(build_config)
        named = {rule[part] for rules in edges.values() for rule in rules for part in ("from", "to", "kind")}
        return {**options, "fields": sorted({*named, *(options["fields"] or ())} - {None}), "edges": edges}

    def deriver(self, options: Mapping[str, Any]) -> Derive:
        return partial(_entries, options["edges"])


def _edges(given: Any) -> dict[str, list[dict[str, str | None]]]:
    if not isinstance(given, Mapping) or not 1 <= len(given) <= RULES_MAX:
        raise InvalidConfig("edges says which fields are edges, for 1 to 100 resource types", hint=_HINT)
    return {_checked(name): _rules(name, given[name]) for name in sorted(given, key=str)}


def _rules(resource_type: str, given: Any) -> list[dict[str, str | None]]:
    rules = list(given) if isinstance(given, list | tuple) else [given]
    if not 1 <= len(rules) <= RULES_MAX:
        raise InvalidConfig(f"edges of {resource_type} are {len(rules)}", hint=f"use 1 to {RULES_MAX}")
    found: list[dict[str, str | None]] = []
    for rule in rules:
        where = f"an edge of {resource_type}"
        if not isinstance(rule, Mapping) or not all(isinstance(rule.get(part), str | None) for part in _PARTS):
            raise InvalidConfig(f"{where} is {rule!r:.80}, not names of fields", hint=_HINT)
        unknown = sorted(str(part) for part in rule if part not in _PARTS)
        if unknown or not rule.get("to"):
            what = f"has {', '.join(unknown)}" if unknown else 'has no "to"'
            raise InvalidConfig(f"{where} {what}", hint=f"it has {', '.join(_PARTS)}; {_HINT}")
        for part in ("from_type", "to_type"):
            _checked(rule.get(part) or resource_type)
        found.append({part: rule.get(part) or None for part in _PARTS})
    return found


def _checked(resource_type: Any) -> str:
    try:
        return check_resource_type(resource_type)
    except InvalidName as error:
        raise InvalidConfig(f"edges has a wrong resource type: {error.message}", hint=_HINT) from error


def _entries(
    edges: Mapping[str, list[dict[str, str | None]]], resource_type: str, id: str, fields: Mapping[str, Any]
) -> Iterator[Entry]:
    record: Key = (resource_type, id)
    count = 0
    for rule in edges.get(resource_type, ()):
        sources = _keys(fields.get(rule["from"]), rule["from_type"] or resource_type) if rule["from"] else (record,)
        kind = fields.get(rule["kind"], "") if rule["kind"] else rule["to"]
        kind = kind if isinstance(kind, str) else ""
        targets = list(_keys(fields.get(rule["to"] or ""), rule["to_type"] or resource_type))
        for source in sources:
            for target in targets:
                count += 1
                if count > EDGES_MAX:
                    return
                edge = (source, target, kind, record)
                yield place(OUT, source, kind, target), edge
                yield place(IN, target, kind, source), edge


def _keys(value: Any, resource_type: str) -> Iterator[Key]:
    """The keys in a field: an id, an object with `id` and perhaps `resource_type`, or a list of these."""
    for one in value if isinstance(value, list) else (value,):
        if isinstance(one, str):
            yield resource_type, one
        elif isinstance(one, Mapping) and isinstance(one.get("id"), str):
            named = one.get("resource_type", resource_type)
            if isinstance(named, str):
                yield named, one["id"]
