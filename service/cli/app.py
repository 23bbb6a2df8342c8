"""The command line. Exit status 0: success; 1: failure (blocked, refused, failed check, not found); 2: wrong call.

An error is one line on standard error. With `--json` it is an object on standard output, too.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from cyclopts import App, CycloptsError

from shadowswitch.model.errors import (
    BuildFailed,
    InUse,
    InvalidChange,
    InvalidConfig,
    InvalidName,
    ShadowSwitchError,
    UnknownBranch,
    UnknownGroup,
    UnknownShadow,
)
from shadowswitch.model.names import escaped
from shadowswitch.service.cli import (
    manual,
    operate_commands,
    output,
    read_commands,
    server_commands,
    write_commands,
)
from shadowswitch.service.cli.backups import backup_command, replicate_command, restore_command
from shadowswitch.service.cli.branches import branch_commands, fork_commands
from shadowswitch.service.cli.directory import DATA_VARIABLE, Refused
from shadowswitch.service.cli.groups import group_command
from shadowswitch.service.cli.guard import guarded
from shadowswitch.service.cli.output import Failure
from shadowswitch.service.cli.quality import compare_command, cost_command, query_command
from shadowswitch.service.cli.transfer import export_command, import_command
from shadowswitch.service.hints import in_commands

DEBUG = "--debug"
JSON = "--json"
WRONG = 2
INTERRUPTED = 130
TERMINATED = 143
WRONG_CALL = (InvalidChange, InvalidConfig, InvalidName)
HINTS: dict[type[ShadowSwitchError], str] = {
    UnknownBranch: "shadowswitch status lists the branches",
    UnknownGroup: "shadowswitch group show lists the groups",
    UnknownShadow: "shadowswitch status lists the shadows",
    BuildFailed: "shadowswitch events shows its course; once the cause is removed, shadowswitch retry goes on with it",
}
"""The hints of these errors on the command line; `hints` translates the hint of any other error."""

app = App(
    name="shadowswitch",
    help="Rebuild an index in the shadow while everybody keeps writing, lose nothing, switch in one disk commit.",
    help_epilogue=(
        "Exit status: 0 success; 1 failure (blocked, refused, failed check, not found); 2 wrong call;"
        f" 130 Ctrl-C; 143 SIGTERM. Every command takes {JSON} (an error is an object, too), and {DEBUG} for logs and"
        f" tracebacks. The environment variable {DATA_VARIABLE} stands for --data."
    ),
    version=lambda: importlib.metadata.version("shadowswitch"),
    help_format="markdown",
    suppress_keyboard_interrupt=False,
)
for module in (
    write_commands,
    operate_commands,
    branch_commands,
    fork_commands,
    group_command,
    read_commands,
    import_command,
    export_command,
    backup_command,
    restore_command,
    replicate_command,
    compare_command,
    cost_command,
    query_command,
    server_commands,
    manual,
):
    module.add_to(app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status. The default `arguments` are those of this process."""
    tokens, debug = _without_debug(sys.argv[1:] if arguments is None else arguments)
    if arguments is not None:
        return _run(tokens, debug)
    signal.signal(signal.SIGTERM, _terminated)
    if tokens and tokens[0] in read_commands.GUARDED:
        return guarded(lambda: _run(tokens, debug), lambda line: _fail(Failure("CorruptData", line), line, tokens))
    return _run(tokens, debug)


def _run(tokens: list[str], debug: bool) -> int:
    with _logging(debug):
        try:
            app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
            sys.stdout.flush()
        except Refused:
            return 1
        except BrokenPipeError:  # the reader of standard output has closed it
            _silence_stdout()
            return 1
        except KeyboardInterrupt as error:  # its argument says how the command left things
            text = ": ".join(("interrupted", *map(str, error.args)))
            _fail(Failure("Interrupted", text), text, tokens)
            return INTERRUPTED
        except SystemExit as ended:
            if ended.code == TERMINATED:
                text = "terminated; the same command joins its build" if tokens[:1] == ["build"] else "terminated"
                _fail(Failure("Terminated", text), text, tokens)
            raise
        except Exception as error:
            if debug and not isinstance(error, CycloptsError):
                raise
            _fail(_failure(error), _line(error), tokens)
            return _status_of(error)
    return 0


def _status_of(error: Exception) -> int:
    if isinstance(error, ShadowSwitchError):
        return WRONG if isinstance(error, WRONG_CALL) else 1
    return WRONG if isinstance(error, CycloptsError | ValueError) else 1


def _fail(failure: Failure, line: str, tokens: Sequence[str]) -> None:
    """Report an error: the line, and with `--json` the object. A closed standard output gets no object."""
    print(f"shadowswitch: {escaped(line)}", file=sys.stderr)
    if JSON in tokens[: _end_of_options(tokens)]:
        try:
            output.print_json_line({"error": failure})
            sys.stdout.flush()
        except OSError:
            _silence_stdout()


def _failure(error: Exception) -> Failure:
    """An error as an object. A wrong call has one kind, whichever part of the command line refused it."""
    if isinstance(error, ShadowSwitchError):
        kind, hint = type(error).__name__, _hint(error)
        uses = error.uses if isinstance(error, InUse) else []
        return Failure(kind, error.message, hint, error.operation, error.object, error.recoverable, uses)
    kind = "WrongCall" if _status_of(error) == WRONG else type(error).__name__
    return Failure(kind, " ".join(str(error).split()))


def _hint(error: ShadowSwitchError) -> str:
    return next((hint for kind, hint in HINTS.items() if isinstance(error, kind)), in_commands(error.hint))


def _line(error: Exception) -> str:
    """An error as one line. An unforeseen error adds its class, and the option for the traceback."""
    text = " ".join(str(error).split())
    if isinstance(error, ShadowSwitchError):
        hint = _hint(error)
        message = in_commands(error.message) if isinstance(error, BuildFailed) else error.message  # it quotes a hint
        text = " ".join(f"{message}; {hint}".split() if hint else message.split())
    if isinstance(error, CycloptsError):
        return f"{text} See {' '.join(('shadowswitch', *(error.command_chain or ()), '--help'))}."
    if isinstance(error, ShadowSwitchError | ValueError | OSError):
        return text
    return f"unforeseen {type(error).__name__}: {text}; {DEBUG} shows the traceback"


def _without_debug(arguments: Sequence[str]) -> tuple[list[str], bool]:
    """Remove --debug before `--`. The environment variable SHADOWSWITCH_DEBUG has the same effect."""
    tokens = list(arguments)
    end = _end_of_options(tokens)
    kept = [token for token in tokens[:end] if token != DEBUG]
    return [*kept, *tokens[end:]], len(kept) < end or bool(os.environ.get("SHADOWSWITCH_DEBUG"))


def _end_of_options(tokens: Sequence[str]) -> int:
    """The place of `--`, behind which every token is an argument."""
    return tokens.index("--") if "--" in tokens else len(tokens)


@contextmanager
def _logging(debug: bool) -> Iterator[None]:
    """Show the log of the engine with --debug only; the output or the error has everything that a user needs."""
    logger = logging.getLogger("shadowswitch")
    handler = logging.StreamHandler() if debug else logging.NullHandler()
    level = logger.level
    logger.addHandler(handler)
    if debug:
        logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def _terminated(number: int, frame: Any) -> NoReturn:
    """SIGTERM: leave through every `finally`, which closes the engine and removes temporary folders."""
    raise SystemExit(TERMINATED)


def _silence_stdout() -> None:
    """Send the interpreter's last flush to the null device."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
