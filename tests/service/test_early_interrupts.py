"""Ctrl-C in the first moments of a command, while its modules are imported."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

SCRIPT = str(Path(sysconfig.get_path("scripts"), "shadowswitch"))
FORMS = {
    "script": [SCRIPT],
    "module": [sys.executable, "-m", "shadowswitch"],
    "joined": [sys.executable, "-mshadowswitch"],
}
MOMENTS = [
    "shadowswitch.model.config",
    "lmdb",
    "shadowswitch.actors.build.builder",
    "shadowswitch.service.cli.app",
    "cyclopts",
    "shadowswitch.service.cli.write_commands",
]
STANDING = """
import select, sys

class Stand:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            print("there", flush=True)
            while not select.select([0], [], [], 0.05)[0]:  # a signal right before a wait takes effect behind it
                pass

sys.meta_path.insert(0, Stand())
"""


def start(folder: Path, command: list[str], moment: str = "") -> subprocess.Popen[str]:
    """A command that stands still where it imports a module, until it ends, or its standard input does."""
    (folder / "sitecustomize.py").write_text(STANDING.format(name=moment))
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment, cwd=folder)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("moment", MOMENTS)
def test_ctrl_c_during_the_imports_of_a_command_is_one_line(tmp_path: Path, form: str, moment: str) -> None:
    process = start(tmp_path, [*FORMS[form], "status", "--data", str(tmp_path)], moment)
    assert process.stdout is not None
    assert process.stdout.readline() == "there\n"
    process.send_signal(signal.SIGINT)
    code = process.wait(60)
    out, err = process.communicate(timeout=60)
    assert (code, out, err) == (130, "", "shadowswitch: interrupted\n")


HOST = "import signal, sys, shadowswitch\nprint(signal.getsignal(signal.SIGINT) is signal.{expected}, sys.argv[0])\n"


@pytest.mark.parametrize("name", ["host.py", "shadowswitch"])
def test_a_host_keeps_its_own_handling_of_ctrl_c(tmp_path: Path, name: str) -> None:
    script = tmp_path / name
    script.write_text(HOST.format(expected="default_int_handler"))
    out, err = start(tmp_path, [sys.executable, str(script)]).communicate(timeout=60)
    assert (out, err) == (f"True {script}\n", "")


def test_an_ignored_ctrl_c_stays_ignored(tmp_path: Path) -> None:
    """A shell starts a command in the background so."""
    script = tmp_path / "shadowswitch"
    script.write_text(HOST.format(expected="SIG_IGN"))
    process = start(tmp_path, ["sh", "-c", 'trap "" INT; exec "$@"', "sh", sys.executable, str(script)])
    assert process.communicate(timeout=60) == (f"True {script}\n", "")


def test_a_package_of_another_name_that_imports_the_library_is_no_command(tmp_path: Path) -> None:
    package = tmp_path / "host"
    package.mkdir()
    (package / "__init__.py").write_text(
        f"import sys\nassert sys.argv[0] == '-m'\n{HOST.format(expected='default_int_handler')}"
    )
    (package / "__main__.py").write_text("")
    process = start(tmp_path, [sys.executable, "-m", "host", "shadowswitch"], "")
    assert process.communicate(timeout=60) == ("True -m\n", "")
