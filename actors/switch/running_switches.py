"""Which shadows are being switched to. One object for each engine."""

from __future__ import annotations


class RunningSwitches:
    """The shadows that Switchers are at work on, by the urn of the actor. Any thread."""

    def __init__(self) -> None:
        self._shadows: dict[str, str] = {}

    def begin(self, switcher: str, shadow_id: str) -> None:
        """A Switcher begins with a shadow."""
        self._shadows[switcher] = shadow_id

    def end(self, switcher: str) -> None:
        """A Switcher has come to its end."""
        self._shadows.pop(switcher, None)

    def has(self, shadow_id: str) -> bool:
        """Is a Switcher at work on the shadow?"""
        return shadow_id in list(self._shadows.values())

    def shadows(self) -> list[str]:
        """Every shadow that a Switcher is at work on."""
        return list(self._shadows.values())
