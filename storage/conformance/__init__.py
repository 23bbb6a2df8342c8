"""The conformance suite: every promise of `storage.backends.protocol` (BK-1 to BK-6) as tests, for any backend.

In a test file of your own:

    import pytest

    pytest.register_assert_rewrite("shadowswitch.storage.conformance")

    from shadowswitch.storage.conformance import BackendConformance


    class TestMyBackend(BackendConformance):
        backend_spec = "my_package.my_module:MyBackend"   # importable: some tests use it in other processes
        build_config = {"some_option": 1}

        def query_for(self, resource_type, id, word):     # a query that finds a record with fields_for(word)
            return word

A backend that answers a query kind of the library passes `GraphConformance`, `SchemaConformance`,
`VectorConformance` or `ViolationConformance` as well.

The suite needs pytest; the library does not. Every random choice comes from a seed that a failure shows.
"""

from shadowswitch.storage.conformance.kinds.graphs import GraphConformance
from shadowswitch.storage.conformance.kinds.schemas import SchemaConformance
from shadowswitch.storage.conformance.kinds.vectors import VectorConformance
from shadowswitch.storage.conformance.kinds.violations import ViolationConformance
from shadowswitch.storage.conformance.suite import BackendConformance

__all__ = ["BackendConformance", "GraphConformance", "SchemaConformance", "VectorConformance", "ViolationConformance"]
