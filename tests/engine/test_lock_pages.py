"""The list of locks by page: a lock that ends or is granted between two pages moves none of the others."""

from __future__ import annotations

import pytest

from shadowswitch import Engine, InvalidConfig


def test_pages_have_every_lock_once_in_the_order_of_the_whole_list(engine: Engine) -> None:
    for branch in ("b", "a"):
        engine.create_branch(branch)
        for number in range(5):
            engine.acquire_lock(branch, "MANUAL", "me", "RESOURCE", "t", f"r{number}")
    whole = engine.locks()
    assert [(lock.branch, lock.resource_id) for lock in whole] == [(b, f"r{n}") for b in "ba" for n in range(5)]
    pages, after = list[str](), ""
    while page := engine.locks(limit=3, after=after):
        pages += [lock.lock_id for lock in page]
        after = page[-1].place
        engine.release_lock(page[-1].lock_id, page[-1].token)  # its place keeps its meaning
        if len(pages) == 3:
            pages.append(engine.acquire_lock("a", "MANUAL", "me", "RESOURCE", "t", "late").lock_id)
            late = pages.pop()
    assert pages == [lock.lock_id for lock in whole] + [late]
    assert [lock.branch for lock in engine.locks("a", 2)] == ["a", "a"]
    assert {lock.branch for lock in engine.locks(wanted=lambda name: name == "b")} == {"b"}


@pytest.mark.parametrize("after", ["x", "1-2", "2026-01-01T00:00:00+00:00/", "2026-13-01/1-a", 7])
def test_a_text_that_is_no_place_is_refused(engine: Engine, after: str) -> None:
    with pytest.raises(InvalidConfig, match="no place of a lock"):
        engine.locks(after=after)
    with pytest.raises(InvalidConfig, match="limit"):
        engine.locks(limit=0)
