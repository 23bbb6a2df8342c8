"""The answer of a function of the host: a health check, a validator, a merge condition."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from shadowswitch.model.errors import InvalidConfig

Reasons = str | Iterable[str] | None
"""None (or no texts) when all is well, else a reason, or several. A reason is a text that is not empty."""


def reasons_of(what: str, answer: object) -> list[str]:
    """The reasons in an answer. Raises InvalidConfig for an answer that is no text, and for an empty one.

    True and False are refused, and so is a text without a word: each could mean that all is well, or that it is not.
    """
    if answer is None:
        return []
    if isinstance(answer, Iterable) and not isinstance(answer, str | Mapping | bytes | bytearray):
        answer = list(answer)
    texts: list[Any] = answer if isinstance(answer, list) else [answer]
    if all(isinstance(text, str) and text.strip() for text in texts):
        return texts
    raise InvalidConfig(
        f"{what} returned {answer!r:.80}, which is neither a reason nor None",
        operation="ask the host",
        hint="return None when all is well, else the reason as a text that is not empty, or a list of such texts",
    )
