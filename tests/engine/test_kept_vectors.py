"""Vectors of a model that no index has needed for a month are removed; those of an index are kept."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shadowswitch import Engine, Put
from tests.support.engine_helpers import wait_until

WORDS: dict[str, Any] = {"backend": "vector", "embedder": "words", "field": "text", "dimensions": 384, "shards": 1}
MONTH_S = 30 * 86400


def files(data: Path) -> set[str]:
    return {file.name for file in (data / "embeddings").glob("*.sqlite")}


def age(data: Path, names: set[str], seconds: float) -> None:
    for name in names:
        for path in (data / "embeddings").glob(f"{name}*"):
            os.utime(path, (time.time() - seconds,) * 2)


def test_only_vectors_that_no_index_has_needed_for_a_month_are_removed(
    open_engine: Callable[..., Engine], data_dir: Path
) -> None:
    engine = open_engine()
    engine.create_branch("main")
    engine.write("main", [Put("note", f"n{n}", {"text": f"note {n}"}) for n in range(5)])
    assert engine.rebuild("main", "VECTOR_INDEX", ["note"], WORDS).success
    live = files(data_dir)
    other = engine.start_build("main", "VECTOR_INDEX", ["note"], {**WORDS, "embedder_version": "2"})
    engine.wait_for(other.shadow_index_id, "BUILT")
    engine.cancel_build(other.shadow_index_id)
    unused = files(data_dir) - live
    assert (len(live), len(unused)) == (1, 1)
    engine.close()

    for aged_s, left in ((MONTH_S - 3600, live | unused), (MONTH_S + 3600, live)):
        age(data_dir, live | unused, aged_s)
        engine = open_engine()
        engine.clean_up()
        assert files(data_dir) == left
        engine.close()
    kept = next((data_dir / "embeddings").glob("*.sqlite"))
    assert kept.stat().st_mtime > time.time() - 3600  # it is needed: looked at again in a month
    engine = open_engine()
    wait_until(lambda: engine.index("main", "VECTOR_INDEX").generation > 0)
    assert engine.build_cost("main", "VECTOR_INDEX", ["note"], WORDS).to_embed == 0
    assert engine.build_cost("main", "VECTOR_INDEX", ["note"], {**WORDS, "embedder_version": "2"}).to_embed == 5


def test_a_folder_that_leads_elsewhere_is_left_alone(
    open_engine: Callable[..., Engine], data_dir: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine.sqlite").write_text("not ours")
    os.utime(elsewhere / "mine.sqlite", (1, 1))
    open_engine().close()
    (data_dir / "embeddings").symlink_to(elsewhere)
    engine = open_engine()
    engine.clean_up()
    assert (elsewhere / "mine.sqlite").read_text() == "not ours"
