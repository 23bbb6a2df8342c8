"""The settings file and its errors; the index reconciler."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shadowswitch import Engine, InvalidConfig
from shadowswitch.service.daemon.index_reconciler import IndexReconciler
from shadowswitch.service.daemon.settings import IndexSettings, load_settings
from tests.support import inside
from tests.support.engine_helpers import KIND, TYPES, fill, found, live, put, wait_until

GOOD = """
[[mirror]]
folder = "docs"
ignore = ["*.log"]

[[index]]
resource_types = ["file"]
[index.build_config]
tokenizer = "porter"

[inbox]
enabled = false

[[webhook]]
url = "https://example.org/hook"
types = ["com.shadowswitch.switch.*"]

[engine]
builds_max = 3
commit_latency_budget = 5.5
[incoming]
auto_switch = false
validation_checks = ["DIGEST"]
"""

BAD: dict[str, tuple[str | bytes, str]] = {
    "no TOML": ("[[index]\n", "is not TOML.*line 1"),
    "no text": (b"\xff", "is not TOML"),
    "an unknown table": ("[indexes]\n", "unknown field `indexes`"),
    "an unknown field": ('[[index]]\ntokenizer = "porter"\n', r"\[\[index\]\] number 1.*unknown field `tokenizer`"),
    "a wrong type": ('[[index]]\nbranch = "a"\n[[index]]\nbranch = 1\n', r"\[\[index\]\] number 2, branch: Expected"),
    "an unknown tokenizer": ('[[index]]\n[index.build_config]\ntokenizer = "magic"\n', r"number 1.*magic"),
    "a wrong index type": ('[[index]]\nindex_type = "search"\n', r"number 1.*index type 'search'"),
    "an index twice": ("[[index]]\n[[index]]\n", "SEARCH_INDEX of 'main' is described twice"),
    "no folder": ('[[mirror]]\nfolder = "absent"\n', "number 1.*is not a folder"),
    "two mirrors in one": ('[[mirror]]\nfolder = "docs"\n[[mirror]]\nfolder = "."\n', "delete each other's records"),
    "a bad pattern": ('[[mirror]]\nfolder = "docs"\nignore = ["!"]\n', "number 1.*[Ii]nvalid"),
    "a secret in the URL": ('[[webhook]]\nurl = "https://me:secret@example.org"\n', "would end up in logs"),
    "plain http": ('[[webhook]]\nurl = "http://example.org"\n', "https only"),
    "no URL": ('[[webhook]]\nurl = "example"\n', "not an http or https URL"),
    "a port that no host has": ('[[webhook]]\nurl = "https://example.org:99999/"\n', "number 1.*[Pp]ort"),
    "no port": ('[[webhook]]\nurl = "https://example.org:abc/"\n', "number 1.*[Pp]ort"),
    "port 0": ('[[webhook]]\nurl = "https://example.org:0/"\n', "number 1.*port 0"),
    "a space in a URL": ('[[webhook]]\nurl = "https://example.org/a b"\n', "number 1.*%20"),
    "a host name that is too long": (f'[[webhook]]\nurl = "https://{"사용자" * 40}.kr/"\n', "number 1.*host name"),
    "half an address": ('[[webhook]]\nurl = "https://[::1/"\n', "number 1.*not a URL"),
    "a secret that is not there": (
        '[[webhook]]\nurl = "https://a.b"\nsecret_env = "NOT_SET"\n',
        "'NOT_SET' is not",
    ),
    "a negative number of builds": ("[engine]\nbuilds_max = -1\n", r"\[engine\].*builds_max must be at least 0"),
    "a typo of the engine": ("[engine]\ndisk_reserve = 1\n", r"\[engine\].*did you mean disk_reserve_bytes"),
    "a size as text": ('[engine]\nmap_size_bytes = "1 GiB"\n', r"\[engine\].*map_size_bytes must be a"),
    "rules in the wrong table": ("[engine]\nincoming = 1\n", r"\[engine\].*no setting 'incoming'"),
    "no quiet long enough": ("[[index]]\nquiet_for_s = 10.0\nwithin_s = 5.0\n", "within_s is less than quiet_for_s"),
    "an unknown moment": ('[[index]]\nswitch = "never"\n', r"\[\[index\]\] number 1, switch"),
    "an unknown rule": ("[incoming]\nforce = true\n", r"\[incoming\].*unknown field `force`"),
    "a rule out of range": ("[incoming]\nswitch_timeout_seconds = 0\n", "switch_timeout_seconds"),
    "a time of none": ('[[mirror]]\nfolder = "docs"\nrescan_s = 0\n', "number 1, rescan_s"),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The path of a settings file beside a folder `docs`."""
    (tmp_path / "docs").mkdir()
    return tmp_path / "shadowswitch.toml"


def test_the_folders_of_a_valid_file_become_absolute(file: Path) -> None:
    file.write_text(GOOD)
    settings = load_settings(file)
    assert [mirror.folder for mirror in settings.mirror] == [str(file.parent / "docs")]
    assert settings.index[0].build_config == {"tokenizer": "porter"}
    assert not settings.inbox.enabled
    assert settings.webhook[0].types == ("com.shadowswitch.switch.*",)
    config = settings.config()
    assert (config.builds_max, config.commit_latency_budget) == (3, 5.5)
    assert (config.incoming.auto_switch, config.incoming.validation_checks) == (False, ("DIGEST",))


@pytest.mark.parametrize("case", BAD)
def test_an_error_names_its_place_in_the_file(file: Path, case: str) -> None:
    content, reason = BAD[case]
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(InvalidConfig, match=reason) as refused:
        load_settings(file)
    assert "shadowswitch.toml" in str(refused.value)


# -- indexes as described ------------------------------------------------------------------------------------------


@pytest.fixture
def reconciler(engine: Engine) -> Iterator[IndexReconciler]:
    """A running reconciler."""
    made = IndexReconciler(engine, retry_s=0.2, look_s=0.02)
    made.start()
    yield made
    made.stop()


def described(**config: object) -> IndexSettings:
    return IndexSettings("main", KIND, tuple(TYPES), {"parallel_workers": 1, **config})


def as_described(reconciler: IndexReconciler) -> bool:
    """Do readers get every index as described?"""
    return all(status.as_described and not status.shadow_index_id for status in reconciler.status())


def test_an_index_is_built_as_described_and_rebuilt_after_a_change(engine: Engine, reconciler: IndexReconciler) -> None:
    fill(engine, 20, text="running")
    reconciler.want([described()])
    wait_until(lambda: as_described(reconciler))
    assert found(engine, "run") == set()
    first = engine.index("main", KIND).generation
    reconciler.want([described(tokenizer="porter")])
    wait_until(lambda: as_described(reconciler))
    assert len(found(engine, "run")) == 20
    assert engine.index("main", KIND).previous_generation == first
    assert len(engine.shadows()) == 2


def test_an_index_as_described_is_not_rebuilt(engine: Engine, reconciler: IndexReconciler) -> None:
    fill(engine, 5)
    generation = live(engine)
    reconciler.want([described()])
    wait_until(lambda: as_described(reconciler))
    reconciler.want([described(tokenizer="unicode61")])  # the explicit default
    wait_until(lambda: as_described(reconciler))
    assert engine.index("main", KIND).generation == generation


def test_a_change_of_the_description_cancels_the_build_at_hand(engine: Engine, reconciler: IndexReconciler) -> None:
    fill(engine, 100)
    first = engine.start_build("main", KIND, TYPES, {"tokenizer": "ascii"}, service_name="settings")
    engine.wait_for(first.shadow_index_id, "BUILT", timeout_s=60)
    reconciler.want([described(tokenizer="porter")])
    wait_until(lambda: as_described(reconciler))
    assert engine.shadow(first.shadow_index_id).state == "CANCELLED"


def test_an_external_build_is_not_cancelled_and_blocks_the_index(engine: Engine, reconciler: IndexReconciler) -> None:
    fill(engine, 10)
    other = engine.start_build("main", KIND, TYPES, external=True)
    reconciler.want([described()])
    wait_until(lambda: reconciler.status()[0].error)
    assert "is being built by shadow" in (reconciler.status()[0].error or "")
    engine.cancel_build(other.shadow_index_id)
    wait_until(lambda: as_described(reconciler))
    wait_until(lambda: reconciler.status()[0].error is None)


def test_a_refused_switch_is_in_the_status_and_tried_again(engine: Engine, reconciler: IndexReconciler) -> None:
    fill(engine, 10)
    bad = [True]
    inside.replace_check(engine, "DIGEST", lambda reader: ["not yet"] if bad else [])
    reconciler.want([described()])
    wait_until(lambda: reconciler.status()[0].error)
    bad.clear()
    wait_until(lambda: as_described(reconciler))


def test_an_archived_branch_gets_no_index_and_the_status_says_why(
    engine: Engine, reconciler: IndexReconciler, caplog: pytest.LogCaptureFixture
) -> None:
    fill(engine, 10)
    engine.archive_branch("main")
    reconciler.want([described()])
    wait_until(lambda: "ARCHIVED" in (reconciler.status()[0].error or ""))
    reconciler._errors[("main", KIND)] = (reconciler.status()[0].error or "", 0.0)  # as after the time of a retry
    reconciler._round()
    assert engine.shadows() == []
    assert sum("is not as described" in line for line in caplog.messages) == 1, "a refusal that stays is logged once"


def test_a_rollback_holds_until_the_description_changes(engine: Engine, reconciler: IndexReconciler) -> None:
    fill(engine, 10)
    first = live(engine)
    reconciler.want([described(tokenizer="porter")])
    wait_until(lambda: as_described(reconciler))
    assert engine.rollback("main", KIND).generation == first
    wait_until(lambda: "rolled back" in (reconciler.status()[0].error or ""))
    fresh = IndexReconciler(engine)  # as after a restart
    fresh.want([described(tokenizer="porter")])
    fresh._round()
    assert engine.index("main", KIND).generation == first
    assert len(engine.shadows()) == 2
    reconciler.want([described(tokenizer="trigram")])
    wait_until(lambda: as_described(reconciler))
    assert engine.index("main", KIND).build_config["tokenizer"] == "trigram"
    reconciler.want([described(tokenizer="porter")])  # a new description, later than the rollback
    wait_until(lambda: as_described(reconciler))


def test_a_dropped_index_is_built_again_only_if_it_is_still_described(
    engine: Engine, reconciler: IndexReconciler
) -> None:
    fill(engine, 10)
    reconciler.want([described()])
    wait_until(lambda: as_described(reconciler))
    first = engine.index("main", KIND).generation
    engine.drop_index("main", KIND)
    wait_until(lambda: as_described(reconciler) and engine.index("main", KIND).generation > first)
    reconciler.want([])
    engine.drop_index("main", KIND)
    reconciler._round()
    assert engine.indexes() == []


def test_a_rollback_right_behind_the_switch_holds(engine: Engine) -> None:
    """It comes before the reconciler has looked at the index again."""
    fill(engine, 10)
    first = live(engine)
    reconciler = IndexReconciler(engine)
    reconciler.want([described()])
    reconciler.want([described(tokenizer="porter")])
    reconciler._round()
    assert engine.rollback("main", KIND).generation == first
    reconciler._round()
    assert engine.index("main", KIND).generation == first
    assert len(engine.shadows()) == 2
    assert "rolled back" in (reconciler.status()[0].error or "")


def test_a_rollback_holds_after_the_soak_and_a_restart(open_engine: Any) -> None:
    engine = open_engine(soak_s=2.0)
    engine.create_branch("main")
    fill(engine, 10)
    first = live(engine)
    reconciler = IndexReconciler(engine)
    reconciler.want([described(tokenizer="porter")])
    reconciler._round()
    assert engine.rollback("main", KIND).generation == first
    wait_until(lambda: engine.index("main", KIND).previous_generation is None)
    fresh = IndexReconciler(engine)
    fresh.want([described(tokenizer="porter")])
    fresh._round()
    assert engine.index("main", KIND).generation == first
    assert len(engine.shadows()) == 2


def test_a_cancelled_build_is_tried_again(engine: Engine, reconciler: IndexReconciler) -> None:
    fill(engine, 2000)
    reconciler.want([described(tokenizer="porter", shards=4)])

    def cancelled() -> bool:
        for shadow in engine.shadows(state="BUILDING"):
            engine.cancel_build(shadow.shadow_index_id, "not now")
        return any(shadow.state == "CANCELLED" for shadow in engine.shadows())

    wait_until(cancelled)
    wait_until(lambda: as_described(reconciler))


def test_an_index_waits_for_its_branch(engine: Engine, reconciler: IndexReconciler) -> None:
    reconciler.want([IndexSettings("later", KIND, tuple(TYPES), {"parallel_workers": 1}, allow_empty=True)])
    engine.create_branch("later")
    wait_until(lambda: as_described(reconciler))


def test_an_index_waits_for_its_first_record(engine: Engine, reconciler: IndexReconciler) -> None:
    """It is refused once, with the reason, and not built again and again meanwhile."""
    engine.create_branch("later")
    reconciler.want([IndexSettings("later", KIND, tuple(TYPES), {"parallel_workers": 1})])
    wait_until(lambda: "no records of object_type" in (reconciler.status()[0].error or ""))
    built = len(engine.shadows("later"))
    threading.Event().wait(1.5)
    assert len(engine.shadows("later")) == built == 1
    engine.write("later", [put("a")])
    wait_until(lambda: as_described(reconciler))
