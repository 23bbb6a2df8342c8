"""The `validation` backend: what records have that their JSON Schemas do not allow. The extra `validation`."""

from importlib.util import find_spec

from shadowswitch.model.errors import InvalidConfig

if find_spec("jsonschema_rs") is None:
    raise InvalidConfig(
        "the backend validation needs the package jsonschema-rs, which is not installed",
        hint="pip install 'shadowswitch[validation]'",
    )
