"""A process that answers the questions of this one: for libraries that hold the GIL for long, or may crash.

    ask ----> [number, question], as MessagePack behind its length ----> serve, in the process
        <---- [number, True, answer] or [number, False, what went wrong] <----

It is started by the first question. It ends with its parent: its standard input is at an end then; and when it was not
asked for IDLE_S, for what it has loaded may be large. One that ended or was killed is started again. A caller may wait
for less than the process may take: its answer is passed over when it comes. A process that has not answered for as long
as it may take is killed.
"""

from __future__ import annotations

import atexit
import contextlib
import math
import os
import select
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from shadowswitch.model.errors import InternalFailure, ShadowSwitchError, Timeout
from shadowswitch.storage.clock import SYSTEM
from shadowswitch.storage.interpreter import start_python
from shadowswitch.storage.shortages import shortage

IDLE_S = 900
RECEIVED_MAX = 1 << 20
LENGTH_BYTES = 8
TRIES = 2
ENDING_S = 1.0
ANSWER_S, INTERRUPTING_S = 2.0, 0.02
"""For an answer at the end of an engine, and between two looks for it."""
_patience = threading.local()


@contextlib.contextmanager
def impatient(seconds: float) -> Iterator[None]:
    """Inside, a question of this thread waits for so long at the most: writers wait for what it does."""
    before = patience()
    _patience.seconds = min(before, seconds)
    try:
        yield
    finally:
        _patience.seconds = before


def patience() -> float:
    """So long this thread waits at the most, see `impatient`."""
    seconds: float = getattr(_patience, "seconds", math.inf)
    return seconds


class AskedProcess:
    """One process. Any thread; one question at a time."""

    def __init__(self, code: str, name: str, wait_s: Callable[[], float], hint: str) -> None:
        """`code` calls `serve`; `name` is what it does, for errors; `hint` says what it needs.

        `wait_s` is the time for an answer, with that to load, and for the questions of other threads before.
        """
        self._code = code
        self._name = name
        self._wait_s = wait_s
        self._hint = hint
        self._lock = threading.RLock()
        self._process: subprocess.Popen[bytes] | None = None
        self._number = 0
        """Of the last question."""
        self._received = bytearray()
        self._is_sent_in_part = self._is_asked = self._is_waited_for = self._is_interrupted = False
        self._silent_since = 0.0
        """The last answer, or the first question behind it."""
        _all.add(self)

    @contextlib.contextmanager
    def alone(self, wait_s: float = math.inf) -> Iterator[None]:
        """No other thread asks meanwhile. Raises Timeout."""
        wait_s = min(wait_s, self._wait_s())
        if not self._lock.acquire(timeout=max(0.0, wait_s)):
            raise self._late(wait_s)
        try:
            yield
        finally:
            self._lock.release()

    def begin(self) -> None:
        """Start the process, unless it runs, and do not wait until it is loaded. Raises as `ask`."""
        with self.alone():
            self._running()

    def ask(self, question: Any, wait_s: float = math.inf) -> Any:
        """The answer, within `wait_s` at the most, and within the patience of the thread.

        Raises Timeout, ResourceExhausted, and InternalFailure with what went wrong in the process.
        """
        wait_s = min(wait_s, self._wait_s(), patience())
        until = SYSTEM.monotonic() + wait_s
        with self.alone(wait_s), self._waiting():
            for left in reversed(range(TRIES)):
                process = self._running()
                try:
                    is_answer, answer = self._answer(process, question, until, wait_s)
                except Timeout:  # an OSError as well
                    if self._is_sent_in_part or SYSTEM.monotonic() >= self._silent_since + self._wait_s():
                        self._end()
                    raise
                except (OSError, EOFError, msgspec.DecodeError):  # it was killed
                    self._end()
                    if not left or self._is_interrupted:
                        break
                except BaseException:  # an answer that comes later must not be taken for another one
                    self._end()
                    raise
                else:
                    if is_answer:
                        return answer
                    raise InternalFailure(f"{self._name} failed: {answer}", operation="analyze", hint=self._hint)
        raise Timeout(f"{self._name} ended before it answered", operation="analyze", hint=f"{self._hint}; try again")

    @contextlib.contextmanager
    def _waiting(self) -> Iterator[None]:
        self._is_interrupted, self._is_waited_for = False, True
        try:
            yield
        finally:
            self._is_waited_for = False

    @property
    def pid(self) -> int:
        """The id of the process; 0 if none was started."""
        process = self._process
        return process.pid if process is not None else 0

    def close(self) -> None:
        """End the process; a later question starts another one."""
        with self.alone():
            self._end()

    @property
    def is_waited_for(self) -> bool:
        """A thread waits for an answer."""
        return self._is_waited_for

    def interrupt(self) -> None:
        """Let the question that is under way fail: the process is killed. Any thread, also while another one asks."""
        process = self._process
        if self._is_waited_for and process is not None:
            self._is_interrupted = True
            with contextlib.suppress(OSError):
                process.kill()

    def forget(self) -> None:
        """In a child that was forked: the process belongs to the parent."""
        self._lock, self._process = threading.RLock(), None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is not None:
            self._end()  # also what it has sent of an answer
        if self._process is None:
            self._silent_since = SYSTEM.monotonic()
            try:
                self._process = start_python(
                    self._code, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )  # fmt: skip
            except OSError as error:
                raise shortage(error, "analyze", self._name) or error from error
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        self._received.clear()
        self._is_asked = False
        if process is not None:
            with contextlib.suppress(OSError):
                process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()

    def _answer(self, process: subprocess.Popen[bytes], question: Any, until: float, wait_s: float) -> tuple[bool, Any]:
        assert process.stdin is not None
        assert process.stdout is not None
        if not self._is_asked:
            self._silent_since, self._is_asked = SYSTEM.monotonic(), True
        self._number += 1
        encoded = msgspec.msgpack.encode((self._number, question))
        sent = memoryview(len(encoded).to_bytes(LENGTH_BYTES, "big") + encoded)
        self._is_sent_in_part = True
        poll = select.poll()
        poll.register(process.stdout, select.POLLIN)
        os.set_blocking(process.stdin.fileno(), False)
        poll.register(process.stdin, select.POLLOUT)
        while True:
            ready = dict(poll.poll(max(0.0, until - SYSTEM.monotonic()) * 1000))
            if not ready:
                raise self._late(wait_s)
            if process.stdin.fileno() in ready and sent:
                sent = sent[os.write(process.stdin.fileno(), sent) :]
                if not sent:
                    self._is_sent_in_part = False
                    poll.unregister(process.stdin)
            if process.stdout.fileno() in ready:
                part = os.read(process.stdout.fileno(), RECEIVED_MAX)
                if not part:
                    raise EOFError
                self._received += part
                answer = self._received_answer()
                if answer is not None:
                    return answer

    def _received_answer(self) -> tuple[bool, Any] | None:
        """That to the last question, once it is whole; those to questions before are passed over."""
        while len(self._received) >= LENGTH_BYTES:
            end = LENGTH_BYTES + int.from_bytes(self._received[:LENGTH_BYTES], "big")
            if len(self._received) < end:
                break
            whole = bytes(self._received[LENGTH_BYTES:end])
            del self._received[:end]
            self._silent_since = SYSTEM.monotonic()
            number, is_answer, answer = msgspec.msgpack.decode(whole, type=tuple[int, bool, Any])
            if number == self._number:
                self._is_asked = False
                return is_answer, answer
        return None

    def _late(self, wait_s: float) -> ShadowSwitchError:
        return Timeout(
            f"{self._name} did not answer within {wait_s:.3g} s",
            operation="analyze",
            hint="the machine may be overloaded; try again",
        )


def serve(answer: Callable[[Any], Any], idle_s: int = IDLE_S) -> None:
    """In the process: answer every question until the parent ends, or asks none for whole seconds `idle_s`.

    What `answer` raises is the answer, too.
    """
    questions, answers = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints, also in C, is no answer
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    while True:
        signal.alarm(idle_s)
        head = questions.read(LENGTH_BYTES)
        signal.alarm(0)
        if len(head) < LENGTH_BYTES:
            return
        number, question = msgspec.msgpack.decode(questions.read(int.from_bytes(head, "big")))
        try:
            encoded = msgspec.msgpack.encode((number, True, answer(question)))
        except Exception as error:
            encoded = msgspec.msgpack.encode((number, False, f"{type(error).__name__}: {error}"[:1000]))
        answers.write(len(encoded).to_bytes(LENGTH_BYTES, "big") + encoded)
        answers.flush()


_all: weakref.WeakSet[AskedProcess] = weakref.WeakSet()


def interrupt_all(seconds: float = ANSWER_S) -> None:
    """Let questions that are under way fail, unless they are answered within so many seconds. For the end of an engine:
    its threads do not wait for a model that hangs. Another engine of this process asks again."""
    until = SYSTEM.monotonic() + seconds
    while any(one.is_waited_for for one in list(_all)) and SYSTEM.monotonic() < until:
        SYSTEM.sleep(INTERRUPTING_S)
    for one in list(_all):
        one.interrupt()


def _end_all() -> None:
    for one in list(_all):
        with contextlib.suppress(Timeout):  # a thread that asks holds it: the process ends with its parent
            with one.alone(ENDING_S):
                one.close()


def _forget_all() -> None:
    for one in list(_all):
        one.forget()


atexit.register(_end_all)
os.register_at_fork(after_in_child=_forget_all)
