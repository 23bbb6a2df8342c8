"""External builds: refusals. No claim of a builder alone makes a shadow ready."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shadowswitch import (
    CompletionRefused,
    Engine,
    InvalidConfig,
    InvalidTransition,
    SwitchRequest,
)
from tests.support.engine_helpers import KIND, fill, put
from tests.support.external_helpers import begin, complete, delivered, fts5, write_files, write_manifest

OpenEngine = Callable[..., Engine]


def _truncate(path: Path) -> None:
    (path / "shard-000/terms.bin").write_bytes(b"term")


def _alter(path: Path) -> None:
    (path / "shard-000/terms.bin").write_bytes(b"Terms")


def _add(path: Path) -> None:
    (path / "shard-000/more.bin").write_bytes(b"")


def _link(path: Path) -> None:
    (path / "shard-000/link").symlink_to("/etc/passwd")


def _replace_by_link(path: Path) -> None:
    (path / "shard-000/terms.bin").unlink()
    (path / "shard-000/terms.bin").symlink_to(path / "shard-000/deep/er/docs.bin")


def _link_folder(path: Path) -> None:
    (path / "shard-000/folder").symlink_to("/etc")


def _hard_link(path: Path) -> None:
    os.link(path / "shard-000/terms.bin", path.parents[4] / "outside")


def _fifo(path: Path) -> None:
    os.mkfifo(path / "shard-000/pipe")


def _no_manifest(path: Path) -> None:
    (path / "build-manifest.json").unlink()


def _manifest_link(path: Path) -> None:
    (path / "build-manifest.json").rename(path.parents[4] / "elsewhere")
    (path / "build-manifest.json").symlink_to(path.parents[4] / "elsewhere")


def _no_json(path: Path) -> None:
    (path / "build-manifest.json").write_text("{")


def _edit(path: Path, /, **changes: Any) -> None:
    manifest = json.loads((path / "build-manifest.json").read_text())
    (path / "build-manifest.json").write_text(json.dumps({**manifest, **changes}))


def _outside(path: Path) -> None:
    file = {"size_bytes": 1, "sha256": "0" * 64}
    _edit(path, files={**json.loads((path / "build-manifest.json").read_text())["files"], "../../../LOCK": file})


REFUSALS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a file is cut off": (_truncate, "has 4 bytes, not 5"),
    "a file is altered": (_alter, "another SHA-256"),
    "a file is not listed": (_add, "is not listed"),
    "a symbolic link to a file outside": (_link, "cannot be opened (no link is followed)"),
    "a listed file is a symbolic link": (_replace_by_link, "no link is followed"),
    "a symbolic link to a folder": (_link_folder, "symbolic link"),
    "a hard link": (_hard_link, "hard link"),
    "a pipe": (_fifo, "not a regular file"),
    "no manifest": (_no_manifest, "cannot be opened"),
    "the manifest is a link": (_manifest_link, "cannot be opened"),
    "the manifest is no JSON": (_no_json, "build-manifest.json:"),
    "an unknown field": (lambda path: _edit(path, path="/etc"), "unknown field `path`"),
    "an unknown format": (lambda path: _edit(path, format=2), "$.format"),
    "another shadow's": (lambda path: _edit(path, shadow_index_id="other"), "belongs to shadow 'other'"),
    "no files": (lambda path: _edit(path, files={}), "lists no file"),
    "a path that leads outside": (
        _outside,
        "'../../../LOCK' is in build-manifest.json, but not in the directory",
    ),
    "an LSN before the start": (lambda path: _edit(path, applied_lsn=3), "not from start_lsn 10 to the head, 10"),
    "an LSN beyond the head": (lambda path: _edit(path, applied_lsn=99), "not from start_lsn 10 to the head, 10"),
    "a negative count": (lambda path: _edit(path, record_count=-1), "record_count"),
    "a wrong count": (lambda path: _edit(path, record_count=9), "holds 9 records, its source 10"),
    "the engine's manifest is gone": (lambda path: (path / "manifest.json").unlink(), "no readable manifest"),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_an_incorrect_delivery_is_refused_and_its_shadow_stays_building(engine: Engine, what: str) -> None:
    spoil, reason = REFUSALS[what]
    fill(engine, 10)
    shadow = begin(engine)
    delivered(engine, shadow)
    spoil(Path(shadow.shadow_index_path))
    with pytest.raises(Exception) as refused:
        complete(engine, shadow)
    assert reason in str(refused.value)
    present = engine.shadow(shadow.shadow_index_id)
    assert (present.state, present.switch_ready) == ("BUILDING", False)
    with pytest.raises(InvalidTransition):
        engine.switch(shadow.shadow_index_id)
    if isinstance(refused.value, CompletionRefused):
        assert reason in (present.error or "")
        assert engine.events()[-1].data["problems"] == refused.value.problems
        assert engine.events()[-1].type.endswith("build.refused")


@pytest.mark.parametrize(
    ("claim", "reason"),
    [
        ({"index_size_bytes": 404}, "index_size_bytes is claimed to be 404, the files say 405"),
        ({"record_count": 9}, "record_count is claimed to be 9, the files say 10"),
        ({"applied_lsn": 9}, "applied_lsn is claimed to be 9, the files say 10"),
    ],
)
def test_a_claim_that_differs_from_the_files_is_refused(engine: Engine, claim: dict[str, int], reason: str) -> None:
    fill(engine, 10)
    shadow = begin(engine)
    delivered(engine, shadow)
    with pytest.raises(CompletionRefused) as refused:
        complete(engine, shadow, **claim)
    assert refused.value.problems == [reason]
    assert complete(engine, shadow).state == "BUILT"


def test_an_index_of_a_known_backend_that_lacks_a_record_is_refused_by_its_digest(engine: Engine) -> None:
    fill(engine, 100)
    shadow = begin(engine, backend="fts5")
    fts5(engine, shadow, skip="7")
    write_manifest(shadow, 100, 100)
    with pytest.raises(CompletionRefused, match="DIGEST"):
        complete(engine, shadow)
    assert engine.shadow(shadow.shadow_index_id).state == "BUILDING"
    engine.cancel_build(shadow.shadow_index_id)


def test_shards_and_manifest_that_disagree_are_refused(engine: Engine) -> None:
    fill(engine, 20)
    shadow = begin(engine, backend="fts5")
    engine.write("main", [put("after")])
    fts5(engine, shadow)
    write_manifest(shadow, 21, 20)
    with pytest.raises(CompletionRefused, match="at LSN 20, its manifest says 21"):
        complete(engine, shadow)


def test_an_empty_index_of_a_known_backend_is_refused(engine: Engine) -> None:
    fill(engine, 20)
    shadow = begin(engine, backend="fts5")
    write_manifest(shadow, 20, 20)
    with pytest.raises(CompletionRefused, match="finish_load"):
        complete(engine, shadow)


def test_files_that_are_altered_after_the_completion_refuse_the_switch(engine: Engine) -> None:
    fill(engine, 10)
    shadow = begin(engine)
    delivered(engine, shadow)
    complete(engine, shadow)
    _alter(Path(shadow.shadow_index_path))
    refused = engine.switch(shadow.shadow_index_id)
    assert not refused.success
    assert "another SHA-256" in refused.message
    assert [str(finding) for finding in engine.check() if finding.invariant == "IX-4"]
    engine.cancel_build(shadow.shadow_index_id)


def test_a_count_that_differs_from_the_source_refuses_the_switch_even_by_force(engine: Engine) -> None:
    fill(engine, 10)
    shadow = begin(engine)
    engine.write("main", [put("more")])
    write_files(Path(shadow.shadow_index_path))
    write_manifest(shadow, 10, 9)  # a false count, which the engine cannot check while the branch is ahead
    complete(engine, shadow)
    write_manifest(shadow, 11, 9)
    with pytest.raises(CompletionRefused, match="holds 9 records"):
        complete(engine, shadow)
    forced = engine.switch(shadow.shadow_index_id, SwitchRequest(force_switch=True, validation_checks=()))
    assert not forced.success


def test_the_engine_does_not_build_in_a_format_that_it_does_not_know(engine: Engine) -> None:
    with pytest.raises(InvalidConfig, match="only an external build"):
        engine.start_build("main", KIND, ["object_type"], {"backend": "external"})


@pytest.mark.parametrize("percent", [-1, 101, float("nan"), float("inf"), True, "50"])
def test_an_invalid_progress_is_refused(engine: Engine, percent: Any) -> None:
    shadow = begin(engine)
    with pytest.raises(InvalidConfig, match="percent"):
        engine.report_progress(shadow.shadow_index_id, percent)


def test_a_build_of_the_engine_itself_is_not_reported_on(filled: Engine) -> None:
    shadow = filled.start_build("main", KIND, ["object_type"])
    calls: list[Callable[[], object]] = [
        lambda: filled.report_progress(shadow.shadow_index_id, 50),
        lambda: complete(filled, shadow),
    ]
    for call in calls:
        with pytest.raises(InvalidTransition, match="built by the engine itself"):
            call()
