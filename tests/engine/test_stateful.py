"""Stateful property test: any order of operations and kills, against a plain dictionary as the model.

The engine runs in a process of its own, so that a crash is a real SIGKILL. The model has the acknowledged writes;
a write that was under way at a kill may be there or not, as a whole.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

HOST = Path(__file__).parents[1] / "support" / "stateful_host.py"
IDS = st.sampled_from([f"r{n}" for n in range(12)])
TEXTS = st.one_of(st.none(), st.sampled_from(["alpha", "beta gamma", "delta", ""]))
BATCHES = st.lists(st.tuples(IDS, TEXTS), min_size=1, max_size=5)


class Life(RuleBasedStateMachine):
    """The life of one data directory."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="shadowswitch-stateful-"))
        self.model: dict[str, str] = {}
        self.live = False
        self.host: subprocess.Popen[str] | None = None

    def teardown(self) -> None:
        if self.host is not None:
            self.observe()
        self.kill()
        shutil.rmtree(self.folder)

    def start(self) -> None:
        arguments = [sys.executable, str(HOST), str(self.folder / "data")]
        self.host = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.read() == "ready"

    def kill(self) -> None:
        if self.host is not None:
            host, self.host = self.host, None
            host.kill()
            host.communicate()

    def send(self, name: str, arguments: Any = ()) -> None:
        assert self.host is not None
        assert self.host.stdin is not None
        self.host.stdin.write(json.dumps([name, arguments]) + "\n")
        self.host.stdin.flush()

    def read(self) -> Any:
        assert self.host is not None
        assert self.host.stdout is not None
        line = self.host.stdout.readline()
        assert line, f"the host ended with {self.host.wait()}"
        return json.loads(line)

    def ask(self, name: str, arguments: Any = ()) -> Any:
        self.send(name, arguments)
        return self.read()

    def apply(self, batch: list[tuple[str, str | None]]) -> dict[str, str]:
        changed = dict(self.model)
        for id, text in batch:
            if text is None:
                changed.pop(id, None)
            else:
                changed[id] = text
        return changed

    def observe(self) -> dict[str, str]:
        seen = self.ask("observe")["done"]
        assert seen["check"] == []
        if seen["held"] is not None:
            assert {id: lsn for id, (_, lsn) in seen["held"].items()} == {
                id: lsn for id, (_, lsn) in seen["records"].items()
            }
        assert (seen["held"] is not None) == self.live
        return {id: text for id, (text, _) in seen["records"].items()}

    @initialize()
    def begin(self) -> None:
        self.start()

    @rule(batch=BATCHES)
    def write(self, batch: list[tuple[str, str | None]]) -> None:
        assert "done" in self.ask("write", batch)
        self.model = self.apply(batch)

    @rule(config=st.sampled_from([0, 1, 2]))
    def build(self, config: int) -> None:
        answer = self.ask("build", [config])
        assert "done" in answer or "DuplicateBuild" in answer["refused"]

    @rule()
    def wait(self) -> None:
        assert set(self.ask("wait")["done"]) <= {"BUILT"}

    @rule()
    def cancel(self) -> None:
        answer = self.ask("cancel")
        assert "done" in answer or "InvalidTransition" in answer["refused"]

    @rule()
    def switch(self) -> None:
        answer = self.ask("switch")["done"]
        assert answer in (True, None)
        self.live = self.live or answer is True

    @rule()
    def rollback(self) -> None:
        answer = self.ask("rollback")
        assert answer.get("done") is True or "UnknownIndex" in answer["refused"]

    @rule()
    def look(self) -> None:
        assert self.observe() == self.model

    @rule()
    def clean_up(self) -> None:
        assert "done" in self.ask("clean_up")

    @rule()
    def crash(self) -> None:
        self.kill()
        self.start()
        assert self.observe() == self.model

    @rule(batch=BATCHES)
    def crash_while_writing(self, batch: list[tuple[str, str | None]]) -> None:
        self.send("write", batch)
        self.kill()
        self.start()
        after = self.observe()
        assert after in (self.model, self.apply(batch))
        self.model = after

    @precondition(lambda self: not self.live)
    @rule(config=st.sampled_from([0, 1]))
    def first_switch(self, config: int) -> None:
        self.ask("build", [config])
        self.ask("wait")
        assert self.ask("switch")["done"] is True
        self.live = True


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_any_order_of_operations_and_crashes_agrees_with_a_dictionary() -> None:
    from hypothesis.stateful import run_state_machine_as_test

    limits = settings(
        max_examples=6, stateful_step_count=20, deadline=None, print_blob=True, derandomize=True,
        suppress_health_check=list(HealthCheck), database=None,
    )  # fmt: skip
    run_state_machine_as_test(Life, settings=limits)
