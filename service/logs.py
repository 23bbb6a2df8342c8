"""Logs of a server: one line for each record, as JSON or as text, with the fields that connect records.

Texts from outside (paths, names, messages that quote them) cannot end a line, begin a field or steer a terminal: every
character that is not printable is escaped. The lines of a traceback are indented.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

from shadowswitch.model.names import escaped
from shadowswitch.model.operating.story import quoted

TRACEBACK_INDENT = "    "


class JsonLines(logging.Formatter):
    """One JSON object for each record: time, level, logger, message, and the fields of the record."""

    def format(self, record: logging.LogRecord) -> str:
        """A record as a line."""
        line: dict[str, Any] = {
            "time": f"{datetime.fromtimestamp(record.created, UTC):%Y-%m-%dT%H:%M:%S.%fZ}",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
            **getattr(record, "story", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str).replace("\x7f", "\\u007f")  # it escapes every other unprintable character


class TextLines(logging.Formatter):
    """One line of text for each record, and its traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """A record as a line."""
        fields = "  ".join(f"{name}={quoted(value)}" for name, value in getattr(record, "fields", {}).items())
        moment = datetime.fromtimestamp(record.created, UTC)
        line = f"{moment:%H:%M:%S} {record.levelname.lower():7} {escaped(record.getMessage())}"
        line = f"{line}  {fields}" if fields else line
        return f"{line}\n{_indented(self.formatException(record.exc_info))}" if record.exc_info else line


def _indented(traceback: str) -> str:
    return "\n".join(TRACEBACK_INDENT + escaped(line) for line in traceback.split("\n"))


def log_to_stderr(as_json: bool) -> None:
    """Send the log of engine and server, and the warnings of uvicorn, to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if as_json else TextLines())
    for name, level in (("shadowswitch", logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.setLevel(level)
        logger.propagate = False
