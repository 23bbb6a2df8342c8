"""A child process imports what its parent imports, and no file of the working directory stands in for a module."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

STRANGERS = ("queue", "msgspec", "lmdb", "sqlite3", "sitecustomize", "usercustomize", "shadowswitch")
HOST = """
import os, sys
from pathlib import Path
if __name__ == "__main__":
    from shadowswitch import Engine, Put
    with Engine.open(sys.argv[1]) as engine:
        engine.create_branch("main")
        engine.write("main", [Put("t", str(n), {"text": "hello"}) for n in range(20)])
        os.chdir(sys.argv[2])
        for name in sys.argv[4:]:
            Path(name + ".py").write_text(f"open({sys.argv[3]!r}, 'a').write({name!r} + chr(10)); raise SystemExit(3)")
        if os.environ.get("APPEND") is not None:
            sys.path.insert(0, os.environ["APPEND"])
        result = engine.rebuild("main", "GRAPH_INDEX", ["t"], timeout_s=60)
        assert result.success, result.message
        assert engine.check() == []
"""
CONFORMANCE = "from shadowswitch.storage.conformance.process import start; import sys, json, os\n" + (
    "os.chdir(sys.argv[1])\n"
    "child = start('read', 'shadowswitch.storage.backends.fts5.backend:Fts5Backend', {}, sys.argv[1])\n"
    "child.communicate()\n"
)


def _library() -> str:
    """Where the library and what it needs are found, for an interpreter that looks nowhere by itself."""
    return f"import sys; sys.path[:] = {[entry for entry in sys.path if entry]!r}\n"


@pytest.mark.parametrize(("flags", "append"), [([], None), (["-P"], "."), (["-I"], ""), (["-P"], "HERE")])
def test_no_file_of_the_working_directory_runs_in_a_child(tmp_path: Path, flags: list[str], append: str | None) -> None:
    here, ran = tmp_path / "here", tmp_path / "ran"
    here.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "APPEND"}
    if append is not None:
        environment["APPEND"] = str(here) if append == "HERE" else append
    host = tmp_path / "host" / "host.py"
    host.parent.mkdir()
    host.write_text(HOST)
    command = [sys.executable, *flags, str(host), str(tmp_path / "data"), str(here), str(ran), *STRANGERS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)
    assert not ran.exists(), f"{ran.read_text()}{done.stderr}"
    assert done.returncode == 0, done.stderr


def test_the_working_directory_is_not_on_the_path_while_a_child_starts(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    (tmp_path / "sitecustomize.py").write_text(f"open({str(ran)!r}, 'w').close()")
    (tmp_path / "queue.py").write_text(f"open({str(ran)!r}, 'w').close()")
    environment = {**os.environ, "PYTHONPATH": ""}
    command = [sys.executable, "-P", "-c", _library() + CONFORMANCE, str(tmp_path)]
    subprocess.run(command, capture_output=True, timeout=60, env=environment, check=False)
    assert not ran.exists()


def test_a_backend_beside_the_host_is_found_in_its_workers(tmp_path: Path) -> None:
    """`python host.py` in its own folder: the folder is named on the path, and comes last."""
    (tmp_path / "ours.py").write_text(
        "from shadowswitch.storage.backends.kv.backend import KvBackend\nclass Ours(KvBackend): pass\n"
    )
    (tmp_path / "host.py").write_text(
        "import sys\nfrom shadowswitch import Engine, Put\nif __name__ == '__main__':\n"
        "  with Engine.open(sys.argv[1]) as engine:\n"
        "    engine.create_branch('main'); engine.write('main', [Put('t', '1', {})])\n"
        "    result = engine.rebuild('main', 'GRAPH_INDEX', ['t'], {'backend': 'ours:Ours'}, timeout_s=60)\n"
        "    assert result.success, result.message\n"
    )
    command = [sys.executable, "host.py", str(tmp_path / "data")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
