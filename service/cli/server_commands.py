"""The commands `serve` and `token`. They import the packages of the extra `service` only when they run."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from cyclopts.validators import Number

from shadowswitch.engine.engine import Engine
from shadowswitch.model.errors import InvalidConfig
from shadowswitch.service.cli import output
from shadowswitch.service.cli.directory import Data, Json, require_free
from shadowswitch.service.logs import log_to_stderr

EXTRA = frozenset({"cloudevents", "h11", "litestar", "prometheus_client", "uvicorn"})
Port = Annotated[int, Parameter(validator=Number(gte=0, lte=65535), help="The port; 0 takes a free one.")]
Rate = Annotated[float, Parameter(validator=Number(gt=0), help="Requests per second of one token or address.")]
BodyMb = Annotated[int, Parameter(validator=Number(gte=1, lte=1024), help="The limit of a request body, in MiB.")]
LogJson = Annotated[bool, Parameter(negative="", show_default=False, help="Write the log as JSON lines.")]
Quiet = Annotated[bool, Parameter(negative="", show_default=False, help="Do not log each request.")]
Names = Annotated[list[str] | None, Parameter(negative="")]


class ExtraMissing(InvalidConfig):
    """A package of the extra `service` is not installed."""


@contextmanager
def extra_required() -> Iterator[None]:
    """Turn a failed import of a package of the extra `service` into ExtraMissing."""
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in EXTRA:
            raise
        raise ExtraMissing(
            f"the server needs {missing}, which is not installed", hint="pip install 'shadowswitch[service]'"
        ) from error


def add_to(app: App) -> None:
    """Register the commands."""
    app.command(serve)
    app.command(token)


def serve(
    directories: Annotated[list[Path] | None, Parameter(negative="")] = None,
    /,
    *,
    data: Data,
    host: str = "127.0.0.1",
    port: Port = 8740,
    settings: Path | None = None,
    token_file: Path | None = None,
    allowed_host: Names = None,
    backend: Names = None,
    rate: Rate = 2000.0,
    max_body_mb: BodyMb = 16,
    log_json: LogJson = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Serve a data directory: HTTP API, events, metrics, and the dashboard at `/`. Creates a missing directory.

    Branch `main` mirrors the given folders and indexes their files. The server follows changes of the settings file.
    SIGTERM or Ctrl-C ends the server within seconds; builds continue at the next start. Other commands find the server
    and send their calls to it.

    Example: `shadowswitch serve ./docs --data ./data`, then open http://127.0.0.1:8740

    Parameters
    ----------
    directories
        Folders of text files that branch `main` mirrors.
    settings
        The settings file. Default: `shadowswitch.toml` in the first folder, where only descriptions of indexes count,
        or in the data directory.
    host
        The address to listen on. Any other address than loopback requires tokens.
    token_file
        The tokens and their scopes, as TOML; `shadowswitch token` prints entries. The server follows changes of this
        file: a token that is removed from it stops working at once. The environment variable SHADOWSWITCH_TOKENS has
        the same format. Without tokens, every user of this machine has every scope.
    allowed_host
        A further host name of the server; may be repeated.
    backend
        A custom backend or embedder, `module:attribute`, for build_config; may be repeated.
    """
    with extra_required():
        from shadowswitch.service.daemon.daemon import daemon_of_server
        from shadowswitch.service.http.access import ENVIRONMENT
        from shadowswitch.service.http.host import Options
        from shadowswitch.service.http.server import serve as run
        from shadowswitch.service.http.token_source import TokenSource
    tokens = TokenSource(token_file, os.environ.get(ENVIRONMENT))
    options = Options(
        host=host, port=port, allowed_hosts=tuple(allowed_host or ()), backends=tuple(backend or ()),
        rate_per_s=rate, body_max_bytes=max_body_mb << 20, log_requests=not quiet,
    )  # fmt: skip
    require_free(data)
    log_to_stderr(log_json)
    with daemon_of_server(directories or (), settings, data, partial(_announce, json)) as (config, ready):
        run(data, options, tokens, config, ready)


def _announce(json: bool, engine: Engine, url: str) -> None:
    if json:  # one line, so that a program can wait for it
        output.print_json_line({"serving": str(engine.path), "url": url})
        sys.stdout.flush()
    else:
        output.say(f"serving {engine.path} at {url}")


def token(
    name: str,
    *,
    scope: Names = None,
    branch: Names = None,
    json: Json = False,
) -> None:
    """Create a token. Prints the secret, once, and the entry for the token file, which holds only a hash.

    Example: `shadowswitch token ci --scope read --scope write --branch 'feature/*'`

    Parameters
    ----------
    name
        The name in the audit history and the logs.
    scope
        read, write, build, switch, rollback, lock, admin, force_switch, force_unlock; may be repeated. Default: read.
    branch
        A pattern of branch names; may be repeated. Default: every branch.
    """
    with extra_required():
        from shadowswitch.service.http.access import Scope, new_token
    try:
        scopes = [Scope(one) for one in scope or ["read"]]
    except ValueError as error:
        raise InvalidConfig(f"{error}", hint=f"scopes: {', '.join(Scope)}") from error
    secret, made = new_token(name, scopes, branch or ["*"])
    patterns = ", ".join(_quoted(one) for one in made.branches)
    wanted = ", ".join(f'"{one}"' for one in sorted(made.scopes))
    entry = f'[[token]]\nname = "{made.name}"\nsha256 = "{made.sha256}"\nscopes = [{wanted}]\nbranches = [{patterns}]\n'
    output.print_result({"token": secret, "entry": entry}, [secret, "", *entry.split("\n")], json)


def _quoted(text: str) -> str:
    """A TOML string."""
    escaped = "".join(f"\\u{ord(one):04x}" if ord(one) < 32 or one in '"\\\x7f' else one for one in text)
    return f'"{escaped}"'
