"""The cost of a build before it begins: what it would read and embed, in library, HTTP and command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shadowswitch import Engine, InvalidConfig, Put, Timeout, UnknownBranch
from tests.support.cli_helpers import Cli
from tests.support.http_helpers import serving

WORDS: dict[str, Any] = {"backend": "vector", "embedder": "words", "field": "text", "dimensions": 384, "shards": 2}
N = 90


def fill(engine: Engine) -> None:
    """90 notes, of which 10 have no text and 30 the text of another one; and 5 records of another type."""
    engine.create_branch("main")
    texts = ["" if n < 10 else f"note {n % 50}" for n in range(N)]
    engine.write("main", [Put("note", f"n{n}", {"text": text}) for n, text in enumerate(texts)])
    engine.write("main", [Put("other", f"o{n}", {"text": f"other {n}"}) for n in range(5)])


def test_the_texts_that_are_not_kept_are_counted_and_timed_by_the_last_rate(
    open_engine: Callable[..., Engine], tmp_path: Path
) -> None:
    engine = open_engine()
    fill(engine)
    before = engine.build_cost("main", "VECTOR_INDEX", ["note"], WORDS)
    assert (before.records, before.texts, before.to_embed, before.embedding_s) == (N, 80, 50, None)
    assert not (tmp_path / "data" / "embeddings").exists()  # a count leaves nothing
    assert engine.rebuild("main", "VECTOR_INDEX", ["note"], WORDS).success
    after = engine.build_cost("main", "VECTOR_INDEX", ["note"], WORDS)
    assert (after.to_embed, after.embedding_s) == (0, 0.0)
    both = engine.build_cost("main", "VECTOR_INDEX", ["note", "other"], WORDS)
    assert (both.records, both.texts, both.to_embed) == (N + 5, 85, 5)
    assert both.embedding_s is not None
    assert both.embedding_s > 0
    other = engine.build_cost("main", "VECTOR_INDEX", ["note"], {**WORDS, "embedder_version": "2"})
    assert (other.to_embed, other.embedding_s) == (50, None)


def test_an_index_that_embeds_nothing_costs_the_reading_of_its_records(open_engine: Callable[..., Engine]) -> None:
    engine = open_engine()
    fill(engine)
    carried = {"backend": "vector", "vector_field": "vector", "dimensions": 3}
    for index_type, config in (("SEARCH_INDEX", None), ("VECTOR_INDEX", carried)):
        found = engine.build_cost("main", index_type, ["note", "other", "absent"], config)
        assert (found.records, found.texts, found.to_embed, found.embedding_s) == (N + 5, 0, 0, 0.0)


def test_wrong_arguments_are_refused(open_engine: Callable[..., Engine]) -> None:
    engine = open_engine()
    fill(engine)
    with pytest.raises(UnknownBranch):
        engine.build_cost("absent", "VECTOR_INDEX", ["note"], WORDS)
    with pytest.raises(InvalidConfig, match="dimensions"):
        engine.build_cost("main", "VECTOR_INDEX", ["note"], {**WORDS, "dimensions": 0})
    with pytest.raises(InvalidConfig, match="timeout_s"):
        engine.build_cost("main", "VECTOR_INDEX", ["note"], WORDS, timeout_s="soon")  # type: ignore[arg-type]
    with pytest.raises(Timeout, match="were not read in time"):
        engine.build_cost("main", "VECTOR_INDEX", ["note"], WORDS, timeout_s=0.0)


def test_a_command_and_http_say_it_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, cli = tmp_path / "data", Cli(capsys)
    with Engine.open(data) as engine:
        fill(engine)
    options = [f"--option={name}={value}" for name, value in WORDS.items() if name != "backend"]
    asked = ["cost", "main", "VECTOR_INDEX", "--resource-type", "note", "--backend", "vector", *options, "--data", data]
    with serving(data, "--quiet") as server:  # the command works beside it
        shown = cli(*asked)
        assert "90 records to read, 50 texts to embed of 80; the time is unknown" in " ".join(shown.split())
        client = server.client()
        body = {"branch_name": "main", "index_type": "VECTOR_INDEX", "resource_types": ["note"], "build_config": WORDS}
        found = client.post("shadow-index/cost", body)
        assert found == {"records": N, "texts": 80, "to_embed": 50, "embedding_s": None}
        foreign = {**body, "build_config": {**WORDS, "embedder": "tests.support.embedder:embed"}}
        assert "does not load" in client.refused(403, "POST", "shadow-index/cost", foreign)["detail"]
    assert cli.json(*asked) == found
