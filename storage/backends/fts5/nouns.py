"""The nouns of Korean words, by kiwipiepy, whose package is the extra `korean`.

Kiwi holds the GIL for a second or more while it loads, and takes about 330 MiB. So a process of its own runs it: one
for each process that reads or writes such an index, started by the first that does, ended with its parent. It is asked
word by word, without regard to what stands around, so that a word of a query has the nouns that it has in a text.

A noun and its suffix are one noun: `접근성` is not found by `접근`. What is no noun (particles, verbs, endings) is left
out; a word without a noun has none.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from importlib.util import find_spec

import msgspec

from shadowswitch.model.errors import InvalidConfig, Timeout
from shadowswitch.storage.clock import SYSTEM
from shadowswitch.storage.interpreter import start_python
from shadowswitch.storage.shortages import shortage

WAIT_S = 30.0
"""For the answer to one question, with the time to load."""
KNOWN_MAX = 50_000
"""Words whose nouns are remembered."""
RECEIVED_MAX = 1 << 20
NOUNS = frozenset({"NNG", "NNP", "NNB", "NR", "XR", "SL", "SH", "SN"})
SUFFIX = "XSN"
SLICE_WORDS = 1000
"""So many in one question: a tenth of a second."""
WORD_CHARS_MAX = 1000
"""A longer run of letters is no word, and has no nouns."""
TRIES = 2
FIRST_WORD = "가"


class Kiwi:
    """The process that runs kiwi. Any thread; one question at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._known: dict[str, tuple[str, ...]] = {}

    def begin(self) -> None:
        """Start the process, unless it runs, and do not wait until it is loaded. Raises as `of`."""
        with self._alone():
            self._running()

    def wait(self) -> None:
        """Return once it is loaded. Raises as `of`."""
        self.of([FIRST_WORD])

    def forget(self) -> None:
        """In a child that was forked: the process belongs to the parent."""
        self._lock, self._process = threading.Lock(), None

    def of(self, words: Sequence[str]) -> list[tuple[str, ...]]:
        """The nouns of each word. Raises InvalidConfig without the package, Timeout, ResourceExhausted."""
        found: dict[str, tuple[str, ...]] = {word: () for word in words if len(word) > WORD_CHARS_MAX}
        asked = [word for word in dict.fromkeys(words) if word not in found]
        for first in range(0, len(asked), SLICE_WORDS):  # another thread gets its turn between two slices
            part = asked[first : first + SLICE_WORDS]
            with self._alone():
                unknown = [word for word in part if word not in self._known]
                answers = dict(zip(unknown, map(tuple, self._asked(unknown)), strict=True)) if unknown else {}
                found.update((word, answers[word] if word in answers else self._known[word]) for word in part)
                if len(self._known) + len(answers) > KNOWN_MAX:
                    self._known.clear()
                self._known.update(answers)
        return [found[word] for word in words]

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._lock.acquire(timeout=WAIT_S):
            raise _late()
        try:
            yield
        finally:
            self._lock.release()

    @property
    def pid(self) -> int:
        """The id of the process; 0 if none was started."""
        process = self._process
        return process.pid if process is not None else 0

    def _asked(self, words: list[str]) -> list[list[str]]:
        for left in reversed(range(TRIES)):
            process = self._running()
            try:
                return _answer(process, words)
            except (OSError, EOFError, msgspec.DecodeError):  # it was killed
                self._end()
                if not left:
                    break
            except BaseException:  # an answer that comes later must not be taken for another one
                self._end()
                raise
        raise Timeout(
            "the process that finds Korean nouns ended before it answered",
            operation="analyze",
            hint="it needs about 350 MiB of memory; try again",
        )

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            require()
            code = "from shadowswitch.storage.backends.fts5.nouns import serve; serve()"
            try:
                self._process = start_python(
                    code, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )  # fmt: skip
            except OSError as error:
                raise shortage(error, "analyze", "kiwi") or error from error
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(OSError):
                process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()

    def close(self) -> None:
        """End the process; a later question starts another one."""
        with self._alone():
            self._end()


def _answer(process: subprocess.Popen[bytes], words: list[str]) -> list[list[str]]:
    assert process.stdin is not None
    assert process.stdout is not None
    question, line, until = memoryview(msgspec.json.encode(words) + b"\n"), b"", SYSTEM.monotonic() + WAIT_S
    poll = select.poll()
    poll.register(process.stdout, select.POLLIN)
    os.set_blocking(process.stdin.fileno(), False)
    poll.register(process.stdin, select.POLLOUT)
    while not line.endswith(b"\n"):
        ready = dict(poll.poll(max(0.0, until - SYSTEM.monotonic()) * 1000))
        if not ready:
            raise _late()
        if process.stdin.fileno() in ready and question:
            question = question[os.write(process.stdin.fileno(), question) :]
            if not question:
                poll.unregister(process.stdin)
        if process.stdout.fileno() in ready:
            received = os.read(process.stdout.fileno(), RECEIVED_MAX)
            if not received:
                raise EOFError
            line += received
    return msgspec.json.decode(line, type=list[list[str]])


def _late() -> Timeout:
    return Timeout(
        f"Korean nouns were not found within {WAIT_S:g} s",
        operation="analyze",
        hint="the machine may be overloaded; try again",
    )


KIWI = Kiwi()
"""That of this process."""
atexit.register(KIWI.close)
os.register_at_fork(after_in_child=KIWI.forget)


def is_installed() -> bool:
    """Whether kiwi can be had."""
    return find_spec("kiwipiepy") is not None


def require() -> None:
    """Raise InvalidConfig, with the command that installs it, if the package is missing."""
    if not is_installed():
        raise InvalidConfig(
            "the tokenizer korean needs the package kiwipiepy, which is not installed",
            hint="pip install 'shadowswitch[korean]'",
        )


def serve() -> None:
    """The process: a line with words for a line with the nouns of each, until the parent ends."""
    import kiwipiepy  # here, for it is an extra, and slow to load

    kiwi = kiwipiepy.Kiwi(num_workers=0, load_typo_dict=False, load_multi_dict=False, integrate_allomorph=False)
    for line in sys.stdin.buffer:
        words = msgspec.json.decode(line, type=list[str])
        answer = [_nouns([(token.form, str(token.tag)) for token in kiwi.tokenize(word)]) for word in words]
        sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
        sys.stdout.buffer.flush()


def _nouns(tokens: Sequence[tuple[str, str]]) -> list[str]:
    found: list[str] = []
    is_open = False
    for form, tag in tokens:
        if tag == SUFFIX and is_open:
            found[-1] += form
        elif tag in NOUNS:
            found.append(form)
        is_open = tag in NOUNS or (tag == SUFFIX and is_open)
    return found
