"""The author and the reason of a call, for the audit history."""

from __future__ import annotations

import functools
import os
import pwd
import socket

from shadowswitch.engine.arguments import check_text
from shadowswitch.model.events import NOT_GIVEN

BY_CHARS_MAX = 1000
REASON_CHARS_MAX = 10_000


def author(by: str = "", reason: str = "") -> tuple[str, str]:
    """Author and reason as the audit history keeps them: by default `user@host, process N`, and "not given".

    Raises InvalidConfig for a value that is no text, or too long.
    """
    by, reason = check_text("by", by, BY_CHARS_MAX), check_text("reason", reason, REASON_CHARS_MAX)
    return (
        by.strip() or f"{_name_of(os.geteuid())}@{socket.gethostname()}, process {os.getpid()}",
        reason.strip() or NOT_GIVEN,
    )


@functools.lru_cache(maxsize=16)
def _name_of(user_id: int) -> str:
    try:
        return pwd.getpwuid(user_id).pw_name
    except KeyError:
        return f"user-{user_id}"
