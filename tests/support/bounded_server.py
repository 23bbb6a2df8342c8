"""A server process with other bounds than the command line has: short times, few connections."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.support.engine_helpers import outside_environment
from tests.support.http_helpers import Server

SCRIPT = """
import json, resource, sys
from pathlib import Path
from shadowswitch.service.daemon.daemon import NOTHING
from shadowswitch.service.http.host import Options
from shadowswitch.service.http.server import serve
from shadowswitch.service.http.token_source import TokenSource
from shadowswitch.service.logs import log_to_stderr
data, options, tokens, descriptors = json.loads(sys.argv[1])
if descriptors:
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))
log_to_stderr(False)
def ready(engine, url):
    print("serving at", url, flush=True)
    return lambda: NOTHING
serve(Path(data), Options(port=0, **options), TokenSource(None, tokens), ready=ready)
"""


class BoundedServer(Server):
    """A server with these options of `Options`, tokens, and limit of descriptors."""

    def __init__(self, data: Path, tokens: str, descriptors: int, options: dict[str, Any]) -> None:
        self.data = data
        self.log_file = data.parent / f"{data.name}.log"
        command = [sys.executable, "-c", SCRIPT, json.dumps([str(data), options, tokens, descriptors])]
        with open(self.log_file, "ab") as log:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, text=True, env=outside_environment()
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert " at http://" in line, f"{line}\n{self.log}"
        self.url = line.rsplit(" at ", 1)[1].strip()

    def resident_bytes(self) -> int:
        """The memory of the process."""
        pages = (Path("/proc") / str(self.process.pid) / "statm").read_text().split()[1]
        return int(pages) * 4096

    def connect(self) -> socket.socket:
        """A connection that has sent nothing."""
        parts = urlsplit(self.url)
        return socket.create_connection((parts.hostname or "", parts.port or 0), 60)

    def send(self, text: str, body: bytes = b"") -> socket.socket:
        """A connection that has sent these lines, and then a body or a part of one."""
        made = self.connect()
        made.sendall(text.replace("\n", "\r\n").encode("latin-1") + body)
        return made


@contextlib.contextmanager
def bounded(data: Path, tokens: str = "", descriptors: int = 0, **options: Any) -> Iterator[BoundedServer]:
    """A server that is stopped at the end, and whose directory is sound then."""
    server = BoundedServer(data, tokens, descriptors, options)
    try:
        yield server
        server.close()
    finally:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()
        if server.process.stdout is not None:
            server.process.stdout.close()


def answer_of(connection: socket.socket) -> tuple[int, str]:
    """The status and the text of the answer on a connection; 0 if it was closed without one."""
    text = b""
    with contextlib.suppress(ConnectionError):
        while chunk := connection.recv(65536):
            text += chunk
    connection.close()
    return (int(text.split()[1]), text.decode("latin-1")) if text else (0, "")
