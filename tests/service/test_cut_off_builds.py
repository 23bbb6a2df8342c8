"""A `build` that is killed: `status` says that no process builds, and the next `build` joins what recovery resumed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from shadowswitch import DuplicateBuild, Engine
from shadowswitch.service import host_file
from shadowswitch.service.cli.builds import cut_off_build, start_or_join
from shadowswitch.service.remote import error_of
from tests.support import inside
from tests.support.cli_helpers import Cli, imported, spawn
from tests.support.engine_helpers import KIND, TYPES, fill, wait_until


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


def test_a_person_reads_that_the_build_was_cut_off(cli: Cli, data: Path) -> None:
    killed(data=data)
    text = cli("build", "main", "--data", data)
    assert "is BUILT with 40 records" in text
    assert "begun by a command that was cut off" in text


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


def test_a_shadow_that_waits_is_no_build_to_join(cli: Cli, data: Path) -> None:
    cli("build", "main", "--data", data)
    assert "is being built by shadow" in cli.error("build", "main", "--data", data, status=1)


def test_beside_a_server_only_builds_of_commands_are_joined(
    engine: Engine, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(engine, 50)
    monkeypatch.setenv("SHADOWSWITCH_POINTS", "build.shard_opened=sleep:600")
    for service, joins in (("cli", True), ("settings", False)):
        id = engine.start_build("main", KIND, TYPES, service_name=service).shadow_index_id
        host_file.write(data_dir, host_file.HostFile("http://127.0.0.1:9", "", os.getpid()))
        assert cut_off_build(inside.catalog(engine), data_dir, "main", KIND) == (id if joins else "")
        if joins:
            shadow, joined = start_or_join(engine, id, "main", KIND, TYPES, {})
            assert (shadow.shadow_index_id, joined) == (id, True)
        with pytest.raises(DuplicateBuild):
            start_or_join(engine, "", "main", KIND, TYPES, {})
        engine.cancel_build(id)


def test_the_error_of_a_server_names_the_build_that_is_under_way() -> None:
    error = error_of(b'{"type": "urn:shadowswitch:problem:duplicate-build", "detail": "no", "shadow_index_id": "5f0c"}')
    assert isinstance(error, DuplicateBuild)
    assert error.shadow_index_id == "5f0c"
