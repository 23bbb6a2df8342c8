"""The time limit of a search in the library and on the command line, and what a search that was stopped leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from shadowswitch import Config, Engine, Put, SwitchRequest
from shadowswitch.model.errors import InvalidConfig, Timeout
from tests.support.cli_helpers import Cli
from tests.support.engine_helpers import KIND, TYPES
from tests.support.slow_backend import SPEC

SLOW = {"backend": SPEC, "parallel_workers": 1}


def test_a_search_that_was_stopped_is_no_damage_and_no_reason_against_a_later_switch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli, data = Cli(capsys), tmp_path / "data"
    with Engine.open(data, Config(search_timeout_s=0.1)) as engine:
        engine.create_branch("main")
        engine.write("main", [Put("object_type", f"user-{number}", {}) for number in range(5)])
        assert engine.rebuild("main", KIND, TYPES, SLOW).success
        with engine.reader("main", KIND) as reader:
            for given, named in ((None, r"0\.1 s"), (0.05, r"0\.05 s"), (0, "0 s")):
                with pytest.raises(Timeout, match=f"longer than {named}.* timeout_s"):
                    reader.search("slow", timeout_s=given)
            assert len(reader.search("user", timeout_s=60)) == 5
            for wrong in ("1", True, float("nan")):
                with pytest.raises(InvalidConfig, match="timeout_s"):
                    reader.search("user", timeout_s=wrong)  # type: ignore[arg-type]
        compared = ("RECORD_COUNT_VALIDATION", "QUERY_COMPARISON")
        shadow = engine.start_build("main", KIND, TYPES, SLOW)
        engine.wait_for(shadow.shadow_index_id, "BUILT", timeout_s=60)
        assert engine.switch(shadow.shadow_index_id, SwitchRequest(validation_checks=compared)).success
        shadow = engine.start_build("main", KIND, TYPES, {**SLOW, "fields": []})
        engine.wait_for(shadow.shadow_index_id, "BUILT", timeout_s=60)
        asked = SwitchRequest(validation_checks=compared, queries=("slow", "user"), switch_timeout_seconds=60)
        assert engine.switch(shadow.shadow_index_id, asked).success
        assert engine.check() == []
    assert "longer than 0.2 s" in cli.error("search", "main", "slow", "--data", data, "--timeout", "0.2", status=1)
    assert len(cli.json("search", "main", "user", "--data", data, "--timeout", "30")["hits"]) == 5


@pytest.mark.parametrize("wrong", [0, -1, float("inf"), "10"])
def test_the_time_limit_in_the_settings_is_a_time(wrong: float) -> None:
    with pytest.raises(InvalidConfig, match="search_timeout_s"):
        Config(search_timeout_s=wrong)
