"""The `tantivy` backend: full-text search with Tantivy, whose package is the extra `tantivy`."""

from importlib.util import find_spec

from shadowswitch.model.errors import InvalidConfig

if find_spec("tantivy") is None:
    raise InvalidConfig(
        "the backend tantivy needs the package tantivy, which is not installed",
        hint="pip install 'shadowswitch[tantivy]'",
    )
