"""The kind `schema`: any backend that answers it, beside the same answers by hand.

    class TestMySchema(SchemaConformance):
        backend_spec = "my_package.my_module:MyBackend"

The backend takes the options `types` and `uses` as the `schema` backend does.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from shadowswitch.model.errors import InvalidConfig, Timeout
from shadowswitch.model.kinds.asking import Asking, Key
from shadowswitch.model.kinds.schema import BreakKind, Property, Ref
from shadowswitch.model.search.bounds import TimeLimit
from shadowswitch.storage.backends.protocol import Backend
from shadowswitch.storage.conformance.base import Shards
from shadowswitch.storage.conformance.expected import item

NAMES = ("User", "Order", "주문", "N" * 300)
PROPERTIES = ("name", "price", "owner")
USES = {"link_type": [{"type": "from_type"}, {"type": "to_type"}], "view": {"type": "type", "properties": "columns"}}
WRONG_CONFIGS: tuple[dict[str, Any], ...] = (
    {"types": []},
    {"types": {"object_type": {}}},
    {"types": {"object_type": {"properties": 7}}},
    {"types": {"object_type": {"properties": "p", "more": "q"}}},
    {"types": {"": {"properties": "p"}}},
    {"uses": {"view": {"properties": "columns"}}},
    {"uses": {"view": []}},
    {"no_such_option": 1},
)
Records = dict[Key, dict[str, Any]]


def some_record(chance: random.Random) -> tuple[Key, dict[str, Any]]:
    """A type, a link or a view."""
    kind = chance.choice(["object_type", "link_type", "view"])
    if kind == "object_type":
        chosen = chance.sample(PROPERTIES, chance.randint(0, 3))
        types = [chance.choice(["string", "int", "User"]) for _ in chosen]
        forms: list[Any] = [
            dict(zip(chosen, types, strict=True)),
            [{"name": name, "type": one, "required": True} for name, one in zip(chosen, types, strict=True)],
        ]
        return (kind, chance.choice(NAMES)), {"properties": chance.choice(forms), "note": "x"}
    if kind == "link_type":
        fields: dict[str, Any] = {"from_type": chance.choice(NAMES), "to_type": chance.choice(NAMES)}
    else:
        fields = {"type": chance.choice(NAMES), "columns": chance.sample(PROPERTIES, 2)}
    return (kind, f"r{chance.randrange(12)}"), fields


def properties_of(fields: Mapping[str, Any]) -> list[Property]:
    """Those of a record that defines a type."""
    given = fields["properties"]
    if isinstance(given, dict):
        return sorted(Property(name, one) for name, one in given.items())
    return sorted(Property(one["name"], one["type"], True) for one in given)


def refs_of(records: Records) -> list[Ref]:
    """Every use."""
    found = set()
    for key, fields in records.items():
        if key[0] == "object_type":
            found |= {Ref(one.type, "", key, f"properties/{one.name}") for one in properties_of(fields)}
        elif key[0] == "link_type":
            found |= {Ref(fields[field], "", key, field) for field in ("from_type", "to_type")}
        else:
            found |= {Ref(fields["type"], "", key, "type")}
            found |= {Ref(fields["type"], name, key, "columns") for name in fields["columns"]}
    return sorted(found)


class SchemaConformance(Shards):
    """The promises of the kind `schema`. One shard of the backend, or two."""

    build_config: Mapping[str, Any] = {"types": {"object_type": {"properties": "properties"}}, "uses": USES}

    @pytest.fixture(params=[1, 2])
    def shards(self, request: pytest.FixtureRequest, backend: Backend, options: Any, tmp_path: Path) -> list[Path]:
        paths = [tmp_path / f"types-{number}" for number in range(request.param)]
        for path in paths:
            backend.create_shard(path, options)
        return paths

    @pytest.mark.parametrize("seed", range(3))
    def test_each_answer_is_that_of_the_records(
        self, backend: Backend, options: dict[str, Any], shards: list[Path], seed: int
    ) -> None:
        chance, lsn, records = random.Random(seed), 0, Records()
        writers = [backend.open_writer(path, options) for path in shards]
        with closing(backend.open_reader(shards, options)) as reader:
            for _ in range(12):
                for _ in range(8):
                    lsn += 1
                    key, fields = some_record(chance)
                    is_removed = chance.random() < 0.2
                    change = item(lsn, *key, None if is_removed else fields)
                    records.pop(key, None)
                    records |= {} if is_removed else {key: fields}
                    writers[change.key_hash % len(writers)].apply([change], lsn)
                assert_answers(reader, records)
        for writer, path in zip(writers, shards, strict=True):
            writer.close()
            assert backend.check(path, options) == []

    def test_a_wrong_option_and_a_wrong_query_are_refused(
        self, backend: Backend, options: dict[str, Any], shards: list[Path]
    ) -> None:
        for wrong in WRONG_CONFIGS:
            with pytest.raises(InvalidConfig) as refused:
                backend.configure(wrong)
            assert refused.value.hint
        late = Asking(TimeLimit(0.0, iter(range(1000)).__next__))
        with closing(backend.open_reader(shards, options)) as opened:
            reader: Any = opened
            wrong_calls: tuple[tuple[Any, ...], ...] = (
                (reader.properties, "absent"),
                (reader.properties, ""),
                (reader.users_of, 7),
                (reader.users_of, "User", "\ud800"),
                (reader.compatible, {}),
                (reader.compatible, {"User": 7}),
                (reader.types, 0),
            )
            for call, *arguments in wrong_calls:
                with pytest.raises(InvalidConfig) as refused:
                    call(Asking(), *arguments)
                assert refused.value.hint
            late_calls: tuple[tuple[Any, ...], ...] = (
                (reader.types,),
                (reader.users_of, "User"),
                (reader.compatible, {"User": None}),
            )
            for call, *arguments in late_calls:
                with pytest.raises(Timeout):
                    call(late, *arguments)


def assert_answers(reader: Any, records: Records) -> None:
    """Every query, beside the records."""
    asking, refs = Asking(), refs_of(records)
    defined = {key[1]: properties_of(fields) for key, fields in records.items() if key[0] == "object_type"}
    assert {one.name: one.properties for one in reader.types(asking)} == defined
    assert [one.name for one in reader.types(asking, 2)] == sorted(defined, key=str.encode)[:2]
    for name, properties in defined.items():
        assert reader.properties(asking, name) == properties
    for name in NAMES:
        assert sorted(reader.users_of(asking, name)) == [ref for ref in refs if ref.type == name]
        for used in PROPERTIES:
            of_property = [ref for ref in refs if (ref.type, ref.property) == (name, used)]
            assert sorted(reader.users_of(asking, name, used)) == of_property
        _assert_breaks(reader, name, defined.get(name, []), refs)


def _assert_breaks(reader: Any, name: str, properties: list[Property], refs: list[Ref]) -> None:
    used = {ref.property for ref in refs if ref.type == name}
    gone = reader.compatible(Asking(), {name: None})
    assert [one.kind for one in gone] == ([BreakKind.TYPE_REMOVED] if used else [])
    retyped = reader.compatible(
        Asking(), {name: {one.name: one.type + "2" for one in properties if one.name != "name"}}
    )
    expected = [
        (BreakKind.PROPERTY_REMOVED if one.name == "name" else BreakKind.PROPERTY_RETYPED, one.name)
        for one in properties
        if one.name in used
    ]
    assert [(one.kind, one.property) for one in retyped] == expected
    assert all(one.users for one in retyped)
    assert reader.compatible(Asking(), {name: {one.name: one.type for one in properties}}) == []
