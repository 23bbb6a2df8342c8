"""A settings file whose description is refused: it is built once, its status says why; the file can say `meant so`."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from shadowswitch import Engine, Put
from shadowswitch.service.daemon.daemon import Daemon
from shadowswitch.service.daemon.index_reconciler import IndexReconciler, IndexStatus
from tests.support.engine_helpers import KIND, wait_until

RETRY_S = 0.2
WHOLE = 'resource_types = ["object_type"]'
TYPO = 'resource_types = ["object_typ"]'
COLUMN = f'{WHOLE}\nbuild_config = {{ columns = ["titel", "text"] }}'
DROP = 'resource_types = ["link_type"]'
EMPTY = 'resource_types = ["note_type"]'
REFUSED = {
    TYPO: "no records of object_typ (did you mean 'object_type'?)",
    COLUMN: "no record had the field 'titel' when the index was built (did you mean 'title'?)",
    DROP: "the index would have 20 records, the live one has 500",
    EMPTY: "no records of note_type",
}
QUIET = 'switch = "quiet"\nquiet_for_s = 0.1\nwithin_s = 60.0\n'


class Described:
    """A settings file in effect."""

    def __init__(self, engine: Engine, file: Path) -> None:
        self.engine, self._file = engine, file
        self.say(WHOLE)
        self.daemon = Daemon(engine, (), file)
        self.daemon._indexes = IndexReconciler(engine, retry_s=RETRY_S, look_s=0.02)

    def say(self, *lines: str) -> None:
        """Write the file anew; it has one index."""
        text = "\n".join(["[inbox]", "enabled = false", "[[index]]", *lines, ""])
        draft = self._file.with_suffix(".new")
        draft.write_text(text)
        draft.replace(self._file)

    def save_again(self) -> None:
        """As `touch` does."""
        os.utime(self._file)

    @property
    def status(self) -> IndexStatus:
        (status,) = self.daemon.status().indexes
        return status

    def wait_refused(self, reason: str) -> None:
        wait_until(lambda: reason in (self.status.error or ""), what=reason)

    def wait_live(self, *types: str) -> None:
        """Until the index is live as described, with these types, and the status has no error."""
        wait_until(lambda: self.status.as_described and self.engine.index("main", KIND).resource_types == list(types))
        wait_until(lambda: self.status.error is None)

    def built(self) -> int:
        return len(self.engine.shadows())


@pytest.fixture
def described(engine: Engine, tmp_path: Path) -> Iterator[Described]:
    """A live index of 500 records, as the file describes it."""
    records = [Put("object_type", str(n), {"title": f"t{n}", "text": "x"}) for n in range(500)]
    engine.write("main", records + [Put("link_type", str(n), {"text": "x"}) for n in range(20)])
    made = Described(engine, tmp_path / "shadowswitch.toml")
    made.daemon.start()
    made.wait_live("object_type")
    yield made
    made.daemon.stop()


def some_retries() -> None:
    threading.Event().wait(8 * RETRY_S)


@pytest.mark.parametrize("case", REFUSED)
def test_a_refused_description_is_built_once_and_the_status_says_why(described: Described, case: str) -> None:
    described.say(case)
    described.wait_refused(REFUSED[case])
    some_retries()
    assert described.built() == 2, "the live one, and the refused one"
    assert not described.status.as_described
    assert REFUSED[case] in (described.status.error or ""), "it stays"
    described.save_again()
    wait_until(lambda: described.built() == 3, what="the build that the operator asks for")
    described.wait_refused(REFUSED[case])
    described.say(WHOLE)
    described.wait_live("object_type")


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("when", ["", QUIET], ids=["built", "quiet"])
def test_what_is_meant_goes_past_each_refusal_and_is_audited(described: Described, case: str, when: str) -> None:
    described.say(case, when)
    described.wait_refused(REFUSED[case])
    described.say("force_switch = true", case, when)
    wait_until(lambda: described.status.as_described)
    (row,) = [one for one in described.engine.audit() if one.data.get("overridden")]
    assert REFUSED[case] in row.data["overridden"][0]
    assert row.data["by"] == "settings"


def test_an_index_that_may_be_empty_takes_the_place_of_one_with_many_records(described: Described) -> None:
    described.say(DROP, "allow_empty = true")
    described.wait_refused(REFUSED[DROP])
    described.say(EMPTY, "allow_empty = true")
    described.wait_live("note_type")


def test_an_index_that_would_drop_is_built_again_once_it_does_not(described: Described) -> None:
    described.say(DROP)
    described.wait_refused(REFUSED[DROP])
    described.engine.write("main", [Put("link_type", f"more{n}", {"text": "x"}) for n in range(230)])
    described.wait_live("link_type")


def test_a_field_that_came_late_is_found_once_there_are_twice_the_records(described: Described) -> None:
    described.say(COLUMN)
    described.wait_refused(REFUSED[COLUMN])
    described.engine.write("main", [Put("object_type", f"more{n}", {"titel": "x"}) for n in range(400)])
    some_retries()
    assert described.built() == 2
    described.engine.write("main", [Put("object_type", f"yet more{n}", {"titel": "x"}) for n in range(100)])
    described.wait_live("object_type")


def test_a_refused_switch_at_a_quiet_moment_is_in_the_status(described: Described) -> None:
    described.say(TYPO, QUIET)
    described.wait_refused(REFUSED[TYPO])
    some_retries()
    assert described.built() == 2
    plan = described.engine.shadows()[-1].scheduled_switch
    assert plan is not None
    assert plan.error == described.status.error
    described.say(WHOLE, QUIET)
    described.wait_live("object_type")


def test_an_index_with_a_quiet_switch_waits_for_its_branch(
    described: Described, caplog: pytest.LogCaptureFixture
) -> None:
    described.say('branch = "later"', 'resource_types = ["object_type"]', "allow_empty = true", QUIET)
    wait_until(lambda: described.status.branch == "later")
    described.engine.create_branch("later")
    wait_until(lambda: described.status.as_described)
    assert not [line for line in caplog.messages if "failed, and is tried again" in line]


def test_a_branch_that_is_not_there_is_named_until_it_is(described: Described) -> None:
    described.wait_live("object_type")
    described.say('branch = "mian"', WHOLE)
    described.wait_refused("there is no branch 'mian' (did you mean 'main'?)")
    described.engine.create_branch("mian")
    described.engine.write("mian", [Put("object_type", "1", {"title": "one"})])
    wait_until(lambda: described.status.as_described and described.status.error is None, what="the index of it")
