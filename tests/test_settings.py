"""The settings file: checked whole, with errors in the words of the file; a change of an index rebuilds it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from shadowswitch import Engine, InvalidConfig
from shadowswitch.service.daemon.index_reconciler import IndexReconciler
from shadowswitch.service.daemon.settings import IndexSettings, load_settings
from tests.engine_helpers import KIND, TYPES, fill, found, live, wait_until
from tests.support import inside

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
    "a secret that is not there": (
        '[[webhook]]\nurl = "https://a.b"\nsecret_env = "NOT_SET"\n',
        "'NOT_SET' is not",
    ),
    "an unknown rule": ("[incoming]\nforce = true\n", r"\[incoming\].*unknown field `force`"),
    "a rule out of range": ("[incoming]\nswitch_timeout_seconds = 0\n", "switch_timeout_seconds"),
    "a time of none": ('[[mirror]]\nfolder = "docs"\nrescan_s = 0\n', "number 1, rescan_s"),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the settings lie, beside a folder `docs`."""
    (tmp_path / "docs").mkdir()
    return tmp_path / "shadowswitch.toml"


def test_a_good_file_is_read_with_its_folders_made_absolute(file: Path) -> None:
    file.write_text(GOOD)
    settings = load_settings(file)
    assert [mirror.folder for mirror in settings.mirror] == [str(file.parent / "docs")]
    assert settings.index[0].build_config == {"tokenizer": "porter"}
    assert not settings.inbox.enabled
    assert settings.webhook[0].types == ("com.shadowswitch.switch.*",)
    config = settings.config()
    assert (config.incoming.auto_switch, config.incoming.validation_checks) == (False, ("DIGEST",))


@pytest.mark.parametrize("what", BAD)
def test_what_is_wrong_is_said_in_the_words_of_the_file(file: Path, what: str) -> None:
    content, reason = BAD[what]
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(InvalidConfig, match=reason) as refused:
        load_settings(file)
    assert "shadowswitch.toml" in str(refused.value)


# -- indexes as described ------------------------------------------------------------------------------------------


@pytest.fixture
def keeper(engine: Engine) -> Iterator[IndexReconciler]:
    """A running keeper of indexes."""
    made = IndexReconciler(engine, retry_s=0.2, look_s=0.02)
    made.start()
    yield made
    made.stop()


def described(**config: object) -> IndexSettings:
    return IndexSettings("main", KIND, tuple(TYPES), {"parallel_workers": 1, **config})


def as_described(keeper: IndexReconciler) -> bool:
    """Committed, and its switch is over: readers get it."""
    return all(status.as_described and not status.shadow_index_id for status in keeper.status())


def test_an_index_is_built_as_described_and_rebuilt_when_that_changes(engine: Engine, keeper: IndexReconciler) -> None:
    fill(engine, 20, text="running")
    keeper.want([described()])
    wait_until(lambda: as_described(keeper))
    assert found(engine, "run") == set()
    first = engine.index("main", KIND).generation
    keeper.want([described(tokenizer="porter")])
    wait_until(lambda: as_described(keeper))
    assert len(found(engine, "run")) == 20
    assert engine.index("main", KIND).previous_generation == first
    assert len(engine.shadows()) == 2


def test_an_index_that_is_as_described_is_left_alone(engine: Engine, keeper: IndexReconciler) -> None:
    fill(engine, 5)
    generation = live(engine)
    keeper.want([described()])
    wait_until(lambda: as_described(keeper))
    keeper.want([described(tokenizer="unicode61")])  # the default, said
    wait_until(lambda: as_described(keeper))
    assert engine.index("main", KIND).generation == generation


def test_when_the_description_changes_again_the_build_before_is_given_up(
    engine: Engine, keeper: IndexReconciler
) -> None:
    fill(engine, 100)
    first = engine.start_build("main", KIND, TYPES, {"tokenizer": "ascii"}, service_name="settings")
    engine.wait_for(first.shadow_index_id, "BUILT", timeout_s=60)
    keeper.want([described(tokenizer="porter")])
    wait_until(lambda: as_described(keeper))
    assert engine.shadow(first.shadow_index_id).state == "CANCELLED"


def test_a_build_of_somebody_else_is_not_cancelled_and_waited_for(engine: Engine, keeper: IndexReconciler) -> None:
    fill(engine, 10)
    other = engine.start_build("main", KIND, TYPES, external=True)
    keeper.want([described()])
    wait_until(lambda: keeper.status()[0].error)
    assert "is being built by shadow" in (keeper.status()[0].error or "")
    engine.cancel_build(other.shadow_index_id)
    wait_until(lambda: as_described(keeper))
    wait_until(lambda: keeper.status()[0].error is None)


def test_a_switch_that_is_refused_is_told_and_tried_again(engine: Engine, keeper: IndexReconciler) -> None:
    fill(engine, 10)
    bad = [True]
    inside.replace_check(engine, "DIGEST", lambda reader: ["not yet"] if bad else [])
    keeper.want([described()])
    wait_until(lambda: keeper.status()[0].error)
    bad.clear()
    wait_until(lambda: as_described(keeper))


def test_a_rollback_is_respected_until_the_description_changes(engine: Engine, keeper: IndexReconciler) -> None:
    fill(engine, 10)
    first = live(engine)
    keeper.want([described(tokenizer="porter")])
    wait_until(lambda: as_described(keeper))
    assert engine.rollback("main", KIND).generation == first
    wait_until(lambda: "rolled back" in (keeper.status()[0].error or ""))
    fresh = IndexReconciler(engine)  # as after a restart
    fresh.want([described(tokenizer="porter")])
    fresh._round()
    assert engine.index("main", KIND).generation == first
    assert len(engine.shadows()) == 2
    keeper.want([described(tokenizer="trigram")])
    wait_until(lambda: as_described(keeper))
    assert engine.index("main", KIND).build_config["tokenizer"] == "trigram"
    keeper.want([described(tokenizer="porter")])  # said again: that is newer than the rollback
    wait_until(lambda: as_described(keeper))


def test_a_build_that_somebody_cancels_is_tried_again_later(engine: Engine, keeper: IndexReconciler) -> None:
    fill(engine, 2000)
    keeper.want([described(tokenizer="porter", shards=4)])

    def cancelled() -> bool:
        for shadow in engine.shadows(state="BUILDING"):
            engine.cancel_build(shadow.shadow_index_id, "not now")
        return any(shadow.state == "CANCELLED" for shadow in engine.shadows())

    wait_until(cancelled)
    wait_until(lambda: as_described(keeper))


def test_a_branch_that_is_not_there_yet_is_waited_for(engine: Engine, keeper: IndexReconciler) -> None:
    keeper.want([IndexSettings("later", KIND, tuple(TYPES), {"parallel_workers": 1})])
    engine.create_branch("later")
    wait_until(lambda: as_described(keeper))
