"""Weights are numbers of the query: a live index answers with others at once, without a build."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from shadowswitch import Engine, InvalidConfig, Put, UnknownIndex

KIND, TYPES = "SEARCH_INDEX", ["object_type"]
COLUMNS = {"columns": {"title": 1.0, "body": 1.0}}
HEAVY = {"columns": {"title": 50.0, "body": 1.0}}


@pytest.fixture
def weighted(engine: Engine) -> Engine:
    """`in_body` has the word three times in its body, `in_title` once in its title."""
    engine.write("main", [
        Put("object_type", "in_body", {"title": "other words here", "body": "amber amber amber"}),
        Put("object_type", "in_title", {"title": "amber and more words", "body": "nothing of it at all"}),
        *(Put("object_type", f"k{n}", {"title": f"t{n}", "body": f"b{n}"}) for n in range(20)),
    ])  # fmt: skip
    assert engine.rebuild("main", KIND, TYPES, COLUMNS).success
    return engine


def best(engine: Engine) -> str:
    with engine.reader("main", KIND) as reader:
        return reader.search("amber", limit=1)[0].id


def test_other_weights_change_the_order_of_the_next_reader_and_build_nothing(weighted: Engine) -> None:
    assert best(weighted) == "in_body"
    with weighted.reader("main", KIND) as before:
        info = weighted.retune("main", KIND, HEAVY, by="alice", reason="titles first")
        assert before.search("amber", limit=1)[0].id == "in_body", "an open reader stays as it is"
    assert best(weighted) == "in_title"
    assert info.build_config == HEAVY
    assert info.generation == 1
    assert len(weighted.shadows()) == 1
    (entry,) = [entry for entry in weighted.audit() if entry.type.endswith("index.retuned")]
    assert (entry.data["by"], entry.data["settings"]) == ("alice", HEAVY)


def test_weights_survive_a_start_and_can_be_taken_back(weighted: Engine, open_engine: Any) -> None:
    weighted.retune("main", KIND, HEAVY)
    weighted.close()
    again: Engine = open_engine()
    assert best(again) == "in_title"
    again.write("main", [Put("object_type", "k1", {"title": "changed", "body": "changed"})])
    again.retune("main", KIND, COLUMNS)
    assert best(again) == "in_body"


def test_a_fork_has_the_weights_that_its_parent_has_now(weighted: Engine) -> None:
    weighted.retune("main", KIND, HEAVY)
    weighted.fork_branch("fork", "main")
    with weighted.reader("fork", KIND, timeout_s=30) as reader:
        assert reader.search("amber", limit=1)[0].id == "in_title"


@pytest.mark.parametrize(
    "config",
    [
        {"tokenizer": "porter"},
        {"columns": {"title": 1.0}},
        {"columns": {"title": 1.0, "other": 1.0}},
        {"prefix": [2]},
        {"backend": "kv"},
        {"shards": 7},
    ],
    ids=["tokenizer", "a field less", "another field", "prefix", "backend", "shards"],
)
def test_what_needs_other_files_is_refused(weighted: Engine, config: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfig, match=r"need other files|unknown option"):
        weighted.retune("main", KIND, config)
    assert best(weighted) == "in_body"


def test_an_index_that_is_not_there_and_a_wrong_option_are_refused(weighted: Engine) -> None:
    with pytest.raises(UnknownIndex):
        weighted.retune("main", "GRAPH_INDEX", HEAVY)
    with pytest.raises(InvalidConfig, match="weight"):
        weighted.retune("main", KIND, {"columns": {"title": -1.0, "body": 1.0}})
    with pytest.raises(InvalidConfig, match="dict"):
        weighted.retune("main", KIND, "heavy")  # type: ignore[arg-type]


def test_of_many_calls_the_last_one_counts_in_memory_and_on_disk(weighted: Engine, open_engine: Any) -> None:
    threads = [threading.Thread(target=weighted.retune, args=("main", KIND, config)) for config in (HEAVY, COLUMNS) * 5]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    answered = best(weighted)
    weighted.close()
    assert best(open_engine()) == answered
