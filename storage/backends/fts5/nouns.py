"""The nouns of Korean words, by kiwipiepy, whose package is the extra `korean`.

Kiwi holds the GIL for a second or more while it loads, and takes about 330 MiB. So a process of its own runs it: one
for each process that reads or writes such an index, started by the first that does, ended with its parent. It is asked
word by word, without regard to what stands around, so that a word of a query has the nouns that it has in a text.

A noun and its suffix are one noun: `접근성` is not found by `접근`. What is no noun (particles, verbs, endings) is left
out; a word without a noun has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from shadowswitch.model.errors import InvalidConfig
from shadowswitch.storage.asked_process import AskedProcess, serve

WAIT_S = 30.0
"""For the answer to one question, with the time to load."""
KNOWN_MAX = 50_000
"""Words whose nouns are remembered."""
NOUNS = frozenset({"NNG", "NNP", "NNB", "NR", "XR", "SL", "SH", "SN"})
SUFFIX = "XSN"
SLICE_WORDS = 1000
"""So many in one question: a tenth of a second."""
WORD_CHARS_MAX = 1000
"""A longer run of letters is no word, and has no nouns."""
FIRST_WORD = "가"


class Kiwi:
    """The process that runs kiwi. Any thread; one question at a time."""

    def __init__(self) -> None:
        code = "from shadowswitch.storage.backends.fts5.nouns import serve_nouns; serve_nouns()"
        name, hint = "the process that finds Korean nouns", "it needs about 350 MiB of memory"
        self._process = AskedProcess(code, name, lambda: WAIT_S, hint)
        self._known: dict[str, tuple[str, ...]] = {}
        self.close = self._process.close

    def begin(self) -> None:
        """Start the process, unless it runs, and do not wait until it is loaded. Raises as `of`."""
        require()
        self._process.begin()

    def wait(self) -> None:
        """Return once it is loaded. Raises as `of`."""
        self.of([FIRST_WORD])

    @property
    def pid(self) -> int:
        """The id of the process; 0 if none was started."""
        return self._process.pid

    def of(self, words: Sequence[str]) -> list[tuple[str, ...]]:
        """The nouns of each word. Raises InvalidConfig without the package, Timeout, ResourceExhausted."""
        found: dict[str, tuple[str, ...]] = {word: () for word in words if len(word) > WORD_CHARS_MAX}
        asked = [word for word in dict.fromkeys(words) if word not in found]
        for first in range(0, len(asked), SLICE_WORDS):  # another thread gets its turn between two slices
            part = asked[first : first + SLICE_WORDS]
            with self._process.alone():
                unknown = [word for word in part if word not in self._known]
                answers = dict(zip(unknown, map(tuple, self._asked(unknown)), strict=True)) if unknown else {}
                found.update((word, answers[word] if word in answers else self._known[word]) for word in part)
                if len(self._known) + len(answers) > KNOWN_MAX:
                    self._known.clear()
                self._known.update(answers)
        return [found[word] for word in words]

    def _asked(self, words: list[str]) -> list[list[str]]:
        require()
        found: list[list[str]] = self._process.ask(words)
        return found


KIWI = Kiwi()
"""That of this process."""


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


def serve_nouns() -> None:
    """The process: the nouns of each word, until the parent ends."""
    import kiwipiepy  # here, for it is an extra, and slow to load

    kiwi = kiwipiepy.Kiwi(num_workers=0, load_typo_dict=False, load_multi_dict=False, integrate_allomorph=False)

    def nouns(words: list[str]) -> list[list[str]]:
        return [_nouns([(token.form, str(token.tag)) for token in kiwi.tokenize(word)]) for word in words]

    serve(nouns)


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
