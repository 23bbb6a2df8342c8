"""Twenty and more rebuilds, switches and rollbacks under concurrent writers and readers on two branches."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


def scenario_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("rebuild_scenario", Path(__file__).with_name("rebuild_scenario.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_nothing_is_lost_revived_duplicated_refused_or_out_of_order_in_twenty_rebuilds(tmp_path: Path) -> None:
    scenario = scenario_module().Scenario(tmp_path / "data", rebuilds=22)
    assert scenario.run() == []
    print(f"{scenario.switches} switches under {scenario.writes} writes")
    assert scenario.switches >= 22 + 2 + 4
