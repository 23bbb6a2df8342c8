"""The `vector` backend: records by the nearness of their vectors. The extra `vector`."""

from importlib.util import find_spec

from shadowswitch.model.errors import InvalidConfig

if find_spec("numpy") is None:
    raise InvalidConfig(
        "the backend vector needs the package numpy, which is not installed",
        hint="pip install 'shadowswitch[vector]'",
    )
