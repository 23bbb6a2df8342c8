"""The dashboard in Chromium, on a server process: it shows every event, and its buttons work.

Needs Playwright (extra `test`) and Chromium; without them the tests are skipped, with the reason.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shadowswitch import Engine
from shadowswitch.service.http.access import Scope
from tests.support.engine_helpers import KIND, TYPES, wait_until
from tests.support.http_helpers import Client, Server, serving, token_entry

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WAIT_MS = 30_000
PICTURES = os.environ.get("SHADOWSWITCH_PICTURES", "")
"""A folder for screenshots; `SHADOWSWITCH_PICTURES=docs/images` renews those of the documentation."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here (apt-get install chromium)"),
]
playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path / "data") as started:
        yield started


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    made = server.client()
    made.post("branches", {"name": "feature/user-schema"})
    made.post("branches", {"name": "main"})
    for start in range(0, 2000, 500):
        changes = [
            {"resource_type": TYPES[0], "id": str(n), "fields": {"text": f"hello word{n}"}}
            for n in range(start, start + 500)
        ]
        made.post("branches/main/write", {"changes": changes})
    yield made
    made.close()


def opened(browser: Any, url: str, **options: Any) -> Any:
    """The page. An error on its console fails the test."""
    page = browser.new_context(**options).new_page()
    page.set_default_timeout(WAIT_MS)
    page.complaints = []
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("console", lambda said: page.complaints.append(said.text) if said.type == "error" else None)
    page.goto(url)
    return page


def shows(page: Any, selector: str, text: str) -> None:
    page.locator(selector).filter(has_text=text).first.wait_for()


def picture(page: Any, name: str) -> None:
    if PICTURES:
        page.wait_for_timeout(400)
        page.screenshot(path=str(Path(PICTURES) / f"{name}.png"), full_page=True)


def start(client: Client, **config: Any) -> str:
    body = {"branch_name": "main", "index_type": KIND, "resource_types": TYPES, "build_config": config}
    return str(client.post("shadow-index/start", body)["shadow_index_id"])


def clicked(page: Any, name: str) -> None:
    """Click a button, by its name for screen readers, and confirm."""
    page.get_by_role("button", name=name).click()
    page.locator("#confirm-yes").click()


def test_a_rebuild_is_shown_from_start_to_switch_and_a_button_rolls_back(browser: Any, tmp_path: Path) -> None:
    with serving(tmp_path / "data", SHADOWSWITCH_POINTS="copy.slice=sleep:0.4") as server:
        client = server.client()
        client.post("branches", {"name": "main"})
        fields = {"text": "hello " * 20}
        for first in range(0, 12_000, 2000):
            changes = [{"resource_type": TYPES[0], "id": str(n), "fields": fields} for n in range(first, first + 2000)]
            client.post("branches/main/write", {"changes": changes})
        page = opened(browser, server.url)
        shows(page, "#link", "live")
        start(client, parallel_workers=1)
        shows(page, "#builds .state", "BUILDING")
        percent = page.locator("#builds progress")
        wait_until(lambda: 0 < float(percent.evaluate("bar => bar.value")) <= 100)
        picture(page, "dashboard-building")
        shows(page, "#builds .state", "BUILT")
        clicked(page, f"Switch {KIND} of main")
        shows(page, "#indexes .state", "generation 1")
        shows(page, "#said", "switched to generation 1")
        client.wait_for(start(client, tokenizer="porter"), "BUILT")
        clicked(page, f"Switch {KIND} of main")
        shows(page, "#indexes .state", "generation 2")
        page.locator("#plot .bar").nth(1).wait_for()
        clicked(page, f"Roll back {KIND} of main")
        shows(page, "#indexes .state", "generation 1")
        page.locator("#plot .bar[data-kind=rollback]").wait_for()
        shows(page, "#events", "rollback.committed")
        client.post("branch-locks/acquire", {"branch_name": "main", "lock_type": "MAINTENANCE", "reason": "tidying up"})
        shows(page, "#locks", "tidying up")
        picture(page, "dashboard")
        assert client.get("indexes")["indexes"][0]["generation"] == 1
        assert page.complaints == []
        client.close()


def test_buttons_cancel_a_build_and_drop_an_index_and_an_unconfirmed_click_changes_nothing(
    browser: Any, server: Server, client: Client
) -> None:
    shadow_id = client.built()
    page = opened(browser, server.url)
    discard = page.get_by_role("button", name=f"Discard the build of {KIND} of main")
    discard.click()
    page.get_by_role("button", name="Leave it").first.click()
    assert client.get(f"shadow-index/{shadow_id}/status")["state"] == "BUILT"
    clicked(page, f"Discard the build of {KIND} of main")
    wait_until(lambda: client.get(f"shadow-index/{shadow_id}/status")["state"] == "CANCELLED")
    discard.wait_for(state="detached")
    client.post(f"shadow-index/{client.built()}/switch", {})
    clicked(page, f"Drop {KIND} of main")
    shows(page, "#said", "SEARCH_INDEX of branch main is dropped")
    page.get_by_role("button", name=f"Drop {KIND} of main").wait_for(state="detached")
    assert client.get("indexes")["indexes"] == []
    assert page.complaints == []


def test_buttons_switch_a_group_roll_it_back_and_dissolve_it(browser: Any, server: Server, client: Client) -> None:
    kinds = {KIND: {"parallel_workers": 1}, "GRAPH_INDEX": {"backend": "kv", "parallel_workers": 1}}
    page = opened(browser, server.url)
    shows(page, "#link", "live")
    assert page.locator("#group-section").is_hidden()
    for name in ("first", "second"):
        members = [
            {"branch_name": "main", "index_type": kind, "resource_types": TYPES, "build_config": config}
            for kind, config in kinds.items()
        ]
        client.post("groups", {"name": name, "members": members})
        shows(page, "#groups .state", "BUILT")
        clicked(page, f"Switch all group {name}")
        if name == "first":  # nothing was live before, so nothing soaks: the group has ended
            page.locator("#group-section").wait_for(state="hidden")
    shows(page, "#groups .state", "ACTIVE")
    live = {one["index_type"]: one["generation"] for one in client.get("indexes")["indexes"]}
    clicked(page, "Roll back all group second")
    shows(page, "#groups .state", "ROLLED BACK")
    back = {one["index_type"]: one["generation"] for one in client.get("indexes")["indexes"]}
    assert set(live.values()).isdisjoint(back.values())
    clicked(page, "Go forward again group second")
    shows(page, "#groups .state", "ACTIVE")
    assert {one["index_type"]: one["generation"] for one in client.get("indexes")["indexes"]} == live
    clicked(page, "Dissolve group second")
    page.locator("#group-section").wait_for(state="hidden")
    assert page.complaints == []


def test_branches_are_a_tree_and_a_button_shows_what_a_fork_changed(
    browser: Any, server: Server, client: Client
) -> None:
    client.post("branches/topic/fork", {"parent": "main"})
    client.post("branches/deeper/fork", {"parent": "topic", "mode": "following"})
    changes = [{"resource_type": TYPES[0], "id": "0", "fields": {"text": "of topic"}}]
    client.post("branches/topic/write", {"changes": changes})
    page = opened(browser, server.url)
    shows(page, "#branches", "following fork of topic")
    rows = page.locator("#branches > li")
    found = [(row.locator(".name").inner_text(), row.get_attribute("data-depth")) for row in rows.all()]
    assert found == [("feature/user-schema", "0"), ("main", "0"), ("topic", "1"), ("deeper", "2")]
    page.get_by_role("button", name="Show what topic changed").click()
    shows(page, "#changed", f"{TYPES[0]} 0")
    assert page.locator("#changed > li").all_inner_texts()[0].startswith("changed")
    page.get_by_role("button", name="Close").click()
    page.get_by_role("button", name="Show what deeper changed").click()
    shows(page, "#changes-more", "It shows what topic has.")
    page.get_by_role("button", name="Close").click()
    assert page.complaints == []


def test_a_shadow_is_compared_with_the_live_index_in_two_columns(browser: Any, server: Server, client: Client) -> None:
    fields = {"one": {"text": "running water"}, "two": {"text": "run for it"}}
    changes = [{"resource_type": TYPES[0], "id": id, "fields": of} for id, of in fields.items()]
    client.post("branches/main/write", {"changes": changes})
    client.post(f"shadow-index/{client.built()}/switch", {})
    client.built(tokenizer="porter")
    client.get("branches/main/search?q=water")
    page = opened(browser, server.url)
    page.get_by_role("button", name=f"Compare the new {KIND} of main").click()
    shows(page, "#compare-figures", "1 last asked")
    page.locator("#compare-query").fill("run")
    page.get_by_role("button", name="Ask both").click()
    shows(page, "#compared", "one · new")
    assert page.locator("#compared .pair > div").all_inner_texts()[0].split() == ["live", TYPES[0], "two"]
    page.get_by_role("button", name="Close").click()
    assert page.complaints == []


def begun_and_waiting(client: Client) -> tuple[str, list[str]]:
    """Start builds until every place is taken and two wait; the kind of one at work, and those of the two."""
    for number in range(100):
        body: dict[str, Any] = {"branch_name": "main", "index_type": f"KIND_{number}", "resource_types": TYPES}
        body["build_config"] = {"parallel_workers": 1}
        if "queued, number 2" in client.post("shadow-index/start", body)["message"]:
            return "KIND_0", [f"KIND_{number - 1}", f"KIND_{number}"]
    raise AssertionError("a hundred builds have a place")


def test_buttons_operate_builds_at_work_and_in_the_queue(browser: Any, tmp_path: Path) -> None:
    with serving(tmp_path / "data", SHADOWSWITCH_POINTS="build.shard_opened=sleep:600") as server:
        client = server.client()
        client.post("branches", {"name": "main"})
        working, (second, third) = begun_and_waiting(client)
        ids = {one["index_type"]: one["shadow_index_id"] for one in client.get("shadow-index/list")["shadows"]}
        page = opened(browser, server.url)

        def press(button: str, kind: str, then: str) -> dict[str, Any]:
            """Click a button of a build; when the other button is there in its place, the status of the build."""
            clicked(page, f"{button} the {'switch' if button == 'Unschedule' else 'build'} of {kind} of main")
            page.get_by_role("button", name=then).wait_for()
            found: dict[str, Any] = client.get(f"shadow-index/{ids[kind]}/status")
            return found

        def card(kind: str, text: str) -> None:
            page.locator("#builds li").filter(has_text=f"main · {kind}").filter(has_text=text).wait_for()

        card(third, "queued")
        found = press("Put first", third, f"Put first the build of {second} of main")
        assert (found["queue_position"], found["priority"]) == (1, 1)
        card(third, "priority 1")
        found = press("Pause", working, f"Resume the build of {working} of main")
        assert (found["phase"], bool(found["paused_by"])) == ("paused", True)
        card(working, "paused")
        card(third, "BUILDING")
        assert client.get(f"shadow-index/{ids[third]}/status")["state"] == "BUILDING"
        found = press("Resume", working, f"Pause the build of {working} of main")
        assert (found["phase"], found["paused_by"]) == ("queued", None)
        assert press("Slow down", third, f"Full speed the build of {third} of main")["share"] == 0.25
        card(third, "25 % of the time")
        assert press("Full speed", third, f"Slow down the build of {third} of main")["share"] == 1
        plan = press("Switch when quiet", third, f"Unschedule the switch of {third} of main")["scheduled_switch"]
        assert (plan["quiet_for_s"], plan["within_s"]) == (900, 86_400)
        card(third, "switch after 15 min of quiet")
        found = press("Unschedule", third, f"Switch when quiet the build of {third} of main")
        assert found["scheduled_switch"] is None
        for kind in (second, third):
            clicked(page, f"Cancel the build of {kind} of main")
            page.get_by_role("button", name=f"Cancel the build of {kind} of main").wait_for(state="detached")
            assert client.get(f"shadow-index/{ids[kind]}/status")["state"] == "CANCELLED"
        assert page.complaints == []
        for id in ids.values():
            client.call("DELETE", f"shadow-index/{id}")
        client.close()


def test_a_button_retries_a_failed_build_from_what_it_has_stored(browser: Any, tmp_path: Path) -> None:
    (tmp_path / "once").mkdir()
    once = str(tmp_path / "once")
    points = "copy.loaded=raise:EIO"
    with serving(tmp_path / "data", SHADOWSWITCH_POINTS=points, SHADOWSWITCH_POINTS_ONCE=once) as server:
        client = server.client()
        client.post("branches", {"name": "main"})
        fields = {"resource_type": TYPES[0], "id": "1", "fields": {"text": "hello"}}
        client.post("branches/main/write", {"changes": [fields]})
        shadow_id = start(client, parallel_workers=1)
        page = opened(browser, server.url)
        shows(page, "#builds .state", "FAILED")
        assert client.get(f"shadow-index/{shadow_id}/status")["state"] == "FAILED"
        clicked(page, f"Retry the build of {KIND} of main")
        shows(page, "#builds .state", "BUILT")
        assert client.get(f"shadow-index/{shadow_id}/status")["state"] == "BUILT"
        assert page.complaints == []
        client.close()


def test_a_lost_connection_is_restored_without_a_missed_event(browser: Any, tmp_path: Path) -> None:
    first = Server(tmp_path / "data")
    page = opened(browser, first.url)
    shows(page, "#link", "live")
    first.stop(signal.SIGKILL)
    shows(page, "#link", "connection lost")
    with Engine.open(tmp_path / "data") as engine:
        engine.create_branch("while-away")
    with serving(tmp_path / "data", port=int(first.url.rsplit(":", 1)[1])):
        shows(page, "#link", "live")
        shows(page, "#branches", "while-away")
        shows(page, "#events", "branch.created")
        # the browser itself logs the requests to the lost server
        assert all("ERR_" in complaint or "Failed to load" in complaint for complaint in page.complaints)


def test_an_event_source_of_the_browser_follows_the_stream(browser: Any, server: Server) -> None:
    """An EventSource refuses a stream of another media type for good, and does not connect again."""
    client = server.client()
    client.post("branches", {"name": "main"})
    client.post("branches", {"name": "other"})
    page = opened(browser, server.url)
    followed = page.evaluate(
        """() => new Promise((resolve, reject) => {
          const source = new EventSource("/api/v1/events/stream?after=1");
          source.onerror = () => reject(new Error("state " + source.readyState));
          source.addEventListener("com.shadowswitch.branch.created", (event) => {
            source.close();
            resolve([event.lastEventId, JSON.parse(event.data).data.branch_name]);
          });
        })"""
    )
    assert followed == ["2", "other"]
    assert page.complaints == []


def test_the_page_shows_left_out_files_and_refused_settings(browser: Any, tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.txt").write_text("hello")
    (folder / "b.bin").write_bytes(b"\0")
    with serving(tmp_path / "data", str(folder)) as server:
        page = opened(browser, server.url)
        shows(page, "#folders", "1 files, left out: 1 binary")
        (folder / "shadowswitch.toml").write_text("[[index]\n")
        shows(page, "#trouble", "The settings stay as they were")


def test_the_page_asks_for_a_token_and_shows_a_refusal(browser: Any, tmp_path: Path) -> None:
    secret, admin = token_entry("admin", Scope)
    reader, reading = token_entry("reader", [Scope.READ])
    with serving(tmp_path / "data", SHADOWSWITCH_TOKENS=admin + reading) as server:
        client = server.client(secret)
        client.post("branches", {"name": "main"})
        client.post("branches/main/write", {"changes": [{"resource_type": TYPES[0], "id": "1", "fields": {"a": "b"}}]})
        client.built()
        page = opened(browser, server.url)
        page.locator("#token-value").fill(reader)
        page.get_by_role("button", name="Use it").click()
        shows(page, "#branches", "main")
        shows(page, "#link", "live")
        clicked(page, f"Switch {KIND} of main")
        shows(page, "#said", "may not do this")
        assert client.get("indexes")["indexes"] == []
        client.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_works_at_phone_width_with_a_keyboard(
    browser: Any, server: Server, client: Client, scheme: str
) -> None:
    client.built()
    page = opened(browser, server.url, viewport={"width": 360, "height": 740}, color_scheme=scheme, has_touch=True)
    shows(page, "#builds .state", "BUILT")
    beyond = "[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > 360)"
    assert page.evaluate(f"{beyond}.map(e => e.outerHTML.slice(0, 90))") == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, ground[4:-1].split(","))) < 384) == (scheme == "dark")
    picture(page, f"dashboard-phone-{scheme}")
    button = page.get_by_role("button", name=f"Switch {KIND} of main")
    for _ in range(20):
        page.keyboard.press("Tab")
        if button.evaluate("one => one === document.activeElement"):
            break
    page.keyboard.press("Enter")
    page.locator("#confirm[open]").wait_for()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    shows(page, "#indexes .state", "generation 1")
    named = "e.labels?.length || e.ariaLabel || e.textContent.trim()"
    assert page.evaluate(f"[...document.querySelectorAll('button, input')].every(e => {named})")
    assert page.complaints == []
