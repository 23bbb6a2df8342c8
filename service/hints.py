"""The next step in the words of whoever is told: the library's own hints speak of Python calls.

Each row is what such a hint says, how HTTP says it, and how the command line does; longer phrases come first. Where the
command line has no word of its own the server's is better than none.
"""

from __future__ import annotations

import re

ROWS: tuple[tuple[str, str, str], ...] = (
    (
        "build one with start_build and switch to it, or rebuild",
        "build one with POST /shadow-index/start and switch to it",
        "shadowswitch build ... --switch makes one",
    ),
    ("open it again with Engine.open", "try again when the server is back", "try again when the server is back"),
    ("changes(after=head)", "GET /branches/{name}/changes?after=", "shadowswitch events --after"),
    ("external=True", '"external": true', "external=True"),
    ("acquire_lock", "POST /branch-locks/acquire", "POST /branch-locks/acquire"),
    ("branches()", "GET /branches", "shadowswitch status"),
    ("cancel_build", "DELETE /shadow-index/{id}", "shadowswitch cancel"),
    ("create_branch", "POST /branches", "shadowswitch import"),
    ("fail_build", "POST /shadow-index/{id}/fail", "shadowswitch cancel"),
    (  # a scope of tokens has the same name, and keeps it
        "force_unlock first",
        "POST /branch-locks/force-unlock/{branch} first",
        "POST /branch-locks/force-unlock/{branch} first",
    ),
    (
        "force_unlock frees the branch",
        "POST /branch-locks/force-unlock/{branch} frees it",
        "POST /branch-locks/force-unlock/{branch} frees it",
    ),
    ("retry_build", "POST /shadow-index/{id}/retry", "shadowswitch build"),
    ("scan()", "GET /branches/{name}/records", "shadowswitch search"),
    ("shadows()", "GET /shadow-index/list", "shadowswitch status"),
    ("start_build", "POST /shadow-index/start", "shadowswitch build"),
    ("wait_for", "GET /shadow-index/{id}/status", "shadowswitch status"),
)


def _pattern(column: int) -> re.Pattern[str]:
    """Every phrase of a column, the longest first, and none inside another word."""
    phrases = sorted({row[column] for row in ROWS}, key=len, reverse=True)
    return re.compile("|".join(rf"(?<![\w/]){re.escape(phrase)}(?![\w/])" for phrase in phrases))


_PYTHON, _HTTP = _pattern(0), _pattern(1)
_TO_HTTP = {python: http for python, http, _ in ROWS}
_TO_COMMANDS = {**{http: command for _, http, command in ROWS}, **{python: command for python, _, command in ROWS}}


def in_http(text: str) -> str:
    """A hint for clients of the HTTP API."""
    return _PYTHON.sub(lambda found: _TO_HTTP[found[0]], text)


def in_commands(text: str) -> str:
    """A hint for the command line, whether it comes from the library or from a server."""
    for pattern in (_PYTHON, _HTTP):
        text = pattern.sub(lambda found: _TO_COMMANDS[found[0]], text)
    return text
