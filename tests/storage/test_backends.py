"""The conformance suite over the backends that come with the library, and the registry that finds them."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import lmdb
import pytest

pytest.register_assert_rewrite("shadowswitch.storage.conformance")

from shadowswitch.model.errors import CorruptData, InvalidConfig  # noqa: E402
from shadowswitch.storage.backends import registry  # noqa: E402
from shadowswitch.storage.backends.fts5.backend import Fts5Backend  # noqa: E402
from shadowswitch.storage.backends.kv.backend import KvBackend  # noqa: E402
from shadowswitch.storage.backends.protocol import Backend  # noqa: E402
from shadowswitch.storage.conformance import (  # noqa: E402
    BackendConformance,
    GraphConformance,
    SchemaConformance,
    VectorConformance,
    ViolationConformance,
)
from tests.support import inside  # noqa: E402

GRAPH = "shadowswitch.storage.backends.graph.backend:GraphBackend"
SCHEMA = "shadowswitch.storage.backends.schema.backend:SchemaBackend"
VALIDATION = "shadowswitch.storage.backends.validation.backend:ValidationBackend"
VECTOR = "shadowswitch.storage.backends.vector.backend:VectorBackend"
FTS5 = "shadowswitch.storage.backends.fts5.backend:Fts5Backend"


class OnFts5(BackendConformance):
    """fts5 with any options."""

    backend_spec = FTS5
    wrong_configs: tuple[dict[str, Any], ...] = (
        {"analyzer": "x"},
        {"tokenizer": "porter'); DROP TABLE docs; --"},
        {"tokenizer": "unicode61 remove_diacritics 3"},
        {"tokenizer": "unicode61 remove_diacritics"},
        {"tokenizer": "porter trigram"},
        {"tokenizer": ""},
        {"tokenizer": 7},
        {"columns": []},
        {"columns": "title"},
        {"columns": ["title", "title"]},
        {"columns": [["title"]]},
        {"columns": {"title": 0}},
        {"columns": {"title": float("nan")}},
        {"columns": {"title": "heavy"}},
        {"columns": {"": 1}},
        {"columns": [f"c{number}" for number in range(65)]},
        {"prefix": 2},
        {"prefix": [0]},
        {"prefix": [2, 2]},
        {"prefix": [True]},
        {"prefix": list(range(1, 10))},
    )

    def alter_row(self, path: Path, resource_type: str, id: str) -> None:
        with closing(sqlite3.connect(path / "shard.sqlite")) as connection, connection:
            done = connection.execute("UPDATE docs SET c0 = 'planted' WHERE type = ? AND id = ?", (resource_type, id))
            assert done.rowcount == 1


class TestFts5ByDefault(OnFts5):
    pass


class TestFts5WithColumns(OnFts5):
    build_config = {"columns": {"title": 3, "nested": 1}, "tokenizer": "porter", "prefix": [2, 3]}


class OnTantivy(OnFts5):
    """tantivy with any options."""

    backend_spec = "shadowswitch.storage.backends.tantivy.backend:TantivyBackend"
    wrong_configs = (
        *OnFts5.wrong_configs,
        {"tokenizer": "trigram"},
        {"tokenizer": "ascii"},
        {"prefix": [2]},
    )


class TestTantivyByDefault(OnTantivy):
    pass


class TestTantivyWithColumns(OnTantivy):
    build_config = {"columns": {"title": 3, "nested": 1}, "tokenizer": "porter cjk code"}


class TestKv(BackendConformance):
    backend_spec = "shadowswitch.storage.backends.kv.backend:KvBackend"
    build_config = {"map_size_mib": 256}
    wrong_configs: tuple[dict[str, Any], ...] = (
        {"columns": 1},
        {"fields": "title"},
        {"fields": [1]},
        {"map_size_mib": 0},
        {"map_size_mib": "4"},
    )

    def query_for(self, resource_type: str, id: str, word: str) -> str:
        return id

    def alter_row(self, path: Path, resource_type: str, id: str) -> None:
        with lmdb.open(str(path / "kv"), max_dbs=2, lib_version=0) as env, env.begin(write=True) as transaction:
            rows = env.open_db(b"rows", txn=transaction, create=False)
            key = f"{resource_type}\0{id}".encode()
            value = transaction.get(key, db=rows)
            assert value is not None
            transaction.put(key, (int.from_bytes(value[:8], "big") + 1).to_bytes(8, "big") + value[8:], db=rows)


class TestKvWithFields(TestKv):
    build_config = {"fields": ["title", "size", "absent"], "map_size_mib": 256}


class TestGraph(TestKv):
    backend_spec = GRAPH
    build_config = {"edges": {"object_type": {"to": "title"}, "file": {"to": "nested"}}, "map_size_mib": 256}
    wrong_configs = (
        {},
        {"edges": {}},
        {"edges": []},
        {"edges": {"a": {}}},
        {"edges": {"a": {"from": "x"}}},
        {"edges": {"a": {"to": 7}}},
        {"edges": {"a": {"to": "x", "weight": "y"}}},
        {"edges": {"a": []}},
        {"edges": {"": {"to": "x"}}},
        {"edges": {"a": {"to": "x", "to_type": "\0"}}},
        {"edges": {"a": {"to": "x"}}, "fields": "title"},
        {"edges": {"a": {"to": "x"}}, "map_size_mib": 0},
        {"edges": {"a": {"to": "x"}}, "columns": 1},
    )


def test_options_are_the_same_in_any_order(tmp_path: Path) -> None:
    """The catalog gives back the options of a generation with their names in order."""
    backend = registry.load(GRAPH)
    options = backend.configure({"edges": {"b": {"to": "x", "from": "y"}, "a": [{"to": "z"}]}})
    backend.create_shard(tmp_path / "shard", options)
    turned = json.loads(json.dumps(options, sort_keys=True))
    for given in (options, turned, dict(reversed(turned.items()))):
        backend.open_reader([tmp_path / "shard"], given).close()
    with pytest.raises(CorruptData, match="other options"):
        backend.open_reader([tmp_path / "shard"], backend.configure({"edges": {"b": {"to": "x"}}}))


class TestTheQueriesOfAGraph(GraphConformance):
    backend_spec = GRAPH


class TestSchema(TestKv):
    backend_spec = SCHEMA
    build_config = {"types": {"object_type": {"properties": "nested"}}, "uses": {"file": {"type": "title"}}}
    wrong_configs = ({"types": 7}, {"uses": {"a": {}}}, {"columns": 1}, {"map_size_mib": 0})


class TestTheQueriesOfASchema(SchemaConformance):
    backend_spec = SCHEMA


class TestValidation(TestKv):
    backend_spec = VALIDATION
    build_config = {"schemas": {"object_type": {"properties": {"title": {"const": "elm"}}}}, "fields": ["title"]}
    wrong_configs = ({}, {"schemas": 7}, {"schemas": {"a": {}}, "fields": "title"})


class TestTheQueriesOfViolations(ViolationConformance):
    backend_spec = VALIDATION


class TestVector(TestKv):
    backend_spec = VECTOR
    build_config = {"vector_field": "title", "dimensions": 3, "fields": ["size"]}
    wrong_configs = ({}, {"vector_field": "v", "dimensions": 3, "fields": "v"})


class TestEmbedded(TestKv):
    """Texts that are embedded in a process of their own."""

    backend_spec = VECTOR
    build_config = {"embedder": "tests.support.embedder:embed", "field": "title", "dimensions": 64, "metric": "l2"}
    finds_the_nearest = True
    wrong_configs = ({"embedder": "tests.support.embedder:embed", "dimensions": 64},)

    def query_for(self, resource_type: str, id: str, word: str) -> str:
        return word


class TestTheQueriesOfVectors(VectorConformance):
    backend_spec = VECTOR


def test_the_registry_finds_backends_by_name_and_by_import() -> None:
    assert isinstance(registry.backend("fts5"), Fts5Backend)
    assert isinstance(registry.backend("kv"), KvBackend)
    assert isinstance(registry.backend(FTS5), Fts5Backend)
    assert registry.backend("fts5") is registry.backend("fts5")
    assert registry.default_backend("SEARCH_INDEX") == "fts5"
    assert registry.default_backend("GRAPH_INDEX") == "kv"


@pytest.mark.parametrize(
    "name", ["lucene", "", None, "no_such_module:x", "json:nothing", "json:loads", "json:JSONDecoder", ":", "..:x"]
)
def test_an_unknown_backend_is_refused_and_the_known_ones_are_named(name: Any) -> None:
    with pytest.raises(InvalidConfig) as refused:
        registry.backend(name)
    assert refused.value.hint


def test_a_host_registers_a_backend_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    inside.replace(monkeypatch, inside.Step.REGISTERED_BACKENDS, {})

    class Mine(KvBackend):
        name = "mine"

    mine: Backend = Mine()
    registry.register(mine)
    assert registry.backend("mine") is mine
    with pytest.raises(InvalidConfig, match="mine") as refused:
        registry.backend("theirs")
    assert "mine" in refused.value.hint
    with pytest.raises(InvalidConfig):
        registry.register(object())  # type: ignore[arg-type]
