"""The options of a `vector` index, and the vectors of records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from shadowswitch.model.errors import InvalidConfig

DIMENSIONS_MAX = 8192
EXACT_MAX_MOST = 1 << 40
METRICS = ("cos", "ip", "l2")
EXACT_MAX = 250_000
"""Vectors of a shard up to which a search is exact, where the option `exact_max` says nothing else."""
OWN = ("vector_field", "embedder", "embedder_version", "field", "dimensions", "metric", "exact_max")
EMBEDDED_FIELDS_MAX = 20
Floats = npt.NDArray[np.float32]
_HINT = (
    '"vector_field": "embedding", "dimensions": 384 for records that have vectors;'
    ' "embedder": "my_module:embed", "field": "text", "dimensions": 384 for texts that are embedded'
)


def check_options(build_config: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the backend but `embedder`, in their canonical form. Raises InvalidConfig."""
    dimensions, metric = build_config.get("dimensions"), build_config.get("metric", "cos")
    if isinstance(dimensions, bool) or not isinstance(dimensions, int) or not 1 <= dimensions <= DIMENSIONS_MAX:
        raise InvalidConfig(f"dimensions is {dimensions!r:.80}", hint=f"use 1 to {DIMENSIONS_MAX}; {_HINT}")
    if metric not in METRICS:
        raise InvalidConfig(f"metric is {metric!r:.80}", hint=f"use {', '.join(METRICS)}")
    return {"dimensions": dimensions, "metric": metric, **_source(build_config), **_exact_max(build_config)}


def _exact_max(build_config: Mapping[str, Any]) -> dict[str, int]:
    exact_max = build_config.get("exact_max")
    if exact_max is None:
        return {}
    if isinstance(exact_max, bool) or not isinstance(exact_max, int) or not 1 <= exact_max <= EXACT_MAX_MOST:
        hint = f"use 1 to {EXACT_MAX_MOST}, the vectors of a shard up to which a search is exact"
        raise InvalidConfig(f"exact_max is {exact_max!r:.80}", hint=hint)
    return {"exact_max": exact_max}


def _source(build_config: Mapping[str, Any]) -> dict[str, Any]:
    """Where the vectors come from."""
    vector_field, field = build_config.get("vector_field"), build_config.get("field")
    if build_config.get("embedder") is None:
        if not isinstance(vector_field, str) or not vector_field:
            raise InvalidConfig(f"vector_field is {vector_field!r:.80}, not the field that has the vectors", hint=_HINT)
        if field is not None or build_config.get("embedder_version") is not None:
            raise InvalidConfig("field and embedder_version are for an embedder, and none is named", hint=_HINT)
        return {"vector_field": vector_field}
    version, names = build_config.get("embedder_version", "1"), [field] if isinstance(field, str) else field
    if vector_field is not None:
        raise InvalidConfig("the records have vectors (vector_field), or an embedder makes them: not both", hint=_HINT)
    if not isinstance(version, str) or not version:
        raise InvalidConfig(f"embedder_version is {version!r:.80}, not a text", hint='"embedder_version": "2"')
    if not isinstance(names, list | tuple) or not 1 <= len(names) <= EMBEDDED_FIELDS_MAX:
        raise InvalidConfig(f"field is {field!r:.80}, not the field whose text is embedded, or some", hint=_HINT)
    if not all(isinstance(name, str) and name for name in names):
        raise InvalidConfig(f"field is {field!r:.80}: not all are names", hint=_HINT)
    return {"embedder_version": version, "field": list(names)}


def vector_of(value: Any, options: Mapping[str, Any]) -> Floats | None:
    """A vector as the index has it: of length 1 for the metric `cos`. None for what is no vector of its dimensions."""
    if not isinstance(value, list | tuple | np.ndarray) or len(value) != options["dimensions"]:
        return None
    try:
        made = np.asarray(value, dtype=np.float32)
    except (TypeError, ValueError, OverflowError):
        return None
    if made.ndim != 1 or not np.isfinite(made).all():
        return None
    if options["metric"] != "cos":
        return made
    length = float(np.linalg.norm(made.astype(np.float64)))
    return (made / np.float32(length)).astype(np.float32) if length > 0 and np.isfinite(length) else None
