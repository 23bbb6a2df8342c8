"""A host is killed during the completion of an external build or its event: a builder sends again and loses nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from shadowswitch import Engine
from tests.support.engine_helpers import KIND, ROOT, outside_environment
from tests.support.external_helpers import begin, delivered, incoming

OpenEngine = Callable[..., Engine]

HOST = """
import sys
from pathlib import Path
from shadowswitch import Engine
from shadowswitch.storage import failpoints as points
from tests.support.engine_helpers import fill
from tests.service.test_outside_crashes import go_on
with Engine.open(sys.argv[1]) as engine:
    engine.create_branch("main")
    fill(engine, 10)
    points.plan_points(sys.argv[2])
    go_on(engine)
"""

KILLS = [
    "build.claimed",
    "build.prepared",
    "build.validated",
    "build.built",
    "switch.sealed",
    "switch.committed",
    "publish.staged",
    "switch.verify",
    "journal.before_commit@7",
]
"""Failpoints. The last one is near the step between the switch and the stored outcome of the event."""


def go_on(engine: Engine) -> None:
    """The steps of a builder after an interruption: it looks at its shadow, and does the remaining steps."""
    shadows = engine.shadows()
    shadow = shadows[0] if shadows else begin(engine)
    if shadow.state == "BUILDING":
        delivered(engine, shadow)
    event = incoming("com.oms.shadow.indexing.completed", shadow_index_id=shadow.shadow_index_id)
    assert engine.receive_event(event).outcome == "switched"


@pytest.mark.slow
@pytest.mark.parametrize("where", KILLS)
def test_a_builder_that_sends_again_after_a_kill_finds_one_switch(
    open_engine: OpenEngine, data_dir: Path, where: str
) -> None:
    name, _, nth = where.partition("@")
    plan = f"{name}=kill@{nth or 1}"
    environment = outside_environment(PYTHONPATH=os.pathsep.join([str(ROOT), *sys.path]))
    done = subprocess.run(
        [sys.executable, "-c", HOST, str(data_dir), plan], env=environment, timeout=120, check=False,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    engine = open_engine()
    go_on(engine)
    go_on(engine)
    assert engine.check() == []
    with engine.reader("main", KIND) as reader:
        assert reader.count() == 10
    assert [event.type.rpartition(".")[2] for event in engine.events() if "switch.committed" in event.type] == [
        "committed"
    ]
