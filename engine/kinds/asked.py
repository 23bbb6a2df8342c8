"""One query of a kind, asked of the reader of a backend. On the caller's thread."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from shadowswitch.engine.arguments import check_seconds
from shadowswitch.model.errors import InvalidConfig
from shadowswitch.model.kinds.asking import Asking, check_call, check_kind
from shadowswitch.model.search.bounds import TimeLimit
from shadowswitch.storage.backends.kinds import Kinds, kinds_of
from shadowswitch.storage.backends.protocol import IndexReader
from shadowswitch.storage.clock import Clock

T = TypeVar("T")
Use = Callable[[Callable[[IndexReader], T]], T]
"""Makes one call of the backend's reader."""


class Asked:
    """The query kinds of one reader. Any thread, one call at a time."""

    def __init__(self, use: Use[Any], resource_types: Sequence[str], clock: Clock, timeout_s: float) -> None:
        self._use = use
        self._types = resource_types
        self._clock = clock
        self._timeout_s = timeout_s

    def kinds(self) -> Kinds:
        """The calls of each kind that the index answers."""
        found: Kinds = self._use(kinds_of)
        return found

    def of(self, kind: str) -> Callable[..., Any]:
        """Makes calls of a kind: `made(call, timeout_s, **arguments)`. Raises InvalidConfig if the index has no such
        kind."""
        check_kind(self.kinds(), kind)
        return self._made

    def query(self, kind: str, call: str, arguments: Mapping[str, Any], timeout_s: float | None) -> Any:
        """One call by its name, with arguments from outside. Raises InvalidConfig, and what the call raises."""
        check_call(self.kinds(), kind, call)
        if not isinstance(arguments, Mapping):
            raise InvalidConfig(f"arguments are {arguments!r:.80}, not an object", operation="query")
        self._use(lambda reader: _check_arguments(getattr(reader, call), call, arguments))
        return self._made(call, timeout_s, **arguments)

    def _made(self, call: str, timeout_s: float | None = None, **arguments: Any) -> Any:
        seconds = self._timeout_s if timeout_s is None else check_seconds("timeout_s", timeout_s)
        asking = Asking(TimeLimit(seconds, self._clock.monotonic, "query"), self._types)
        return self._use(lambda reader: getattr(reader, call)(asking, **arguments))


def _check_arguments(method: Callable[..., Any], call: str, arguments: Mapping[str, Any]) -> None:
    signature = inspect.signature(method)
    try:
        signature.bind(None, **{str(name): value for name, value in arguments.items()})
    except TypeError as error:
        has = ", ".join(list(signature.parameters)[1:])
        raise InvalidConfig(
            f"{call} cannot be asked: {error}", operation="query", hint=f"its arguments: {has}"
        ) from error
