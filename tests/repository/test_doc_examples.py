"""The examples of the documents run: the Python of each page, from its first block to its last, as one program."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.repository.test_docs import documents
from tests.repository.test_tidy import text_of

BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
NOT_WHOLE = {
    "docs/events.md": "its engine is that of the reader",
    "docs/external-builds.md": "its builder is another program, docs/examples/external_builder.py",
    "docs/operating.md": "a setting for a host",
    "docs/what-if.md": "a copy of a damaged directory",
}
"""The pages whose examples are parts of a program, with the reason."""


def programs() -> dict[str, str]:
    found = {name: "\n".join(BLOCK.findall(text_of(name))) for name in documents()}
    return {name: program for name, program in found.items() if program}


@pytest.mark.parametrize("name", sorted(set(programs()) - set(NOT_WHOLE)))
def test_the_examples_of_a_page_run(name: str, tmp_path: Path) -> None:
    (tmp_path / "example.py").write_text(programs()[name], "utf-8")
    command = [sys.executable, "-W", "error::DeprecationWarning", "example.py"]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONUTF8": "1"}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_a_page_whose_examples_are_not_run_has_some() -> None:
    assert set(NOT_WHOLE) <= set(programs())
