"""A process that answers questions: errors, kills, answers that come too late."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from shadowswitch.model.errors import InternalFailure, Timeout
from shadowswitch.storage.asked_process import AskedProcess, impatient, interrupt_all
from tests.support.engine_helpers import wait_until

ECHO = """
import os
from shadowswitch.storage.asked_process import serve
def answer(question):
    if question == "wrong":
        raise ValueError("no answer to this")
    print("what a library prints is no answer", flush=True)
    os.write(1, b"and what it prints in C")
    return question
serve(answer)
"""
SLOW = """
import select
from shadowswitch.storage.asked_process import serve
gate = open({gate!r})  # a pipe: until the test opens it, the process loads
gate.read()
serve(lambda question: question)
"""
WAIT_S = 60.0


@pytest.fixture
def process() -> Iterator[AskedProcess]:
    with closing(AskedProcess(ECHO, "the echo", lambda: WAIT_S, "mend it")) as process:
        yield process


def test_questions_of_any_size_are_answered_in_order(process: AskedProcess) -> None:
    for question in ("one", [1, 2.5, None], {"a": b"\0"}, "", "x" * 5_000_000):
        assert process.ask(question) == question


def test_an_error_is_raised_and_the_process_goes_on(process: AskedProcess) -> None:
    process.begin()
    pid = process.pid
    with pytest.raises(InternalFailure, match="ValueError: no answer to this") as failed:
        process.ask("wrong")
    assert "mend it" in failed.value.hint
    assert process.ask("right") == "right"
    assert process.pid == pid


def test_a_process_that_was_killed_is_started_again(process: AskedProcess) -> None:
    assert process.ask(1) == 1
    os.kill(process.pid, signal.SIGKILL)
    assert process.ask(2) == 2


def test_one_that_is_not_asked_ends_and_the_next_question_starts_another() -> None:
    code = "from shadowswitch.storage.asked_process import serve; serve(lambda question: question, 1)"
    with closing(AskedProcess(code, "the idle one", lambda: WAIT_S, "mend it")) as process:
        assert process.ask(1) == 1
        end = os.pidfd_open(process.pid)
        try:
            assert select.select([end], [], [], 30)[0]
        finally:
            os.close(end)
        assert process.ask(2) == 2


def test_one_that_died_behind_a_part_of_an_answer_leaves_nothing_behind(process: AskedProcess) -> None:
    assert process.ask(1) == 1
    os.kill(process.pid, signal.SIGSTOP)
    with pytest.raises(Timeout):
        process.ask("late", 0.1)
    pid = process.pid
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{pid}/fd").exists() or not list(Path(f"/proc/{pid}/fd").iterdir()), 30)
    assert process.ask("next") == "next"
    assert not process.is_waited_for


def test_one_that_stands_still_is_killed_once_it_has_had_its_time() -> None:
    waits = [WAIT_S]
    with closing(AskedProcess(ECHO, "the echo", lambda: waits[0], "mend it")) as process:
        assert process.ask(1) == 1
        for question, is_killed in ((2, False), ("x" * 5_000_000, True)):  # sent whole, and sent in part
            before = process.pid
            os.kill(before, signal.SIGSTOP)
            with pytest.raises(Timeout):
                process.ask(question, 0.1)
            assert (process.pid == before) is not is_killed
            waits[0] = 0.2
            with contextlib.suppress(Timeout):
                process.ask(3)
            waits[0] = WAIT_S
            assert process.ask(4) == 4
            assert process.pid != before


def test_an_impatient_thread_waits_for_less_and_kills_nothing(process: AskedProcess) -> None:
    assert process.ask(1) == 1
    pid = process.pid
    os.kill(pid, signal.SIGSTOP)
    with impatient(0.1), impatient(60), pytest.raises(Timeout):
        process.ask("late")
    os.kill(pid, signal.SIGCONT)
    assert process.ask("in time") == "in time"
    assert process.pid == pid


def test_a_question_that_is_interrupted_fails_and_the_next_one_is_answered(process: AskedProcess) -> None:
    assert process.ask(1) == 1
    os.kill(process.pid, signal.SIGSTOP)
    failed: list[BaseException] = []

    def ask() -> None:
        try:
            process.ask(2)
        except Timeout as error:
            failed.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    wait_until(lambda: process.is_waited_for, 30)
    interrupt_all(0.05)
    thread.join(30)
    assert len(failed) == 1
    assert process.ask(3) == 3
    interrupt_all(0.05)  # nothing is under way
    assert process.ask(4) == 4


@pytest.mark.timeout(120)
def test_one_that_loads_is_waited_for_again_and_an_old_answer_is_passed_over(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with closing(AskedProcess(SLOW.format(gate=str(gate)), "the slow one", lambda: WAIT_S, "wait")) as process:
        with pytest.raises(Timeout):
            process.ask("old", 0.2)
        pid = process.pid
        with gate.open("w"):
            pass
        assert process.ask("new") == "new"
        assert process.pid == pid


def test_one_whose_code_is_wrong_ends_and_says_so() -> None:
    with closing(AskedProcess("raise SystemExit(1)", "the wrong one", lambda: WAIT_S, "mend it")) as process:
        with pytest.raises(Timeout, match="ended before it answered"):
            process.ask(1)
