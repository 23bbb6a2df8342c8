"""The command for groups, without a server and beside one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from shadowswitch import Engine, Put
from tests.support.cli_helpers import Cli, Commands
from tests.support.http_helpers import serving

MEMBERS = ("--member", "left:GRAPH_INDEX", "--member", 'feature/right:GRAPH_INDEX:{"parallel_workers": 1}')
PATIENT = ("--switch-timeout", "60")


@pytest.fixture(params=[False, True], ids=["without a server", "beside one"])
def commands(tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Iterator[Commands]:
    """Two branches with records."""
    data = tmp_path / "data"
    with Engine.open(data) as engine:
        for branch in ("left", "feature/right"):
            engine.create_branch(branch)
            engine.write(branch, [Put("object_type", f"k{n}", {"text": f"text {n}"}) for n in range(10)])
    if not request.param:
        yield Commands(data, Cli(capsys))
        return
    with serving(data, "--quiet"):
        yield Commands(data, Cli(capsys))


def test_a_group_goes_through_its_life(commands: Commands) -> None:
    begun = commands.json("group", "start", "pair", *MEMBERS, "--switch", *PATIENT, "--by", "me")
    assert (begun["group"]["state"], begun["switch"]["success"]) == ("COMPLETE", True)
    again = commands("group", "start", "pair", *MEMBERS)
    assert "group-2 'pair' is BUILT" in again
    assert "GRAPH_INDEX of feature/right: shadow" in again
    assert "2 indexes switched together" in commands("group", "switch", "group-2", *PATIENT)
    [held] = commands.json("status")["groups"]
    assert (held["id"], held["state"]) == ("group-2", "ACTIVE")
    assert "groups that hold their indexes" in commands("status")
    refused = commands("rollback", "left", "GRAPH_INDEX", *PATIENT, status=1)
    assert "group 'pair' (group-2)" in refused
    assert "shadowswitch group rollback" in refused
    assert "--break-group" in refused
    assert "2 indexes rolled back together" in commands("group", "rollback", "group-2", *PATIENT)
    assert [one["state"] for one in commands.json("group", "show")] == ["COMPLETE", "ROLLED_BACK"]
    assert commands.json("group", "show", "group-2")["epoch"] == 2
    dropped = commands("drop", "left", status=1)
    assert "shadowswitch group dissolve" in dropped
    assert "group-2 'pair' is DISSOLVED" in commands("group", "dissolve", "group-2", "--reason", "done")
    assert commands.json("rollback", "left", "GRAPH_INDEX", *PATIENT)["success"]


def test_a_member_is_switched_alone_by_breaking_the_group_up(commands: Commands) -> None:
    shadow = commands.json("group", "start", "pair", *MEMBERS)["group"]["members"][0]["shadow_index_id"]
    assert not commands.json("switch", shadow, *PATIENT, status=1)["success"]
    assert commands.json("switch", shadow, *PATIENT, "--break-group")["success"]
    assert commands.json("group", "show", "group-1")["state"] == "DISSOLVED"


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (("start", "pair"), 2, "--member BRANCH:INDEX_TYPE"),
        (("start", "pair", "--member", "left"), 2, "is not BRANCH:INDEX_TYPE"),
        (("start", "pair", "--member", "left:GRAPH_INDEX:{x"), 2, "no JSON object"),
        (("start", "--member", "left:GRAPH_INDEX"), 2, "takes the name"),
        (("switch",), 2, "takes the id"),
        (("switch", "group-7"), 1, "shadowswitch group show lists the groups"),
        (("show", "group-7"), 1, "shadowswitch group show lists the groups"),
    ],
)
def test_what_is_wrong_is_one_line(commands: Commands, arguments: tuple[str, ...], status: int, text: str) -> None:
    assert text in commands("group", *arguments, status=status)
