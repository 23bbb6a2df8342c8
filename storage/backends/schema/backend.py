"""The `schema` backend: records that define types, and records that use them.

    "types": {"object_type": {"properties": "properties"}}
    "uses":  {"link_type": [{"type": "from_type"}, {"type": "to_type"}],
              "view": {"type": "object_type", "properties": "columns"}}

A record of a resource type in `types` defines the type of its id. The field named by `properties` has them: an object
by name, a list of objects with `name`, or a list of names; the value says `type` and `required`, or is the type.
A property whose type is the name of a type uses it. A record of a resource type in `uses` uses the type that its field
`type` names (or several), and of that the properties in its field `properties`.

Entries, whose values are those of `model.kinds.schema`, as arrays:

    t, type, 0                                            type, record, properties: a type
    u, hash of the type, property, 0, key of the record   type, property, record, field: a use
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from shadowswitch.model.errors import InvalidConfig, InvalidName
from shadowswitch.model.names import check_resource_type
from shadowswitch.storage.backends.derived.backend import DerivedBackend
from shadowswitch.storage.backends.derived.entries import Entry, shortened
from shadowswitch.storage.backends.derived.writer import Derive
from shadowswitch.storage.backends.schema.definitions import names_in, properties_in
from shadowswitch.storage.backends.schema.places import NAME_BYTES, of_type, of_use, of_user
from shadowswitch.storage.backends.schema.reader import SchemaReader

TYPES: Mapping[str, Any] = {"object_type": {"properties": "properties"}}
"""By default."""
RULES_MAX = 100
_HINT = '"types": {"object_type": {"properties": "properties"}}, "uses": {"link_type": {"type": "from_type"}}'


class SchemaBackend(DerivedBackend):
    """See the module. Stateless."""

    name = "schema"
    version = 1
    reader_type = SchemaReader
    own_options = ("types", "uses")

    def configure(self, build_config: Mapping[str, Any]) -> dict[str, Any]:
        """`get` gives the fields that the rules name, and those in the option `fields`."""
        types = _rules("types", build_config.get("types", TYPES), ("properties",))
        uses = _rules("uses", build_config.get("uses", {}), ("type", "properties"))
        options = super().configure(build_config)
        rules = [rule for of_types in (types, uses) for those in of_types.values() for rule in those]
        named = {field for rule in rules for field in rule.values()}
        return {**options, "fields": sorted({*named, *(options["fields"] or ())}), "types": types, "uses": uses}

    def deriver(self, options: Mapping[str, Any]) -> Derive:
        return partial(_entries, options["types"], options["uses"])


Rules = dict[str, list[dict[str, str]]]


def _rules(option: str, given: Any, parts: tuple[str, ...]) -> Rules:
    if not isinstance(given, Mapping) or len(given) > RULES_MAX:
        raise InvalidConfig(f"{option} has rules for at most {RULES_MAX} resource types", hint=_HINT)
    found: Rules = {}
    for resource_type in sorted(given, key=str):
        try:
            rules = given[check_resource_type(resource_type)]
        except InvalidName as error:
            raise InvalidConfig(f"{option} has a wrong resource type: {error.message}", hint=_HINT) from error
        rules = list(rules) if isinstance(rules, list | tuple) else [rules]
        if not 1 <= len(rules) <= RULES_MAX or not all(_is_rule(rule, parts) for rule in rules):
            what = f"{option} of {resource_type} is {rules!r:.80}"
            raise InvalidConfig(f"{what}, not names of fields in {', '.join(parts)}", hint=_HINT)
        found[resource_type] = [dict(sorted(rule.items())) for rule in rules]
    return found


def _is_rule(rule: Any, parts: tuple[str, ...]) -> bool:
    return (
        isinstance(rule, Mapping)
        and parts[0] in rule
        and set(rule) <= set(parts)
        and all(isinstance(field, str) and field for field in rule.values())
    )


def _entries(types: Rules, uses: Rules, resource_type: str, id: str, fields: Mapping[str, Any]) -> Iterator[Entry]:
    record = (resource_type, id)
    for rule in types.get(resource_type, ())[:1]:
        field = rule["properties"]
        properties = properties_in(fields.get(field))
        yield of_type(id), (id, record, [(one.name, one.type, one.required) for one in properties])
        for one in properties:
            if one.type:
                place = of_user(record) + shortened(one.name.encode(), NAME_BYTES)
                yield of_use(one.type, "") + place, (one.type, "", record, f"{field}/{one.name}")
    for number, rule in enumerate(uses.get(resource_type, ())):
        for used in names_in(fields.get(rule["type"])):
            place = of_user(record) + number.to_bytes(1, "big")
            yield of_use(used, "") + place, (used, "", record, rule["type"])
            for name in names_in(fields.get(rule["properties"])) if "properties" in rule else ():
                yield of_use(used, name) + place, (used, name, record, rule["properties"])
