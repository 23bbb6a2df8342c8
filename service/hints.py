"""Hints for each interface: the library's hints name Python calls, which become routes or commands here.

Each row has the phrase of a Python hint, the phrase of the HTTP API, and the phrase of the command line. A call without
a command keeps the phrase of the HTTP API.
"""

from __future__ import annotations

import re

ROWS: tuple[tuple[str, str, str], ...] = (
    (
        "build one with start_build and switch to it, or rebuild",
        "build one with POST /shadow-index/start and switch to it",
        "shadowswitch build ... --switch creates one",
    ),
    ("open it again with Engine.open", "try again when the server is back", "try again when the server is back"),
    ("changes(after=head)", "GET /branches/{name}/changes?after=", "shadowswitch events --after"),
    ("Config.builds_max", "builds_max of [engine]", "builds_max of [engine] in shadowswitch.toml"),
    (
        "Config.disk_reserve_bytes",
        "disk_reserve_bytes of [engine]",
        "disk_reserve_bytes of [engine] in shadowswitch.toml",
    ),
    ("archive_branch", "POST /branches/{name}/archive", "shadowswitch branch archive"),
    (
        "complete_indexing",
        "POST /branch-locks/indexing/{branch}/complete",
        "POST /branch-locks/indexing/{branch}/complete",
    ),
    ("merge_branch", "POST /branches/{name}/merge", "shadowswitch branch merge"),
    ("recover_branch", "POST /branches/{name}/recover", "shadowswitch branch recover"),
    ("release_lock", "DELETE /branch-locks/locks/{id}", "DELETE /branch-locks/locks/{id}"),
    ("reopen_branch", "POST /branches/{name}/reopen", "shadowswitch branch reopen"),
    ("cascade drops the forks", "cascade=true drops the forks", "--cascade drops the forks"),
    ("fork_branch", "POST /branches/{name}/fork", "shadowswitch fork"),
    ("merge_into", "POST /branches/{name}/merge-into", "shadowswitch merge"),
    ("drop_index", "DELETE /indexes", "shadowswitch drop"),
    ("external=True", '"external": true', "external=True"),
    ("acquire_lock", "POST /branch-locks/acquire", "POST /branch-locks/acquire"),
    ("branches()", "GET /branches", "shadowswitch status"),
    ("cancel_build", "DELETE /shadow-index/{id}", "shadowswitch cancel"),
    ("create_branch", "POST /branches", "shadowswitch import"),
    (
        "cancel_build ends a build, release_lock a lock",
        "DELETE /shadow-index/{id} ends a build, DELETE /branch-locks/locks/{id} a lock",
        "shadowswitch cancel ends a build, DELETE /branch-locks/locks/{id} a lock",
    ),
    ("fail_build", "POST /shadow-index/{id}/fail", "shadowswitch cancel"),
    (  # the scope `force_unlock` of a token keeps its name
        "force_unlock first",
        "POST /branch-locks/force-unlock/{branch} first",
        "POST /branch-locks/force-unlock/{branch} first",
    ),
    (
        "force_unlock frees the branch",
        "POST /branch-locks/force-unlock/{branch} frees it",
        "POST /branch-locks/force-unlock/{branch} frees it",
    ),
    ("break_group=True in the request", '"break_group": true', "--break-group"),
    ("start_group", "POST /groups", "shadowswitch group start"),
    ("switch_group", "POST /groups/{id}/switch", "shadowswitch group switch"),
    ("rollback_group", "POST /groups/{id}/rollback", "shadowswitch group rollback"),
    ("dissolve_group", "POST /groups/{id}/dissolve", "shadowswitch group dissolve"),
    ("groups()", "GET /groups", "shadowswitch group show"),
    ("index()", "GET /indexes", "shadowswitch status"),
    ("pause_build", "POST /shadow-index/{id}/pause", "shadowswitch pause"),
    ("resume_build", "POST /shadow-index/{id}/resume", "shadowswitch resume"),
    ("retry_build", "POST /shadow-index/{id}/retry", "shadowswitch retry"),
    ("scan()", "GET /branches/{name}/records", "shadowswitch search"),
    ("schedule_switch", "POST /shadow-index/{id}/schedule", "shadowswitch schedule"),
    ("set_priority", "POST /shadow-index/{id}/priority", "shadowswitch priority"),
    ("the same rebuild again", "the same build again", "the same build command with --switch"),
    ("shadow()", "GET /shadow-index/{id}/status", "shadowswitch status"),
    ("shadows()", "GET /shadow-index/list", "shadowswitch status"),
    ("start_build", "POST /shadow-index/start", "shadowswitch build"),
    (
        "more time (switch_timeout_seconds)",
        "more time (switch_timeout_seconds)",
        "more time (--switch-timeout)",
    ),
    ("timeout_s gives it more time", "timeout_s gives it more time", "--timeout gives it more time"),
    ("throttle_build", "POST /shadow-index/{id}/throttle", "shadowswitch throttle"),
    ("wait_for", "GET /shadow-index/{id}/status", "shadowswitch status"),
)


def _pattern(*columns: int) -> re.Pattern[str]:
    """Match the phrases of columns as whole words, the longest first."""
    phrases = sorted({row[column] for row in ROWS for column in columns}, key=len, reverse=True)
    return re.compile("|".join(rf"(?<![\w/]){re.escape(phrase)}(?![\w/])" for phrase in phrases))


_PYTHON, _BOTH = _pattern(0), _pattern(0, 1)
_TO_HTTP = {python: http for python, http, _ in ROWS}
_TO_COMMANDS = {**{http: command for _, http, command in ROWS}, **{python: command for python, _, command in ROWS}}


def in_http(text: str) -> str:
    """Translate a hint for clients of the HTTP API."""
    return _PYTHON.sub(lambda found: _TO_HTTP[found[0]], text)


def in_commands(text: str) -> str:
    """Translate a hint of the library or of a server for the command line."""
    return _BOTH.sub(lambda found: _TO_COMMANDS[found[0]], text)
