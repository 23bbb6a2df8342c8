"""The numbers that a log of events has reached. A client that names a later one read it from another data directory."""

from __future__ import annotations

from shadowswitch.model.errors import PlaceLost


def check_reached(after: int, span: tuple[int, int], what: str = "event") -> tuple[int, int]:
    """The oldest and the newest entry of a log. Raises PlaceLost for a number beyond them."""
    oldest, newest = span
    if after > newest:
        raise PlaceLost(
            f"there is no {what} {after}, the newest is {newest}: the number is from another data directory",
            hint=f"begin again with after={oldest - 1}, and read the present state of what you keep",
        )
    return span
