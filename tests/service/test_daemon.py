"""The daemon: it starts and stops its parts with the settings, and rebuilds an index with another tokenizer."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest

from shadowswitch import Engine, InvalidConfig
from shadowswitch.service.daemon.daemon import Daemon
from shadowswitch.service.daemon.settings import load_settings
from tests.support.engine_helpers import KIND, ROOT, Crew, crew, wait_until
from tests.support.external_helpers import incoming

Start = Callable[..., Daemon]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of texts."""
    made = tmp_path / "docs"
    made.mkdir()
    for n in range(20):
        (made / f"{n}.txt").write_text(f"a fox is running number{n}")
    return made


@pytest.fixture
def start(engine: Engine) -> Iterator[Start]:
    """Starts daemons, and stops them at the end."""
    started: list[Daemon] = []

    def start_(*folders: Path, **how: Any) -> Daemon:
        made = Daemon(engine, folders, **how)
        started.append(made)
        made.start()
        return made

    yield start_
    for made in started:
        made.stop()


def settle(daemon: Daemon) -> None:
    """Wait until readers get every index as described."""

    def settled() -> bool:
        indexes = daemon.status().indexes
        return bool(indexes) and all(index.as_described and not index.shadow_index_id for index in indexes)

    wait_until(settled)


def hits(engine: Engine, query: str, timeout_s: float = 5) -> set[str]:
    with engine.reader("main", KIND, min_lsn=engine.head("main"), timeout_s=timeout_s) as reader:
        return {hit.id for hit in reader.search(query, limit=1000)}


def test_another_tokenizer_in_the_settings_is_a_switch_under_searches(
    engine: Engine, start: Start, folder: Path
) -> None:
    daemon = start(folder)
    settle(daemon)
    wait_until(lambda: len(hits(engine, "running", 60)) == 20)
    assert hits(engine, "run") == set()
    hands: Crew
    with crew() as hands:
        hands.start(lambda: None if len(hits(engine, "running", 60)) == 20 else 1 / 0)
        (folder / "shadowswitch.toml").write_text('[[index]]\n[index.build_config]\ntokenizer = "porter"\n')
        wait_until(lambda: len(hits(engine, "run", 60)) == 20)
    settle(daemon)
    kinds = [event.type.rpartition("shadowswitch.")[2] for event in engine.events()]
    assert kinds.index("settings.applied") < len(kinds) - kinds[::-1].index("switch.committed")
    (folder / "new.txt").write_text("to run")
    wait_until(lambda: "new.txt" in hits(engine, "running", 60))


def test_an_invalid_settings_file_changes_nothing_and_its_error_stays_until_the_file_is_correct(
    engine: Engine, start: Start, folder: Path
) -> None:
    daemon = start(folder)
    settle(daemon)
    generation = engine.index("main", KIND).generation
    file = folder / "shadowswitch.toml"
    file.write_text('[[index]]\n[index.build_config]\ntokenizer = "magic"\n')
    wait_until(lambda: "magic" in (daemon.status().error or ""))
    assert engine.index("main", KIND).generation == generation
    assert [event.data["file"] for event in engine.events() if event.type.endswith("settings.refused")] == [str(file)]
    file.unlink()
    wait_until(lambda: daemon.status().error is None)
    assert engine.index("main", KIND).generation == generation


def test_an_invalid_settings_file_at_the_start_starts_nothing(engine: Engine, start: Start, folder: Path) -> None:
    (folder / "shadowswitch.toml").write_text("[[index]\n")
    with pytest.raises(InvalidConfig, match="is not TOML"):
        start(folder)
    assert engine.branches() == [engine.branch("main")]
    assert engine.count("main") == 0


def test_a_named_settings_file_that_is_not_there_starts_nothing(engine: Engine, start: Start, folder: Path) -> None:
    file = folder.parent / "shadowswitch.tml"
    with pytest.raises(InvalidConfig, match=r"shadowswitch\.tml does not exist; create it"):
        start(folder, settings_file=file)
    assert engine.count("main") == 0
    start(folder)
    wait_until(lambda: engine.count("main") == 20)


@pytest.mark.parametrize("is_named", [True, False])
def test_what_a_vanished_settings_file_described_stays_and_is_reported(
    engine: Engine, start: Start, folder: Path, tmp_path: Path, is_named: bool
) -> None:
    file = tmp_path / "named.toml" if is_named else engine.path / "shadowswitch.toml"
    file.write_text(f'[[mirror]]\nfolder = "{folder}"\n[inbox]\nenabled = false\n')
    daemon = start(**({"settings_file": file} if is_named else {}))
    wait_until(lambda: engine.count("main") == 20)
    file.rename(tmp_path / "aside")
    wait_until(lambda: "is gone, and what it described stays" in (daemon.status().error or ""))
    assert engine.events()[-1].type.endswith("settings.refused")
    (folder / "late.txt").write_text("late")
    wait_until(lambda: engine.get("main", "file", "late.txt"))
    assert daemon.status().inbox is None
    (tmp_path / "aside").rename(file)
    wait_until(lambda: daemon.status().error is None)
    file.write_text("")
    wait_until(lambda: daemon.status().mirrors == [])


def test_mirrors_start_and_stop_with_the_settings(engine: Engine, start: Start, folder: Path, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "n.txt").write_text("note")
    file = tmp_path / "shadowswitch.toml"
    file.write_text("")
    daemon = start(settings_file=file)
    assert daemon.status().mirrors == []
    file.write_text('[[mirror]]\nfolder = "notes"\nprefix = "notes/"\n')
    wait_until(lambda: engine.get("main", "file", "notes/n.txt"))
    file.write_text('[[mirror]]\nfolder = "docs"\nprefix = "docs/"\n')
    wait_until(lambda: engine.get("main", "file", "docs/3.txt"))
    wait_until(lambda: [mirror.prefix for mirror in daemon.status().mirrors] == ["docs/"])
    (notes / "late.txt").write_text("late")
    (folder / "late.txt").write_text("late")
    wait_until(lambda: engine.get("main", "file", "docs/late.txt"))
    assert engine.get("main", "file", "notes/late.txt") is None
    assert engine.get("main", "file", "notes/n.txt") is not None


def test_several_folders_have_a_prefix_each(engine: Engine, start: Start, folder: Path, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "n.txt").write_text("note")
    start(folder, notes)
    wait_until(lambda: engine.get("main", "file", "notes/n.txt") and engine.get("main", "file", "docs/3.txt"))


def test_the_inbox_and_webhooks_start_and_stop_with_the_settings(engine: Engine, start: Start, tmp_path: Path) -> None:
    got: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["type"])
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        file = tmp_path / "shadowswitch.toml"
        file.write_text(f'[[webhook]]\nurl = "http://127.0.0.1:{server.server_port}/"\nallow_private = true\n')
        daemon = start(settings_file=file)
        engine.start_indexing("main", "funnel")
        (engine.path / "inbox" / "event.json").write_text(json.dumps(incoming("com.oms.indexing.completed")))
        wait_until(lambda: "com.shadowswitch.incoming.handled" in got)
        wait_until(lambda: any(inbox is not None and inbox.taken == 1 for inbox in [daemon.status().inbox]))
        wait_until(lambda: daemon.status().webhooks[0].delivered == len(got))
        msgspec.json.encode(daemon.status())
        assert not daemon.status().restart_needed
        file.write_text("[inbox]\nenabled = false\n[incoming]\nauto_merge = false\n")
        wait_until(lambda: (daemon.status().inbox, daemon.status().webhooks) == (None, []))
        assert daemon.status().restart_needed
        file.write_text("[engine]\nbuilds_max = 1\n")
        wait_until(lambda: daemon.status().inbox is not None)
        assert daemon.status().restart_needed
        server.shutdown()


def test_the_settings_of_the_documentation_are_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs" / "settings.md").read_text().partition("```toml\n")[2].partition("```")[0]
    (tmp_path / "docs").mkdir()
    (tmp_path / "shadowswitch.toml").write_text(text)
    monkeypatch.setenv("HOOK_SECRET", "secret")
    settings = load_settings(tmp_path / "shadowswitch.toml")
    assert (len(settings.mirror), len(settings.index), len(settings.webhook)) == (1, 1, 1)
