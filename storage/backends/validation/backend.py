"""The `validation` backend: each record has the violations of the schema of its resource type (option `schemas`).

Entries, whose values are [resource type, id, rule, path, message]:

    v, resource type, 0, id, 0, number (2 bytes)            the violations of a record
    r, hash of the rule (16 bytes), type, 0, id, 0, number  those of a rule
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from shadowswitch.storage.backends.derived.backend import DerivedBackend
from shadowswitch.storage.backends.derived.entries import Entry
from shadowswitch.storage.backends.derived.writer import Derive
from shadowswitch.storage.backends.validation.places import RECORD, of_record, of_rule
from shadowswitch.storage.backends.validation.reader import ValidationReader
from shadowswitch.storage.backends.validation.rules import Rules, check_schemas


class ValidationBackend(DerivedBackend):
    """See the module. Stateless."""

    name = "validation"
    version = 1
    reader_type = ValidationReader
    own_options = ("schemas",)

    def configure(self, build_config: Mapping[str, Any]) -> dict[str, Any]:
        """`get` gives no fields but those in the option `fields`."""
        options = super().configure({"fields": [], **build_config})
        return {**options, "schemas": check_schemas(build_config.get("schemas"))}

    def deriver(self, options: Mapping[str, Any]) -> Derive:
        rules = Rules(options["schemas"])

        def entries(resource_type: str, id: str, fields: Mapping[str, Any]) -> Iterator[Entry]:
            for number, found in enumerate(rules.violations(resource_type, id, fields)):
                value = (found.resource_type, found.id, found.rule, found.path, found.message)
                place = of_record(resource_type, id) + number.to_bytes(2, "big")
                yield RECORD + place, value
                yield of_rule(found.rule) + place, value

        return entries
