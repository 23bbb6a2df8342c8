"""The options of a `vector` index, and the vectors of records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from shadowswitch.model.errors import InvalidConfig

DIMENSIONS_MAX = 8192
METRICS = ("cos", "ip", "l2")
OWN = ("vector_field", "dimensions", "metric")
Floats = npt.NDArray[np.float32]
_HINT = '"vector_field": "embedding", "dimensions": 384'


def check_options(build_config: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the backend, in their canonical form. Raises InvalidConfig."""
    field, dimensions = build_config.get("vector_field"), build_config.get("dimensions")
    metric = build_config.get("metric", "cos")
    if not isinstance(field, str) or not field:
        raise InvalidConfig(f"vector_field is {field!r:.80}, not the field that has the vectors", hint=_HINT)
    if isinstance(dimensions, bool) or not isinstance(dimensions, int) or not 1 <= dimensions <= DIMENSIONS_MAX:
        raise InvalidConfig(f"dimensions is {dimensions!r:.80}", hint=f"use 1 to {DIMENSIONS_MAX}; {_HINT}")
    if metric not in METRICS:
        raise InvalidConfig(f"metric is {metric!r:.80}", hint=f"use {', '.join(METRICS)}")
    return {"vector_field": field, "dimensions": dimensions, "metric": metric}


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
