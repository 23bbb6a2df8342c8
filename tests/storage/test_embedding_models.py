"""The embedders of the library."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from shadowswitch.storage.backends.vector import models

installed = pytest.mark.skipif(not models.is_installed(), reason="pip install wordllama")
Embed = Callable[[list[str]], list[list[float]]]


def nearness(embed: Embed, one: str, other: str) -> float:
    vectors = np.asarray(embed([one, other]))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return float(vectors[0] @ vectors[1])


@pytest.mark.parametrize(
    ("embed", "dimensions"),
    [
        (models.words, models.WORDS_DIMENSIONS),
        pytest.param(models.word_llama, models.WORD_LLAMA_DIMENSIONS, marks=installed),
    ],
)
def test_a_text_has_the_same_vector_every_time(embed: Embed, dimensions: int) -> None:
    texts = ["the event loop", "!", "한글 텍스트", "x" * 10_000, "the event loop"]
    vectors = np.asarray(embed(texts))
    assert vectors.shape == (len(texts), dimensions)
    assert np.isfinite(vectors).all()
    assert vectors[0].tolist() == pytest.approx(vectors[-1].tolist(), abs=1e-6)


def test_words_finds_parts_of_words() -> None:
    assert nearness(models.words, "loops run", "a loop that runs") > nearness(
        models.words, "loops run", "bread at home"
    )


@installed
def test_a_real_model_finds_what_shares_no_word() -> None:
    near = nearness(models.word_llama, "concurrency", "asynchronous programming")
    assert near > nearness(models.word_llama, "concurrency", "baking bread at home") + 0.05
