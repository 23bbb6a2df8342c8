"""The log of this library. A text from outside cannot end its line, forge another one, or command a terminal.

Names of files, branches and owners, reasons and messages of errors are arguments of log records. A filter of the logger
escapes them, so this holds for the handlers of every host.
"""

from __future__ import annotations

import logging

from shadowswitch.model.names import escaped


class _EscapedArguments(logging.Filter):
    """Escapes the arguments of each record. Numbers stay numbers."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass. Any thread."""
        if isinstance(record.args, tuple):
            record.args = tuple(map(_escaped, record.args))
        return True


def _escaped(argument: object) -> object:
    return argument if argument is None or isinstance(argument, int | float) else escaped(str(argument))


def escape_arguments() -> None:
    """Escape the arguments of every record of this library from now on. Idempotent."""
    logging.getLogger("shadowswitch").addFilter(_FILTER)


_FILTER = _EscapedArguments()
