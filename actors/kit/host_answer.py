"""The answer of a function of the host: a health check, a validator, a merge condition."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from shadowswitch.model.errors import InvalidConfig

Reasons = str | Iterable[str] | None
"""None when all is well, else a reason, or several."""


def reasons_of(what: str, answer: object) -> list[str]:
    """The reasons in an answer; an empty text is none. Raises InvalidConfig for an answer that is no text.

    True and False are refused: each could mean that all is well, or that it is not.
    """
    if answer is None:
        return []
    if isinstance(answer, str):
        return [answer] if answer else []
    if isinstance(answer, Iterable) and not isinstance(answer, Mapping | bytes | bytearray):
        texts = list(answer)
        if all(isinstance(text, str) for text in texts):
            return [text for text in texts if text]
        answer = texts
    raise InvalidConfig(
        f"{what} returned {answer!r:.80}, which is neither a reason nor None",
        operation="ask the host",
        hint="return None when all is well, else the reason as a text, or a list of texts",
    )
