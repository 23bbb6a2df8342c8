"""Small embedders that always give the same vectors. Each appends what it was asked to the file of `LOG`."""

from __future__ import annotations

import os
from hashlib import blake2b
from pathlib import Path

LOG = "SHADOWSWITCH_TEST_EMBEDDED"
"""The environment variable with the name of a file: one line for each text."""
REFUSED = "SHADOWSWITCH_TEST_REFUSED"
"""With the name of a file: while it is there, `embed` raises."""
DIMENSIONS = 64


def embed(texts: list[str]) -> list[list[float]]:
    """A bag of words: each word adds 1 to one of the dimensions. A text of "?" alone has no vector."""
    refused = os.environ.get(REFUSED)
    if refused and Path(refused).exists():
        raise RuntimeError("the model is away")
    log = os.environ.get(LOG)
    if log:
        with Path(log).open("a", encoding="utf-8") as file:
            file.writelines(text.replace("\n", " ") + "\n" for text in texts)
    return [_words(text) for text in texts]


def embed_backwards(texts: list[str]) -> list[list[float]]:
    """Another model: the same words, other dimensions."""
    return [vector[::-1] for vector in embed(texts)]


def embed_wrong(texts: list[str]) -> list[list[float]]:
    """A model of other dimensions than it is said to have."""
    return [[1.0, 2.0] for _ in texts]


def _words(text: str) -> list[float]:
    vector = [0.0] * DIMENSIONS
    for word in text.lower().replace("?", " ").split():
        vector[blake2b(word.encode(), digest_size=2).digest()[0] % DIMENSIONS] += 1.0
    return vector if any(vector) else [float("nan")] * DIMENSIONS
