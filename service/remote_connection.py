"""RemoteConnection: one HTTP connection to the server of a data directory. Errors keep their classes."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import msgspec

from shadowswitch.engine.calls.authors import author
from shadowswitch.model import errors
from shadowswitch.model.errors import ShadowSwitchError
from shadowswitch.model.names import check_named_branch
from shadowswitch.service.host_file import HostFile

T = TypeVar("T")

API = "/api/v1"
TIMEOUT_S = 60.0
PROBLEM = "urn:shadowswitch:problem:"


class ServerGone(ShadowSwitchError):
    """The server that has the directory open does not answer."""


class RemoteConnection:
    """The calls of a client, one after the other. One thread."""

    def __init__(self, found: HostFile, data: Path) -> None:
        parts = urlsplit(found.url)
        self.path = data.absolute()
        self._token = found.token
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT_S)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _call(
        self,
        method: str,
        path: str,
        body: Any,
        kind: type[T],
        timeout_s: float = TIMEOUT_S,
        *,
        by: str = "",
        reason: str = "",
    ) -> T:
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        if method != "GET":
            headers |= {"X-Audit-By": quote(author(by)[0]), "X-Audit-Reason": quote(reason)}
        content = None
        if body is not None:
            content, headers["Content-Type"] = msgspec.json.encode(body), "application/json"
        try:
            self._connection.timeout = timeout_s
            if self._connection.sock is not None:
                self._connection.sock.settimeout(timeout_s)
            self._connection.request(method, f"{API}/{path}", content, headers)
            response = self._connection.getresponse()
            text = response.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            timed_out = isinstance(error, TimeoutError)
            raise ServerGone(
                f"the server of {self.path} {'does not answer' if timed_out else 'is gone'}: {error!r:.200}",
                hint="shadowswitch status shows whether the server runs",
            ) from error
        except BaseException:  # interrupted: the next call does not read the answer to this one
            self._connection.close()
            raise
        if response.status >= 300:
            raise error_of(text)
        return msgspec.json.decode(text, type=kind)


def branch_segment(name: str) -> str:
    """The name of a branch as a segment of a path, or a value of a query. Raises InvalidName."""
    return segment(check_named_branch(name))


def segment(name: str) -> str:
    """A text as a segment of a path, or a value of a query."""
    return quote(name, safe="").replace(".", "%2E")


def error_of(text: bytes) -> ShadowSwitchError:
    """The error of a problem document, in its own class."""
    try:
        problem: dict[str, Any] = msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError:
        return ServerGone(f"the answer is no problem document: {text[:100]!r}", hint="is the server shadowswitch?")
    name = "".join(word.capitalize() for word in str(problem.get("type", "")).removeprefix(PROBLEM).split("-"))
    kind = getattr(errors, name, None)
    if not (isinstance(kind, type) and issubclass(kind, ShadowSwitchError)):
        kind = ShadowSwitchError
    wrong = "; ".join(_wrong(problem.get("errors")))
    error = (errors.InvalidConfig if wrong else kind)(
        wrong or str(problem.get("detail", "refused")),
        hint=str(problem.get("hint", "")),
        operation=str(problem.get("operation", "")),
        object=str(problem.get("object", "")),
    )
    if isinstance(error, errors.DuplicateBuild):
        error.shadow_index_id = str(problem.get("shadow_index_id", ""))
    if isinstance(error, errors.InUse):
        error.uses = [str(use) for use in problem.get("uses") or []]
    return error


def _wrong(found: Any) -> Iterator[str]:
    """The parts of a request that are wrong, each with its name."""
    for one in found if isinstance(found, list) else []:
        if isinstance(one, dict):
            yield f"{one.get('key', '')}: {one.get('message', '')}"
