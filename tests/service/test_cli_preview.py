"""Preview by commands: a search names a shadow by its id or the beginning of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cli_helpers import Cli, imported, switched


def test_a_search_names_a_shadow_by_the_beginning_of_its_id(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli, data = Cli(capsys), switched(imported(tmp_path, capsys), capsys)
    shadow = cli.json("build", "main", "--tokenizer", "porter", "--data", data)["shadow"]
    id = shadow["shadow_index_id"]
    assert cli.json("search", "main", "sing", "--data", data)["hits"] == []
    for given in (id, id[:6]):
        found = cli.json("search", "main", "sing", "--shadow", given, "--data", data)
        assert len(found["hits"]) == 10
        assert found["generation"] == shadow["generation"]
    assert "10 hits" in cli("search", "main", "sing", "--shadow", id[:6], "--data", data)
    assert (
        cli.failure("search", "main", "sing", "--shadow", "?" * 8, "--data", data, status=1)["kind"] == "UnknownShadow"
    )
    wrong = cli.error("search", "main", "sing", "--shadow", id, "--index-type", "OTHER_INDEX", "--data", data, status=2)
    assert "is of SEARCH_INDEX of branch 'main'" in wrong
    cli("cancel", id, "--data", data)
    refused = cli.failure("search", "main", "sing", "--shadow", id, "--data", data, status=1)
    assert refused["kind"] in ("InvalidTransition", "UnknownShadow")
