"""Checks of the arguments of public calls. Each raises InvalidConfig before anything begins."""

from __future__ import annotations

import math

from shadowswitch.model.errors import InvalidConfig

WAIT_MAX_S = 1e9
"""Thirty years. The operating system counts no longer wait."""


def check_seconds(name: str, value: float) -> float:
    """A wait in seconds, limited to what every clock can add. Raises InvalidConfig for a value that is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        raise InvalidConfig(f"{name} must be a number of seconds, not {value!r:.80}", hint="say 10, or 0.5")
    return max(-WAIT_MAX_S, min(WAIT_MAX_S, value))


def check_whole(name: str, value: int, least: int) -> None:
    """Raise InvalidConfig unless a value is a whole number of at least `least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InvalidConfig(f"{name} must be a whole number of at least {least}, not {value!r}")


def check_number(name: str, value: float, most: float) -> None:
    """Raise InvalidConfig unless a value is a finite number from 0 to `most`."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not 0 <= value <= most:
        limit = f"from 0 to {most:g}" if math.isfinite(most) else "of at least 0"
        raise InvalidConfig(f"{name} must be a number {limit}, not {value!r}")


def check_text(name: str, value: str, most: int) -> str:
    """A text that the catalog can store. Raises InvalidConfig for any other value."""
    if not isinstance(value, str) or len(value) > most:
        raise InvalidConfig(f"{name} must be a string of at most {most} characters", hint=f"shorten the {name}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidConfig(f"{name} is not valid Unicode", hint="remove lone surrogates") from error
    return value
