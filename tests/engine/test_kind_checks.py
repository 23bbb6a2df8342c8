"""LINKS, VIOLATIONS and SAME_RECORDS: checks of a switch, and of a group that is switched together."""

from __future__ import annotations

from typing import Any

import pytest

from shadowswitch import Delete, Engine, GroupMember, Put, SwitchRequest

TYPES = ["object_type", "link_type"]
LINK = {"from": "source", "to": "target", "kind": "name", "from_type": "object_type", "to_type": "object_type"}
GRAPH: dict[str, Any] = {"backend": "graph", "edges": {"link_type": LINK}}
TITLED = {"type": "object", "required": ["title"]}
SIZED = {"type": "object", "required": ["title", "size"]}
SCHEMA: dict[str, Any] = {"backend": "schema", "uses": {"link_type": [{"type": "source"}, {"type": "target"}]}}
RULE = "object_type#/required"


def rules(schema: dict[str, Any]) -> dict[str, Any]:
    return {"backend": "validation", "schemas": {"object_type": schema}}


def link(source: int, target: int) -> dict[str, str]:
    return {"source": f"o{source}", "target": f"o{target}", "name": "uses"}


def asking(*checks: str, **how: Any) -> SwitchRequest:
    return SwitchRequest(validation_checks=checks, switch_timeout_seconds=60, **how)


@pytest.fixture
def engine(open_engine: Any) -> Engine:
    engine: Engine = open_engine()
    engine.create_branch("main")
    engine.write(
        "main", [Put("object_type", f"o{n}", {"title": f"o{n}", "properties": {"p": "int"}}) for n in range(20)]
    )
    engine.write("main", [Put("link_type", f"l{n}", link(n, n + 1)) for n in range(10)])
    return engine


def built(engine: Engine, index_type: str, config: dict[str, Any], types: list[str] = TYPES) -> str:
    id = engine.start_build("main", index_type, types, config).shadow_index_id
    engine.wait_for(id, "BUILT", timeout_s=60)
    return id


def test_a_graph_with_a_link_to_nothing_is_refused(engine: Engine) -> None:
    engine.write("main", [Delete("object_type", "o3")])
    id = built(engine, "GRAPH_INDEX", GRAPH)
    refused = engine.switch(id, asking("LINKS"))
    assert not refused.success
    assert "LINKS: link_type/l2 links object_type/o2 with object_type/o3, and not both are there" in refused.message
    assert engine.switch(id, asking("DIGEST")).success
    engine.write("main", [Put("object_type", "o3", {"title": "again"})])
    assert engine.rebuild("main", "GRAPH_INDEX", TYPES, GRAPH, asking("LINKS")).success
    engine.write("main", [Delete("object_type", "o3")])
    forced = engine.rebuild("main", "GRAPH_INDEX", TYPES, GRAPH, asking("LINKS", force_switch=True))
    assert forced.success
    assert forced.validation_errors
    assert engine.rollback("main", "GRAPH_INDEX").success  # quick: it asks for no links


def test_a_new_schema_is_rehearsed_before_it_is_switched(engine: Engine) -> None:
    assert engine.rebuild("main", "VALIDATION_INDEX", TYPES, rules(TITLED), asking("VIOLATIONS")).success
    id = built(engine, "VALIDATION_INDEX", rules(SIZED))
    with engine.reader("main", "VALIDATION_INDEX", shadow_index_id=id) as reader:
        assert reader.violations.counts() == {RULE: 20}
        page = reader.violations.list(limit=3)
        assert [one.id for one in page.violations] == ["o0", "o1", "o10"]
    refused = engine.switch(id, asking("VIOLATIONS"))
    assert not refused.success
    assert f"VIOLATIONS: {RULE} is violated 20 times, and 0 times in the live index" in refused.message
    engine.write("main", [Put("object_type", f"o{n}", {"title": "t", "size": 1}) for n in range(20)])
    assert engine.switch(id, asking("VIOLATIONS")).success
    with engine.reader("main", "VALIDATION_INDEX") as reader:
        assert reader.violations.counts() == {}
        assert reader.violations.is_valid("object_type", "o1")


@pytest.mark.parametrize(
    ("check", "words"),
    [
        ("LINKS", "answers no queries of the kind graph"),
        ("VIOLATIONS", "answers no queries of the kind violations"),
        ("SAME_RECORDS", "compares the members of a group"),
    ],
)
def test_a_check_that_an_index_cannot_pass_or_fail_is_a_finding(engine: Engine, check: str, words: str) -> None:
    refused = engine.rebuild("main", "SEARCH_INDEX", TYPES, {}, asking(check))
    assert not refused.success
    assert words in refused.message


def members(*, search: list[str] = TYPES, schema: dict[str, Any] = TITLED) -> list[GroupMember]:
    return [
        GroupMember("main", "SEARCH_INDEX", search, {}),
        GroupMember("main", "TEXT_INDEX", TYPES, {"backend": "fts5", "tokenizer": "porter"}),
        GroupMember("main", "GRAPH_INDEX", TYPES, GRAPH),
        GroupMember("main", "SCHEMA_INDEX", TYPES, SCHEMA),
        GroupMember("main", "VALIDATION_INDEX", TYPES, rules(schema)),
    ]


def switched(engine: Engine, wanted: list[GroupMember], request: SwitchRequest) -> Any:
    group = engine.start_group("ontology", wanted)
    for one in group.members:
        engine.wait_for(one.shadow_index_id, "BUILT", timeout_s=60)
    result = engine.switch_group(group.id, request)
    if not result.success:
        for one in group.members:
            engine.cancel_build(one.shadow_index_id)
    return result


def test_a_group_is_judged_switched_read_and_rolled_back_together(engine: Engine) -> None:
    request = asking("DIGEST", "LINKS", "VIOLATIONS", "SAME_RECORDS")
    first = switched(engine, members(), request)
    assert first.success, first.message
    with engine.read_group("main", [one.index_type for one in members()]) as view:
        engine.write("main", [Delete("object_type", "o5"), Put("link_type", "l0", link(0, 9))])
        assert view["GRAPH_INDEX"].graph.dangling() == []
        assert [edge.target[1] for edge in view["GRAPH_INDEX"].graph.neighbours(("object_type", "o0"))] == ["o1"]
        assert view["VALIDATION_INDEX"].violations.is_valid("object_type", "o5")
        assert [ref.record[1] for ref in view["SCHEMA_INDEX"].schema.users_of("o5")] == ["l4", "l5"]
        assert view["SEARCH_INDEX"].get("object_type", "o5") is not None
    refused = switched(engine, members(schema=SIZED), request)
    assert not refused.success
    for words in ("GRAPH_INDEX of branch 'main': validation failed: LINKS: link_type/l4", "VIOLATIONS: "):
        assert words in refused.message
    engine.write("main", [Put("object_type", "o5", {"title": "back"})])
    again = switched(engine, members(), request)
    assert again.success, again.message
    assert engine.rollback_group(again.group_id).success
    assert list(engine.check()) == []


def test_members_that_do_not_cover_the_same_types_are_refused(engine: Engine) -> None:
    result = switched(engine, members(search=["object_type"]), asking("SAME_RECORDS"))
    assert not result.success
    assert "were not built with the same resource types: link_type" in result.message
    lone = switched(engine, members()[2:3], asking("SAME_RECORDS", "VIOLATIONS"))
    assert not lone.success
    assert "fewer than two members" in lone.message
    assert "no member of the group answers queries of the kind violations" in lone.message
