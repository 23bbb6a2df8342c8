"""The values of a graph index."""

from __future__ import annotations

from typing import Literal

import msgspec

from shadowswitch.model.kinds.asking import Key

Direction = Literal["out", "in"]


class Edge(msgspec.Struct, frozen=True, order=True):
    """An edge from `source` to `target`, both keys. `record` is the key of the record that has it."""

    source: Key
    target: Key
    kind: str
    record: Key


class Reached(msgspec.Struct, frozen=True):
    """A record that depends on another one, over `depth` edges at the least; `edge` is the last one on the way."""

    key: Key
    depth: int
    edge: Edge
