"""The embedder of an index: a function of the host, `module:function`, that makes vectors of texts.

It is called with a list of texts and returns a vector for each. A process of its own runs it (`storage.asked_process`),
one for each process that writes or searches by text: a model needs memory and seconds to load, holds the GIL, and may
crash. A text that the cache knows is not embedded again.
"""

from __future__ import annotations

import importlib
import math
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from shadowswitch.model.errors import InternalFailure, InvalidConfig
from shadowswitch.storage import disk
from shadowswitch.storage.asked_process import AskedProcess, patience, serve
from shadowswitch.storage.backends.vector.cache import Cache, data_of, hash_of
from shadowswitch.storage.backends.vector.models import EMBEDDERS
from shadowswitch.storage.backends.vector.options import vector_of
from shadowswitch.storage.clock import SYSTEM
from shadowswitch.storage.data_directory import EMBEDDINGS

BATCH = 64
"""Texts of one question."""
PAUSE_S = 0.001
WAIT_S = 120.0
"""For the vectors of a batch, with the time to load the model."""
NONE = b""
TEXT_CHARS_MAX = 100_000
"""Of a text; the rest is not embedded."""


def check_embedder(name: Any) -> str:
    """The option `embedder`: a function, or the name of one of the library. Imports the packages above its module.

    Raises InvalidConfig.
    """
    if isinstance(name, str) and name in EMBEDDERS:
        return name
    hint = '"embedder": "my_package.my_module:embed", a function that gives a vector for each of a list of texts;'
    hint += f" or one of the library: {', '.join(EMBEDDERS)}"
    module, _, function = name.partition(":") if isinstance(name, str) else ("", "", "")
    if not module or not function:
        raise InvalidConfig(f"embedder is {name!r:.80}", hint=hint)
    try:
        is_there = find_spec(module) is not None
    except (ImportError, ValueError):
        is_there = False
    if not is_there:
        raise InvalidConfig(f"the module {module} of the embedder cannot be found", hint=hint)
    return str(name)


def text_of(fields: Mapping[str, Any], names: Sequence[str]) -> str:
    """What is embedded of a record: the texts in these fields, one below the other; "" for none."""
    found = [value for name in names if isinstance(value := fields.get(name), str) and value.strip()]
    return "\n".join(found)[:TEXT_CHARS_MAX]


class Embedder:
    """The embedder of the indexes with the same options in a data directory. Any thread."""

    def __init__(self, options: Mapping[str, Any], data: Path | None) -> None:
        self._options = options
        name = options["embedder"]
        code = f"from shadowswitch.storage.backends.vector.embedder import serve_vectors; serve_vectors({name!r})"
        hint = f"see whether {name} works by itself"
        self._process = AskedProcess(code, f"the embedder {name}", lambda: WAIT_S, hint)
        self._cache = Cache(file_of(options, data) if data is not None else None, 4 * options["dimensions"])
        self._is_loaded = False
        """Whether it has answered: the first answer takes the time to load the model."""

    def vectors(self, texts: Sequence[str], is_kept: bool = True, wait_s: float = math.inf) -> list[bytes]:
        """The vector of each text, as it lies in an index; `NONE` for one of which the embedder makes none: a number is
        not finite, or all are 0. Raises InternalFailure for an embedder that fails, Timeout,
        ResourceExhausted, and InvalidConfig for vectors of other dimensions. `is_kept`: they are needed again.
        `wait_s` is for each batch; by default so long as a model may need."""
        found: list[bytes] = []
        for first in range(0, len(texts), BATCH):
            if first:
                SYSTEM.sleep(PAUSE_S)  # a search by text gets its turn
            found += self._batch(texts[first : first + BATCH], is_kept, wait_s)
        return found

    def _batch(self, texts: Sequence[str], is_kept: bool, wait_s: float) -> list[bytes]:
        keys = [hash_of(text) for text in texts]
        with self._process.alone(min(wait_s, patience())):  # of two that ask for the same text, the second one finds it
            known = self._cache.find(keys)
            missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
            if missing:
                begun = SYSTEM.monotonic()
                made = dict(zip(missing, self._made(list(missing.values()), wait_s), strict=True))
                if is_kept:
                    self._cache.keep(made, SYSTEM.monotonic() - begun, not self._is_loaded)
                self._is_loaded = True
                known.update(made)
        return [known[key] for key in keys]

    def _made(self, texts: list[str], wait_s: float) -> list[bytes]:
        answers = self._process.ask(texts, wait_s)
        name, dimensions = self._options["embedder"], self._options["dimensions"]
        if len(answers) != len(texts):
            what = f"the embedder {name} gave {len(answers)} vectors for {len(texts)} texts"
            raise InternalFailure(what, hint="mend it")
        wrong = next((answer for answer in answers if len(answer) != dimensions), None)
        if wrong is not None:
            what = f"the embedder {name} gave {len(wrong)} numbers for a text, not {dimensions}: {wrong!r:.80}"
            raise InvalidConfig(what, hint="say in dimensions what it gives, or mend it")
        made = [vector_of(answer, self._options) for answer in answers]
        return [vector.astype("<f4").tobytes() if vector is not None else NONE for vector in made]

    def close(self) -> None:
        """End the process and close the cache; a later call begins anew."""
        self._process.close()
        self._cache.close()


def identity(options: Mapping[str, Any]) -> str:
    """What vectors of a text depend on, as a name."""
    parts = [options[name] for name in ("embedder", "embedder_version", "dimensions", "metric")]
    return blake2b(msgspec.json.encode(parts), digest_size=16).hexdigest()


def file_of(options: Mapping[str, Any], data: Path) -> Path:
    """The vectors of an embedder in a data directory."""
    return data / EMBEDDINGS / f"{identity(options)}.sqlite"


_guard = threading.Lock()
_embedders: dict[tuple[str, Path | None, disk.Identity | None], Embedder] = {}
os.register_at_fork(after_in_child=_embedders.clear)  # a child opens its own files


def embedder_of(options: Mapping[str, Any], shard: Path) -> Embedder:
    """That of this process for an index, of which a shard is there. Any thread."""
    data = data_of(shard)
    key = (identity(options), data, disk.identity(data) if data is not None else None)
    with _guard:
        found = _embedders.get(key)
        if found is None:
            found = _embedders[key] = Embedder(options, data)
        return found


def serve_vectors(name: str) -> None:
    """The process: the vectors of each list of texts, until the parent ends."""
    module, _, function = EMBEDDERS.get(name, name).partition(":")
    loaded: list[Callable[[list[str]], Any]] = []

    def vectors(texts: list[str]) -> list[list[float]]:
        if not loaded:  # here, so that an error is an answer
            loaded.append(getattr(importlib.import_module(module), function))
        return [[float(number) for number in vector] for vector in loaded[0](texts)]

    serve(vectors)
