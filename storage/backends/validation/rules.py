"""The rules of a `validation` index: JSON Schemas by resource type, and the violations that a record has.

Schemas are of draft 2020-12 where they name no other one (`$schema`). A reference leads inside its schema: nothing is
fetched. Validated by jsonschema-rs; a pattern that takes too long is a violation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import jsonschema_rs
import msgspec

from shadowswitch.model.errors import InvalidConfig, InvalidName
from shadowswitch.model.kinds.violations import Violation
from shadowswitch.model.names import check_resource_type

SCHEMAS_BYTES_MAX = 1 << 20
VIOLATIONS_MAX = 100
"""Of one record; the others are not listed."""
MESSAGE_CHARS = 300
HINT = '"schemas": {"object_type": {"type": "object", "required": ["title"]}}'


def check_schemas(given: Any) -> dict[str, Any]:
    """The option `schemas`, in its canonical form. Raises InvalidConfig for what is no valid schema."""
    if not isinstance(given, Mapping) or not given:
        raise InvalidConfig("schemas has a JSON Schema for each resource type that is validated", hint=HINT)
    try:
        text = msgspec.json.encode({str(name): given[name] for name in sorted(given, key=str)})
        found = msgspec.json.decode(text, type=dict[str, Any])
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        raise InvalidConfig(f"schemas has a value that JSON cannot carry: {error}", hint=HINT) from error
    if len(text) > SCHEMAS_BYTES_MAX:
        raise InvalidConfig(f"schemas are longer than {SCHEMAS_BYTES_MAX >> 10} KiB as JSON", hint="shorten them")
    for resource_type, schema in found.items():
        try:
            check_resource_type(resource_type)
        except InvalidName as error:
            raise InvalidConfig(f"schemas has a wrong resource type: {error.message}", hint=HINT) from error
        _validator(resource_type, schema)
    return found


class Rules:
    """The compiled schemas. Any thread."""

    def __init__(self, schemas: Mapping[str, Any]) -> None:
        self._validators = {name: _validator(name, schema) for name, schema in schemas.items()}

    def violations(self, resource_type: str, id: str, fields: Mapping[str, Any]) -> Iterator[Violation]:
        """What a record violates. Raises nothing."""
        validator = self._validators.get(resource_type)
        if validator is None:
            return
        try:
            for error in islice(validator.iter_errors(fields), VIOLATIONS_MAX):
                rule = f"{resource_type}#{_pointer(error.schema_path)}"
                yield Violation(resource_type, id, rule, _pointer(error.instance_path), error.message[:MESSAGE_CHARS])
        except ValueError as error:  # a value that is no JSON, such as bytes
            message = f"the record is no JSON: {error}"[:MESSAGE_CHARS]
            yield Violation(resource_type, id, f"{resource_type}#", "", message)


def _validator(resource_type: str, schema: Any) -> Any:
    try:
        return jsonschema_rs.validator_for(schema, offline=True)
    except ValueError as error:
        what = str(error).partition("\n")[0]
        raise InvalidConfig(f"the schema of {resource_type} is not valid: {what}", hint=HINT) from error


def _pointer(path: Sequence[str | int]) -> str:
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)
