"""The commands `serve` and `token`. What they need of the extra `service` is imported only when they run."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import App, Parameter
from cyclopts.validators import Number

from shadowswitch.engine.engine import Engine
from shadowswitch.model.errors import InvalidConfig
from shadowswitch.service.cli import output
from shadowswitch.service.cli.directory import Data, Json, require_free
from shadowswitch.service.logs import log_to_stderr

EXTRA = frozenset({"cloudevents", "litestar", "pathspec", "prometheus_client", "uvicorn"})
Port = Annotated[int, Parameter(validator=Number(gte=0, lte=65535), help="0 takes any free one.")]
Rate = Annotated[float, Parameter(validator=Number(gt=0), help="Requests per second of one token or address.")]
BodyMb = Annotated[int, Parameter(validator=Number(gte=1, lte=1024), help="The longest body of a request, in MiB.")]
LogJson = Annotated[bool, Parameter(negative="", show_default=False, help="Log lines as JSON.")]
Quiet = Annotated[bool, Parameter(negative="", show_default=False, help="No log line for each request.")]
Names = Annotated[list[str] | None, Parameter(negative="")]


class ExtraMissing(InvalidConfig):
    """A package is not installed; the hint says how to get it."""


@contextmanager
def the_extra() -> Iterator[None]:
    """Around an import: raises ExtraMissing when it fails for want of the extra `service`."""
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
    """Make these commands of the application."""
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
    """Host a data directory: HTTP API, events, metrics, and the dashboard at `/`. Makes the directory if need be.

    Folders that are named are followed and searched; the settings file says how, and is watched. Ends on SIGTERM or
    Ctrl-C, within seconds; builds go on at the next start. Other commands find this server and go through it.

    Example: `shadowswitch serve ./docs --data ./data`, then open http://127.0.0.1:8740

    Parameters
    ----------
    directories
        Folders of texts that branch `main` follows.
    settings
        Default: `shadowswitch.toml` in the first folder, or in the data directory.
    host
        Where to listen. Anything but a loopback address takes tokens.
    token_file
        Who may do what, as TOML; `shadowswitch token` makes entries. The environment variable SHADOWSWITCH_TOKENS may
        hold the same. Without any, everybody on this machine may do everything.
    allowed_host
        A further name under which the server is addressed; may be repeated.
    backend
        A backend of your own, `module:attribute`, that clients may name in build_config; may be repeated.
    """
    with the_extra():
        from shadowswitch.service.daemon.daemon import daemon_of_server
        from shadowswitch.service.http.access import ENVIRONMENT, load_tokens
        from shadowswitch.service.http.host import Options
        from shadowswitch.service.http.server import serve as run
    tokens = load_tokens(token_file, os.environ.get(ENVIRONMENT))
    options = Options(
        host=host, port=port, allowed_hosts=tuple(allowed_host or ()), backends=tuple(backend or ()),
        rate_per_s=rate, body_max_bytes=max_body_mb << 20, log_requests=not quiet,
    )  # fmt: skip
    require_free(data)
    log_to_stderr(log_json, verbose=False)
    with daemon_of_server(directories or (), settings, data, _tell_json if json else _tell) as (config, ready):
        run(data, options, tokens, config, ready)


def _tell(engine: Engine, url: str) -> None:
    output.say(f"serving {engine.path} at {url}")


def _tell_json(engine: Engine, url: str) -> None:
    """On one line, for whoever waits for it and reads on."""
    sys.stdout.write(msgspec.json.encode({"serving": str(engine.path), "url": url}).decode() + "\n")
    sys.stdout.flush()


def token(
    name: str,
    *,
    scope: Names = None,
    branch: Names = None,
    json: Json = False,
) -> None:
    """Make a token: prints the secret, once, and the entry for the token file, which has only its hash.

    Example: `shadowswitch token ci --scope read --scope write --branch 'feature/*'`

    Parameters
    ----------
    name
        Is in the audit and the logs.
    scope
        read, write, build, switch, rollback, lock, admin, force_switch, force_unlock; may be repeated. Default: read.
    branch
        A pattern of branch names; may be repeated. Default: every branch.
    """
    with the_extra():
        from shadowswitch.service.http.access import Scope, new_token
    try:
        scopes = [Scope(one) for one in scope or ["read"]]
    except ValueError as error:
        raise InvalidConfig(f"{error}", hint=f"scopes: {', '.join(Scope)}") from error
    secret, made = new_token(name, scopes, branch or ["*"])
    patterns = ", ".join(_quoted(one) for one in made.branches)
    wanted = ", ".join(f'"{one}"' for one in sorted(made.scopes))
    entry = f'[[token]]\nname = "{made.name}"\nsha256 = "{made.sha256}"\nscopes = [{wanted}]\nbranches = [{patterns}]\n'
    if json:
        output.print_json({"token": secret, "entry": entry})
    else:
        output.say(f"{secret}\n\n{entry}")


def _quoted(text: str) -> str:
    """A TOML string."""
    escaped = "".join(f"\\u{ord(one):04x}" if ord(one) < 32 or one in '"\\\x7f' else one for one in text)
    return f'"{escaped}"'
