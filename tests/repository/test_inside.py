"""`tests.support.inside`, the door to the insides of the product: every place that it names exists."""

from __future__ import annotations

import pkgutil

import pytest

from tests.support import inside


@pytest.mark.parametrize("place", [*inside.Limit, *inside.Step], ids=str)
def test_every_limit_and_every_step_is_where_the_door_says(place: inside.Limit | inside.Step) -> None:
    found = pkgutil.resolve_name(place.value)
    assert isinstance(found, int | float) == isinstance(place, inside.Limit)


def test_no_two_names_of_the_door_mean_the_same_place() -> None:
    for names in (inside.Limit, inside.Step):
        assert len({place.value for place in names}) == len(names.__members__)
