"""Figures and pages of shadows over HTTP read as many rows as they answer with."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from shadowswitch import Engine
from shadowswitch.service.http.access import LOCAL, Access, Caller, Scope
from shadowswitch.service.http.host import Host, Options
from shadowswitch.service.http.routes import metrics, shadows
from tests.support import inside
from tests.support.engine_helpers import KIND, TYPES, fill, live
from tests.support.external_helpers import begin
from tests.support.many_shadows import ended

OpenEngine = Callable[..., Engine]
OF_MAIN = Caller("of main", frozenset([Scope.READ]), ("ma*",))


@pytest.fixture
def host(open_engine: OpenEngine) -> Host:
    """600 cancelled shadows of two branches before a live one, and a build under way."""
    engine = open_engine(janitor_interval_s=3600.0)
    for name in ("main", "other"):
        engine.create_branch(name)
    fill(engine, 20)
    ended(engine, 300)
    ended(engine, 300, "other")
    live(engine)
    begin(engine)
    engine.count_shadow_states()  # the first look reads every row
    return Host(engine, Access(), Options())


@pytest.fixture
def decoded(host: Host, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return inside.count_decoded_shadows(monkeypatch, inside.catalog(host.engine))


@pytest.mark.parametrize(("caller", "cancelled"), [(LOCAL, 600), (OF_MAIN, 300)])
def test_the_figures_read_few_rows(host: Host, decoded: list[str], caller: Caller, cancelled: int) -> None:
    text = metrics.exposition(host, caller).decode()
    assert f'shadowswitch_shadows{{state="CANCELLED"}} {cancelled}.0' in text
    assert text.count("shadowswitch_build_progress_percent{") == 1
    assert "shadowswitch_build_records_per_second " in text
    overview = shadows.overview[0].fn(host, caller)
    assert overview.total_shadows == cancelled + 2
    assert overview.state_distribution == {"CANCELLED": cancelled, "ACTIVE": 1, "BUILDING": 1}
    assert [str(one.state) for one in overview.recent_activity[:3]] == ["BUILDING", "ACTIVE", "CANCELLED"]
    assert len(overview.recent_activity) == shadows.RECENT
    assert 0 < len(decoded) < 60


def test_the_estimate_of_a_start_reads_the_last_live_build(host: Host, decoded: list[str]) -> None:
    (found,) = host.engine.shadows(state="BUILDING")
    pace = host.engine.shadow(host.engine.index("main", KIND).shadow_index_id).records_per_second
    assert pace is not None
    assert found.resource_types == TYPES
    assert shadows.estimate(host, found) == 1
    assert 0 < len(decoded) < 20


def test_the_estimate_is_by_the_stored_pace(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = host.engine.shadows(state="BUILDING")
    live_id = host.engine.index("main", KIND).shadow_index_id
    pace = host.engine.shadow(live_id).records_per_second
    assert pace is not None
    monkeypatch.setattr(host.engine, "count", lambda *_: pace * 60 * 5 - 1)
    assert shadows.estimate(host, found) == 5 * len(TYPES)


@pytest.mark.parametrize(("caller", "whole"), [(LOCAL, 602), (OF_MAIN, 302)])
def test_a_page_reads_its_own_rows(host: Host, decoded: list[str], caller: Caller, whole: int) -> None:
    first = shadows.list_all[0].fn(host, caller, limit=3, newest_first=True)
    assert [str(one.state) for one in first.shadows] == ["BUILDING", "ACTIVE", "CANCELLED"]
    assert (first.total_count, first.active_builds, first.ready_for_switch) == (whole, 1, 0)
    assert first.next_after is not None
    second = shadows.list_all[0].fn(host, caller, after=first.next_after, limit=3, newest_first=True)
    assert [one.generation for one in second.shadows] < [one.generation for one in first.shadows]
    assert len(decoded) < 20
    oldest = shadows.list_all[0].fn(host, caller, in_state="ACTIVE", limit=1)
    assert (oldest.total_count, len(oldest.shadows), oldest.shadows[0].branch_name) == (1, 1, "main")
