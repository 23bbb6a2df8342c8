"""One query of a kind, asked of the reader of a backend. On the caller's thread."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from shadowswitch.engine.arguments import check_seconds
from shadowswitch.model.errors import InvalidConfig
from shadowswitch.model.kinds.asking import Asking, check_kind
from shadowswitch.model.search.bounds import TimeLimit
from shadowswitch.storage.backends.kinds import Kinds, kinds_of
from shadowswitch.storage.backends.protocol import IndexReader
from shadowswitch.storage.clock import Clock

T = TypeVar("T")
TIMEOUT = "timeout_s"
"""Of each call of the library: it is no argument of a query, but stands beside it."""
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

    def query(self, call: str, arguments: Mapping[str, Any], timeout_s: float | None) -> Any:
        """One call by its name, with arguments from outside. Raises InvalidConfig, and what the call raises."""
        self._use(lambda reader: check_arguments(partial(getattr(reader, call), None), call, arguments))
        return self._made(call, timeout_s, **arguments)

    def _made(self, call: str, timeout_s: float | None = None, **arguments: Any) -> Any:
        seconds = self._timeout_s if timeout_s is None else check_seconds("timeout_s", timeout_s)
        asking = Asking(TimeLimit(seconds, self._clock.monotonic, "query"), self._types)
        return self._use(lambda reader: getattr(reader, call)(asking, **arguments))


def check_arguments(method: Callable[..., Any], call: str, arguments: Mapping[str, Any]) -> None:
    """Whether a call takes these arguments. Raises InvalidConfig, which names those that it takes."""
    signature = inspect.signature(method)
    names = [name for name in signature.parameters if name != TIMEOUT]
    try:
        if not isinstance(arguments, Mapping) or TIMEOUT in arguments:
            raise TypeError(f"the arguments are {arguments!r:.80}")
        signature.bind(**{str(name): value for name, value in arguments.items()})
    except TypeError as error:
        hint = f"its arguments: {', '.join(names)}"
        raise InvalidConfig(f"{call} cannot be asked: {error}", operation="query", hint=hint) from error
