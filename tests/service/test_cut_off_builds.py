"""A `build` that is killed: `status` says that no process builds, and the next `build` joins what recovery resumed."""

from __future__ import annotations

import json
import signal
import subprocess
from contextlib import nullcontext
from pathlib import Path

import pytest

from shadowswitch import DuplicateBuild, Engine
from shadowswitch.service import caller
from shadowswitch.service.cli.builds import may_join, start_or_join, under_way
from shadowswitch.service.remote_connection import error_of
from tests.support import inside
from tests.support.cli_helpers import Cli, imported, spawn, texts
from tests.support.engine_helpers import KIND, TYPES, fill, wait_until
from tests.support.http_helpers import serving

PORTER = ("--tokenizer", "porter")


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


@pytest.fixture
def data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    return imported(tmp_path, capsys)


def killed(*options: object, data: Path, point: str = "build.begun=kill") -> None:
    """A `build` that is killed with -9 by the failpoint."""
    process = spawn("build", "main", "--data", data, *options, points=point)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("point", ["build.claimed", "build.prepared", "build.begun", "build.validated"])
def test_the_next_build_joins_what_recovery_resumed(cli: Cli, data: Path, point: str) -> None:
    killed(data=data, point=f"{point}=kill")
    (begun,) = cli.json("status", "--data", data)["shadows"]
    joined = cli.json("build", "main", "--data", data, "--switch")
    assert joined["shadow"]["shadow_index_id"] == begun["shadow_index_id"]
    assert (joined["joined"], joined["switch"]["success"], joined["shadow"]["record_count"]) == (True, True, 40)
    assert cli.json("build", "main", "--data", data)["joined"] is False
    assert cli.json("check", "--data", data) == []


def test_a_build_that_is_terminated_says_that_it_is_joined_by_the_same_command(cli: Cli, data: Path) -> None:
    process = spawn("build", "main", "--data", data, points="copy.slice=sleep:0.5")
    wait_until(lambda: any(one["state"] == "BUILDING" for one in cli.json("status", "--data", data)["shadows"]))
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert err.rstrip().endswith("terminated; the same command joins its build")
    assert cli.json("build", "main", "--data", data)["joined"] is True


def test_a_person_reads_that_the_build_was_cut_off(cli: Cli, data: Path) -> None:
    killed(data=data)
    text = cli("build", "main", "--data", data)
    assert "is BUILT with 40 records" in text
    assert "another command began it, and this one joined it" in text


def test_status_says_when_no_process_builds(cli: Cli, data: Path) -> None:
    killed(data=data)
    found = cli.json("status", "--data", data)
    (shadow,) = found["shadows"]
    assert (found["host"], shadow["state"]) == (None, "BUILDING")
    assert "no process builds it" in shadow["stands_still"]
    assert cli.json("status", shadow["shadow_index_id"], "--data", data) == shadow
    assert "no process builds it" in " ".join(cli("status", "--data", data).replace("│", " ").split())
    (build,) = cli.json("locks", "main", "--data", data)["builds"]
    assert "no process builds it" in build["stands_still"]
    cli("build", "main", "--data", data)
    (shadow,) = cli.json("status", "--data", data)["shadows"]
    assert (shadow["state"], shadow["stands_still"]) == ("BUILT", None)


def test_status_says_nothing_of_the_kind_while_a_process_builds(cli: Cli, data: Path) -> None:
    process = spawn("build", "main", "--data", data, points="copy.slice=sleep:60")
    try:
        wait_until(lambda: states(cli, data) == ["BUILDING"], what="the build")
        (shadow,) = cli.json("status", "--data", data)["shadows"]
        assert shadow["stands_still"] is None
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


def states(cli: Cli, data: Path) -> list[str]:
    return [shadow["state"] for shadow in cli.json("status", "--data", data)["shadows"]]


def test_a_build_with_other_options_joins_nothing(cli: Cli, data: Path) -> None:
    killed("--tokenizer", "ascii", data=data, point="build.begun=kill")
    error = cli.error("build", "main", "--data", data, "--tokenizer", "porter", status=1)
    assert "begun with other options" in error
    assert "'tokenizer': 'ascii'" in error
    assert "shadowswitch cancel" in error
    assert cli.json("build", "main", "--data", data, "--tokenizer", "ascii")["joined"] is True


def test_a_shadow_that_waits_is_joined_with_switch_only(cli: Cli, data: Path) -> None:
    waits = cli.json("build", "main", "--data", data)["shadow"]["shadow_index_id"]
    said = cli.error("build", "main", "--data", data, status=1)
    assert f"has shadow {waits}, which is BUILT and waits for its switch; switch to it, or discard it with" in said
    assert "begun with other options" in cli.error("build", "main", "--data", data, "--switch", *PORTER, status=1)
    joined = cli.json("build", "main", "--data", data, "--switch")
    assert (joined["shadow"]["shadow_index_id"], joined["joined"], joined["switch"]["success"]) == (waits, True, True)


@pytest.mark.parametrize(("point", "opened"), [("build.begun", True), ("build.built", False), ("switch.near", False)])
@pytest.mark.parametrize("options", [(), PORTER], ids=["equal options", "other options"])
def test_a_killed_build_with_switch_is_not_in_the_way_of_the_next(
    cli: Cli, data: Path, tmp_path: Path, point: str, opened: bool, options: tuple[str, ...]
) -> None:
    killed("--switch", data=data, point=f"{point}=kill")
    if opened:
        cli("import", "main", texts(tmp_path / "texts", 41), "--data", data)
    (left,) = cli.json("status", "--data", data)["shadows"]
    if left["state"] == "BUILT":
        said = cli.error("build", "main", "--data", data, status=1)
        assert "BUILT and waits for its switch; if a kill cut its rebuild off, the same build command with --sw" in said
    done = cli.json("build", "main", "--data", data, "--switch", *options)
    assert (done["joined"], done["switch"]["success"]) == (not options, True)
    assert (done["shadow"]["shadow_index_id"] == left["shadow_index_id"]) is (not options)
    assert states(cli, data) == (["CANCELLED", "ACTIVE"] if options else ["ACTIVE"])
    assert cli.json("check", "--data", data) == []


def test_what_a_plain_build_left_is_not_discarded_by_a_build_with_switch(cli: Cli, data: Path) -> None:
    killed(data=data)
    said = cli.error("build", "main", "--data", data, "--switch", *PORTER, status=1)
    assert "begun with other options" in said
    assert "CANCELLED" not in states(cli, data)


def test_a_plain_build_joins_no_rest_of_a_build_with_switch(cli: Cli, data: Path) -> None:
    killed("--switch", data=data)
    assert "the same build command with --switch ends it" in cli.error("build", "main", "--data", data, status=1)
    assert cli.json("build", "main", "--data", data, "--switch")["joined"] is True


def test_a_rest_with_a_scheduled_switch_is_not_discarded(cli: Cli, data: Path) -> None:
    killed("--switch", data=data, point="build.built=kill")
    (left,) = cli.json("status", "--data", data)["shadows"]
    cli("schedule", left["shadow_index_id"], "--data", data)
    cli.error("build", "main", "--data", data, "--switch", *PORTER, status=1)
    assert states(cli, data) == ["BUILT"]


@pytest.mark.parametrize("options", [(), PORTER], ids=["equal options", "other options"])
def test_beside_a_server_a_killed_build_with_switch_is_not_in_the_way(
    cli: Cli, data: Path, options: tuple[str, ...]
) -> None:
    with serving(data, SHADOWSWITCH_POINTS="build.shard_opened=sleep:3"):
        process = spawn("build", "main", "--data", data, "--switch")
        wait_until(lambda: states(cli, data) == ["BUILDING"], what="the build")
        assert "the same build command" in cli.error("build", "main", "--data", data, *options, status=1)
        if options:
            said = cli.error("build", "main", "--data", data, "--switch", *options, status=1)
            assert "begun with other options" in said, "its command has not ended"
        process.kill()
        process.communicate(timeout=60)
        done = cli.json("build", "main", "--data", data, "--switch", *options)
        assert (done["joined"], done["switch"]["success"]) == (not options, True)
        assert states(cli, data) == (["CANCELLED", "ACTIVE"] if options else ["ACTIVE"])


def test_the_same_build_twice_at_once_switches_once(cli: Cli, data: Path) -> None:
    with serving(data, SHADOWSWITCH_POINTS="build.shard_opened=sleep:3"):
        both = [spawn("build", "main", "--data", data, "--switch", "--json")]
        wait_until(lambda: states(cli, data) == ["BUILDING"], what="the build")
        both.append(spawn("build", "main", "--data", data, "--switch", "--json"))
        ended = [process.communicate(timeout=120) for process in both]
        assert [process.returncode for process in both] == [0, 0], ended
        assert {json.loads(out)["shadow"]["shadow_index_id"] for out, _ in ended} == {
            cli.json("status", "--data", data)["indexes"][0]["shadow_index_id"]
        }


def test_an_interrupt_of_a_command_that_joined_leaves_the_build_to_the_other(cli: Cli, data: Path) -> None:
    with serving(data, SHADOWSWITCH_POINTS="build.shard_opened=sleep:5"):
        first = spawn("build", "main", "--data", data, "--switch", "--json")
        wait_until(lambda: states(cli, data) == ["BUILDING"], what="the build")
        second = spawn("build", "main", "--data", data, "--switch")
        assert second.stderr is not None
        assert "build SEARCH_INDEX of main" in second.stderr.readline()
        second.send_signal(signal.SIGINT)
        _, said = second.communicate(timeout=60)
        assert (second.returncode, said.rstrip().endswith("goes on for the command that began it")) == (130, True), said
        out, _ = first.communicate(timeout=120)
        assert json.loads(out)["switch"]["success"] is True


@pytest.mark.parametrize("served", [True, False], ids=["beside a server", "without a server"])
def test_a_refused_switch_cancels_the_shadow_of_its_build_and_says_so(cli: Cli, data: Path, served: bool) -> None:
    with serving(data) if served else nullcontext():
        out = cli("build", "main", "--data", data, "--resource-type", "fil", "--switch", status=1)
        assert "did you mean 'file'?" in out
        assert "was cancelled" in out
        (shadow,) = cli.json("status", "--data", data)["shadows"]
        assert (shadow["state"], "did you mean" in shadow["error"]) == ("CANCELLED", True)
        assert cli.json("build", "main", "--data", data, "--resource-type", "file", "--switch")["switch"]["success"]


def test_a_refused_switch_keeps_what_a_plain_build_left(cli: Cli, data: Path) -> None:
    cli("build", "main", "--data", data, "--resource-type", "fil")
    said = cli("build", "main", "--data", data, "--resource-type", "fil", "--switch", status=1)
    assert "stays BUILT: switch to it, or discard it with shadowswitch cancel" in said
    assert states(cli, data) == ["BUILT"]


@pytest.mark.parametrize("served", [True, False], ids=["beside a server", "without a server"])
@pytest.mark.parametrize("point", ["build.shard_opened", "switch.near"])
def test_an_interrupt_leaves_nothing_in_the_way(cli: Cli, data: Path, served: bool, point: str) -> None:
    points = f"{point}=sleep:3"
    with serving(data, SHADOWSWITCH_POINTS=points) if served else nullcontext():
        process = spawn("build", "main", "--data", data, "--switch", points="" if served else points)
        at = ["SWITCHING"] if point == "switch.near" else ["BUILDING"]
        wait_until(lambda: states(cli, data) == at, what=f"{at}")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 130, said
        (state,) = states(cli, data)
        assert state in ("CANCELLED", "ACTIVE")
        ends = ("was cancelled", "is CANCELLED") if state == "CANCELLED" else ("is ACTIVE",)
        assert said.strip().endswith(ends), said
    if state == "CANCELLED":
        cli("build", "main", "--data", data, "--switch")


def test_beside_a_server_only_builds_of_commands_are_joined(
    engine: Engine, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(engine, 50)
    monkeypatch.setenv("SHADOWSWITCH_POINTS", "build.shard_opened=sleep:600")
    for service, joins in (("cli", True), ("settings", False)):
        id = engine.start_build("main", KIND, TYPES, service_name=service).shadow_index_id
        before = under_way(inside.catalog(engine), "main", KIND)
        assert before is not None
        assert (before.id, may_join(before, True, False), may_join(before, False, False)) == (id, joins, True)
        if joins:
            shadow, joined = start_or_join(engine, before, "main", KIND, TYPES, {})
            assert (shadow.shadow_index_id, joined) == (id, True)
        with pytest.raises(DuplicateBuild):
            start_or_join(engine, None, "main", KIND, TYPES, {})
        engine.cancel_build(id)


def test_the_error_of_a_server_names_the_build_that_is_under_way() -> None:
    error = error_of(b'{"type": "urn:shadowswitch:problem:duplicate-build", "detail": "no", "shadow_index_id": "5f0c"}')
    assert isinstance(error, DuplicateBuild)
    assert error.shadow_index_id == "5f0c"


def test_a_command_has_ended_when_its_process_has() -> None:
    own = caller.service_name()
    assert caller.is_ours(own)
    assert not caller.has_ended(own)
    process = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    pid, start, namespace = own.partition("#")[2].split(".")
    assert caller.has_ended(f"cli#{process.pid}.{int(start) - 1}.{namespace}"), "the number was given again"
    assert not caller.has_ended(f"cli#{process.pid}.{start}.{int(namespace) + 1}"), "another namespace is not seen"
    started = Path(f"/proc/{process.pid}/stat").read_text().split()[21]
    assert not caller.has_ended(f"cli#{process.pid}.{started}.{namespace}")
    process.kill()
    wait_until(lambda: caller.has_ended(f"cli#{process.pid}.{started}.{namespace}"), what="its end")
    process.communicate(timeout=60)
    assert caller.has_ended(f"cli#{process.pid}.{started}.{namespace}")
    assert [caller.has_ended(name) for name in ("cli", "settings", "cli#x", f"x#{pid}.0.{namespace}")] == [False] * 4
