"""The kind `violations`: any backend that answers it, beside the rules checked by hand.

    class TestMyViolations(ViolationConformance):
        backend_spec = "my_package.my_module:MyBackend"

The backend takes the option `schemas` as the `validation` backend does.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from shadowswitch.model.errors import InvalidConfig, Timeout
from shadowswitch.model.kinds.asking import Asking, Key
from shadowswitch.model.search.bounds import TimeLimit
from shadowswitch.storage.backends.protocol import Backend
from shadowswitch.storage.conformance.base import Shards
from shadowswitch.storage.conformance.expected import item

SCHEMA = {
    "type": "object",
    "required": ["title"],
    "properties": {"title": {"type": "string"}, "size": {"minimum": 0}, "tags": {"items": {"type": "string"}}},
}
WRONG_CONFIGS: tuple[dict[str, Any], ...] = (
    {},
    {"schemas": {}},
    {"schemas": []},
    {"schemas": {"doc": {"type": "nothing"}}},
    {"schemas": {"doc": 7}},
    {"schemas": {"": {}}},
    {"schemas": {"doc": {"$ref": "https://example.com/schema.json"}}},
    {"schemas": {"doc": {"$ref": "#/nowhere"}}},
    {"schemas": {"doc": {"const": "x" * (1 << 20)}}},
    {"schemas": {"doc": {}}, "no_such_option": 1},
)
Found = tuple[str, str, str, str]
"""Resource type, id, rule and path."""


def by_hand(key: Key, fields: Mapping[str, Any]) -> Iterator[Found]:
    """What a record violates."""
    if key[0] != "doc":
        return
    if "title" not in fields:
        yield *key, "doc#/required", ""
    elif not isinstance(fields["title"], str):
        yield *key, "doc#/properties/title/type", "/title"
    if isinstance(fields.get("size"), int) and fields["size"] < 0:
        yield *key, "doc#/properties/size/minimum", "/size"
    for number, tag in enumerate(fields.get("tags", [])):
        if not isinstance(tag, str):
            yield *key, "doc#/properties/tags/items/type", f"/tags/{number}"


def some_fields(chance: random.Random) -> dict[str, Any]:
    """Right or wrong in several ways."""
    fields: dict[str, Any] = {"title": chance.choice(["x", "키", 7, None])} if chance.random() < 0.8 else {}
    if chance.random() < 0.5:
        fields["size"] = chance.randint(-2, 5)
    if chance.random() < 0.3:
        fields["tags"] = [chance.choice(["a", 1, None]) for _ in range(chance.randrange(4))]
    return fields


class ViolationConformance(Shards):
    """The promises of the kind `violations`. One shard of the backend, or two."""

    build_config: Mapping[str, Any] = {"schemas": {"doc": SCHEMA}}

    @pytest.fixture(params=[1, 2])
    def shards(self, request: pytest.FixtureRequest, backend: Backend, options: Any, tmp_path: Path) -> list[Path]:
        paths = [tmp_path / f"rules-{number}" for number in range(request.param)]
        for path in paths:
            backend.create_shard(path, options)
        return paths

    @pytest.mark.parametrize("seed", range(3))
    def test_each_answer_is_that_of_the_rules(
        self, backend: Backend, options: dict[str, Any], shards: list[Path], seed: int
    ) -> None:
        chance, records, lsn = random.Random(seed), dict[Key, dict[str, Any]](), 0
        writers = [backend.open_writer(path, options) for path in shards]
        with closing(backend.open_reader(shards, options)) as reader:
            for _ in range(12):
                for _ in range(20):
                    lsn += 1
                    key = (
                        chance.choice(["doc", "doc", "other"]),
                        f"r{chance.randrange(60)}" + "x" * chance.choice([0, 400]),
                    )
                    fields = some_fields(chance) if chance.random() < 0.8 else None
                    if fields is None:
                        records.pop(key, None)
                    else:
                        records[key] = fields
                    change = item(lsn, *key, fields)
                    writers[change.key_hash % len(writers)].apply([change], lsn)
                assert_answers(reader, records)
        for writer, path in zip(writers, shards, strict=True):
            writer.close()
            assert backend.check(path, options) == []

    def test_a_wrong_schema_is_refused(self, backend: Backend) -> None:
        for wrong in WRONG_CONFIGS:
            with pytest.raises(InvalidConfig) as refused:
                backend.configure(wrong)
            assert refused.value.hint

    def test_what_is_no_query_is_refused_and_a_late_one_ends(
        self, backend: Backend, options: dict[str, Any], shards: list[Path]
    ) -> None:
        late = Asking(TimeLimit(0.0, iter(range(1000)).__next__))
        with closing(backend.open_reader(shards, options)) as opened:
            reader: Any = opened
            for wrong in ({"limit": 0}, {"cursor": "nonsense"}, {"cursor": 7}, {"rule": 7}, {"cursor": "é"}):
                with pytest.raises(InvalidConfig) as refused:
                    reader.list(Asking(), **wrong)
                assert refused.value.hint
            assert reader.list(Asking(), rule="no rule").violations == []
            assert reader.counts(Asking()) == {}
            assert not reader.is_valid(Asking(), "doc", "absent")
            for ask in (reader.list, reader.counts):
                with pytest.raises(Timeout):
                    ask(late)


def assert_answers(reader: Any, records: Mapping[Key, Mapping[str, Any]]) -> None:
    """Every query, beside the rules by hand."""
    expected = sorted(found for key, fields in records.items() for found in by_hand(key, fields))
    assert _all(reader, limit=10_000) == expected
    assert _all(reader, limit=7) == expected
    assert _all(reader, limit=7, resource_type="doc") == expected
    assert _all(reader, limit=7, resource_type="other") == []
    counts = Counter(rule for _, _, rule, _ in expected)
    assert dict(reader.counts(Asking())) == counts
    for rule in counts:
        assert _all(reader, limit=3, rule=rule) == [found for found in expected if found[2] == rule]
    invalid = {(resource_type, id) for resource_type, id, _, _ in expected}
    for key in records:
        assert reader.is_valid(Asking(), *key) == (key not in invalid)


def _all(reader: Any, **how: Any) -> list[Found]:
    """All pages together."""
    found: list[Found] = []
    cursor = None
    while True:
        page = reader.list(Asking(), cursor=cursor, **how)
        found += [(one.resource_type, one.id, one.rule, one.path) for one in page.violations]
        assert all(one.message for one in page.violations)
        cursor = page.cursor
        if cursor is None:
            return sorted(found)
        assert len(page.violations) == how["limit"]
