"""Embedders that come with the library, for a start, for tests and for the demo. `EMBEDDERS` has them by name.

words        384 numbers, no package: each word and each three letters of one count in a place by their hash. It finds
             texts that share words or parts of words, and no meaning (Weinberger et al., "Feature hashing", 2009)
word_llama   256 numbers: WordLlama, a model of 16 MB that its package has (extra `wordllama`); English, MIT licence
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from shadowswitch.model.errors import InvalidConfig

EMBEDDERS = {name: f"{__name__}:{name}" for name in ("words", "word_llama")}
WORDS_DIMENSIONS, WORD_LLAMA_DIMENSIONS = 384, 256
PART = 3
PART_WEIGHT = 0.3


def words(texts: list[str]) -> list[list[float]]:
    """See the module."""
    return [_hashed(text) for text in texts]


def word_llama(texts: list[str]) -> list[list[float]]:
    """See the module. Raises InvalidConfig, with the command that installs it, without the package."""
    found: list[list[float]] = _model().embed(texts, norm=True).tolist()
    return found


def is_installed() -> bool:
    """Whether `word_llama` can be had."""
    return find_spec("wordllama") is not None


@functools.cache
def _model() -> Any:
    if not is_installed():
        raise InvalidConfig("word_llama needs the package wordllama", hint="pip install 'shadowswitch[wordllama]'")
    import wordllama  # here, for it is an extra

    folder = Path(wordllama.__file__).parent  # the package has the model: nothing is fetched
    return wordllama.WordLlama.load(cache_dir=folder, disable_download=True)


def _hashed(text: str) -> list[float]:
    vector = [0.0] * WORDS_DIMENSIONS
    vector[0] = 1e-3  # a text without words has a direction, too
    for feature, weight in _features(text.lower()):
        digest = int.from_bytes(blake2b(feature.encode("utf-8", "replace"), digest_size=4).digest(), "big")
        vector[digest % WORDS_DIMENSIONS] += weight if digest >> 31 else -weight
    return vector


def _features(text: str) -> Iterator[tuple[str, float]]:
    for word in "".join(letter if letter.isalnum() else " " for letter in text).split():
        yield word, 1.0
        padded = f" {word} "
        for place in range(len(padded) - PART + 1):
            yield padded[place : place + PART], PART_WEIGHT
