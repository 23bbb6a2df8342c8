"""The server process: an engine, uvicorn in the same process, and the file by which commands find it.

Start                                             Stop (SIGTERM, SIGINT)
  check options: no public address without tokens   admit no more requests; end the streams
  bind the port                                     remove the host file
  open the engine: lock, recovery                   give requests under way `Options.stop_s`
  write the host file                               close the engine: builds keep their progress
  serve                                             exit status 0
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, cast

import uvicorn

from shadowswitch.engine.engine import Engine
from shadowswitch.model.config import Config
from shadowswitch.model.errors import InvalidConfig, ResourceExhausted
from shadowswitch.service import host_file
from shadowswitch.service.daemon.daemon import NOTHING, Ready
from shadowswitch.service.http.app import build_app
from shadowswitch.service.http.host import HEADER_BYTES_MAX, Host, Options
from shadowswitch.service.http.limits.connections import Connection
from shadowswitch.service.http.token_source import TokenSource
from shadowswitch.storage.shortages import shortages

logger = logging.getLogger("shadowswitch")

BACKLOG = 2048
KEEP_ALIVE_S = 75
"""The idle time of a connection: longer than the pauses of a client that imports files."""
CLOSE_S = 2.5
"""The time for the engine to close after `Options.stop_s`; then the process exits without it. No acknowledged write is
lost by that: to the data directory it is a power cut, and recovery handles one."""


class Server(uvicorn.Server):
    """uvicorn with a callback once it listens. Its shutdown ends the streams before it waits for connections."""

    def __init__(self, config: uvicorn.Config, host: Host, listening: Callable[[], None]) -> None:
        super().__init__(config)
        self._host = host
        self._listening = listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then call back."""
        await super().startup(sockets)
        if self.started:
            await asyncio.to_thread(self._listening)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Admit no more requests, end the streams, wait for `Options.stop_s`, close the engine.

        The engine is closed here, before the event loop ends: calls that still wait in the engine, for a lock say, hold
        threads, and the event loop would wait for these.
        """
        self._host.draining.set()
        host_file.remove(self._host.engine.path)
        _exit_after(self._host.options.stop_s + CLOSE_S)
        self._host.hub.close()
        await super().shutdown(sockets)
        try:
            with shortages("stop"), ThreadPoolExecutor(1) as closer:
                await asyncio.get_running_loop().run_in_executor(closer, self._host.engine.close)
        except ResourceExhausted:  # no thread to be had: nothing else uses the loop by now
            self._host.engine.close()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal to stop. It is not raised again afterwards: a requested stop is a success, with exit status 0."""
        self._host.draining.set()
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True


def bind(options: Options) -> socket.socket:
    """The socket to listen on. Raises InvalidConfig when the address or port is not available."""
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((options.host, options.port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise InvalidConfig(
            f"cannot listen on {options.host} port {options.port}: {error.strerror}",
            hint="choose another with --port, or 0 for any free one",
        ) from error
    return listener


def url_of(listener: socket.socket, options: Options) -> str:
    """The URL of the server for clients of this machine."""
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(options.host, options.host)
    return f"http://{f'[{name}]' if ':' in name else name}:{listener.getsockname()[1]}"


def serve(
    data: Path,
    options: Options,
    tokens: TokenSource | None = None,
    config: Config | None = None,
    ready: Ready = lambda engine, url: lambda: NOTHING,
) -> None:
    """Serve a data directory until a signal. Once the server answers, it calls `ready` on a thread of its own; `ready`
    returns the function that gives the status of the daemon.

    Raises the errors of Engine.open, and InvalidConfig.
    """
    tokens = tokens or TokenSource()
    options.check(tokens.access)
    listener = bind(options)
    try:
        with Engine.open(data, config) as engine:
            _serve(engine, listener, options, tokens, ready)
    finally:
        listener.close()
    logger.info("stopped")


def _serve(engine: Engine, listener: socket.socket, options: Options, tokens: TokenSource, ready: Ready) -> None:
    host = Host(engine, tokens.access, options, tokens)
    url = url_of(listener, options)

    announcement = host_file.Announcement(engine.path, host_file.HostFile(url, tokens.secret, os.getpid()))

    def listening() -> None:
        announcement.begin()
        host.daemon_status = ready(engine, url)

    settings = uvicorn.Config(
        build_app(host),
        access_log=False,
        log_config=None,
        lifespan="on",
        timeout_graceful_shutdown=max(1, round(options.stop_s)),
        h11_max_incomplete_event_size=HEADER_BYTES_MAX,
        http=cast(Any, partial(Connection, connections=host.connections)),
        ws="none",
        timeout_keep_alive=KEEP_ALIVE_S,
        server_header=False,
        proxy_headers=False,  # any client can forge them, and would evade every limit
        limit_concurrency=host.connections.total,
        date_header=True,
    )
    server = Server(settings, host, listening)
    try:
        server.run([listener])
    finally:
        announcement.end()


def _exit_after(after_s: float) -> None:
    """Exit without the engine if it has not closed in time. Without a thread for that, the stop takes its time."""

    def leave() -> None:
        logger.error("the engine did not close in time; going without it: %d threads", threading.active_count())
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)

    timer: Any = threading.Timer(after_s, leave)
    timer.daemon = True
    try:
        with shortages("stop"):
            timer.start()
    except ResourceExhausted as lack:
        logger.warning("the stop has no deadline: %s", lack)
