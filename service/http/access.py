"""Access: bearer tokens with scopes and branch patterns.

A token file is TOML, with one table for each token. It holds hashes, no secrets:

    [[token]]
    name = "ci"
    sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
    scopes = ["read", "write", "build"]
    branches = ["feature/*"]
    expires = 2027-01-01T00:00:00Z

`branches` are shell patterns; the default is every branch.
A token with patterns sees and changes matching branches only.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import os
import secrets
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

import msgspec

from shadowswitch.model.errors import InvalidConfig, ShadowSwitchError

ENVIRONMENT = "SHADOWSWITCH_TOKENS"
"""The content of a token file, for hosts that keep their configuration in the environment."""
TOKEN_BYTES = 32
TOKEN_FILE_BYTES_MAX = 1 << 20
OWNER_SEPARATOR = "/"


class Scope(StrEnum):
    """A right of a token. No scope includes another; `admin` covers the locks and branches of others, and the audit."""

    READ = "read"
    WRITE = "write"
    BUILD = "build"
    SWITCH = "switch"
    ROLLBACK = "rollback"
    LOCK = "lock"
    ADMIN = "admin"
    FORCE_SWITCH = "force_switch"
    FORCE_UNLOCK = "force_unlock"


class Unauthorized(ShadowSwitchError):
    """The token is missing, unknown or expired."""


class Forbidden(ShadowSwitchError):
    """The token does not allow it."""


class Token(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One token as a file describes it: its rights and its hash, never its secret."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[\w.@:-]{1,64}\Z")]
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    scopes: frozenset[Scope]
    branches: tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=400)], ...] = ("*",)
    expires: datetime | None = None


class TokenFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A token file."""

    token: tuple[Token, ...] = ()


class Caller(msgspec.Struct, frozen=True):
    """The caller of a request, and its rights."""

    name: str
    scopes: frozenset[Scope]
    branches: tuple[str, ...] = ("*",)
    token: Token | None = None
    trusted: bool = False
    """No tokens are configured, so the caller is any program of this machine, and names the owner of a lock freely."""
    by: str = ""
    """The person or program for which the caller speaks, by its own word (`X-Audit-By`)."""
    reason: str = ""
    """The reason of the request (`X-Audit-Reason`), where its body has none."""

    @property
    def author(self) -> str:
        """The author in the audit history. The name of the token is always in it."""
        return f"{self.by} (as {self.name})" if self.by else self.name

    def may(self, scope: Scope, branch: str | None = None) -> bool:
        """Whether the caller has a scope, for a branch if one is given."""
        return scope in self.scopes and (branch is None or self.reaches(branch))

    def reaches(self, branch: str) -> bool:
        """Whether a branch matches the patterns."""
        return any(fnmatchcase(branch, pattern) for pattern in self.branches)

    @property
    def wanted(self) -> Callable[[str], bool] | None:
        """`reaches`, as the filter of a list; None for a caller that reaches every branch."""
        return None if "*" in self.branches else self.reaches

    def require(self, scope: Scope, branch: str | None = None) -> None:
        """Raise Forbidden unless the caller has a scope, for a branch if one is given."""
        if scope not in self.scopes:
            raise Forbidden(
                f"{self.name} may not do this: the scope {scope} is missing", hint=f"use a token with the scope {scope}"
            )
        if branch is not None and not self.reaches(branch):
            raise Forbidden(
                f"{self.name} may not touch branch {branch!r:.220}",
                hint=f"this token is for {', '.join(self.branches)}",
            )

    def seconds_left(self, moment: datetime) -> float:
        """The time until the token expires; infinite without an expiry."""
        expires = self.token.expires if self.token is not None else None
        return max(0.0, (expires - moment).total_seconds()) if expires is not None else math.inf

    def owner(self, given: str = "") -> str:
        """The owner of the locks and writes of this caller: its name, or a name below it."""
        if self.trusted or not given:
            return given or self.name
        return given if self.owns(given) else f"{self.name}{OWNER_SEPARATOR}{given}"

    def owns(self, owner: str) -> bool:
        """Whether a lock of that owner belongs to this caller."""
        return self.trusted or owner == self.name or owner.startswith(f"{self.name}{OWNER_SEPARATOR}")


EVERYTHING = frozenset(Scope)
LOCAL = Caller("local", EVERYTHING, trusted=True)


class Access:
    """The known tokens. Immutable; any thread."""

    def __init__(self, tokens: Iterable[Token] = ()) -> None:
        self._tokens = [(bytes.fromhex(token.sha256), token) for token in tokens]
        self._by_hash = {token.sha256: token for _, token in self._tokens}

    @property
    def open(self) -> bool:
        """Whether no token is configured. Then every client that reaches the port has every right."""
        return not self._tokens

    def caller(self, authorization: str | None, now: datetime) -> Caller | None:
        """The caller that sends this header; None without a header. Raises Unauthorized for an unknown token.

        Every known hash is compared in constant time, so the time of an answer reveals nothing.
        """
        if authorization is None:
            return LOCAL if self.open else None
        kind, _, secret = authorization.partition(" ")
        given = digest(secret.strip())
        found = None
        for known, token in self._tokens:
            if hmac.compare_digest(known, given):
                found = token
        if kind.lower() != "bearer" or found is None or (found.expires is not None and found.expires <= now):
            raise Unauthorized("the token is not known", hint="send Authorization: Bearer TOKEN with a valid one")
        return Caller(found.name, found.scopes, found.branches, found)

    def admits(self, caller: Caller, moment: datetime) -> bool:
        """Whether a caller that was admitted is still: its token is known, as it was, and has not expired."""
        if caller.token is None:
            return caller.trusted and self.open
        expires = caller.token.expires
        return (expires is None or expires > moment) and self._by_hash.get(caller.token.sha256) == caller.token


def digest(secret: str) -> bytes:
    """The hash of a secret."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


def new_token(name: str, scopes: Iterable[Scope], branches: Iterable[str] = ("*",)) -> tuple[str, Token]:
    """A new secret, stored nowhere, and its entry for a token file. Raises InvalidConfig."""
    secret = secrets.token_urlsafe(TOKEN_BYTES)
    token = Token(name, digest(secret).hex(), frozenset(scopes), tuple(branches))
    try:
        return secret, msgspec.convert(msgspec.to_builtins(token), Token)
    except msgspec.ValidationError as error:
        raise InvalidConfig(f"this cannot be a token: {error}") from error


def load_tokens(file: Path | None, environment: str | None = None) -> list[Token]:
    """The tokens of a file and of the content of SHADOWSWITCH_TOKENS. Raises InvalidConfig."""
    found: list[Token] = []
    if file is not None:
        try:
            with open(file, "rb") as opened:
                others = os.fstat(opened.fileno()).st_mode & 0o022
                text = opened.read(TOKEN_FILE_BYTES_MAX + 1)
        except OSError as error:
            raise InvalidConfig(f"cannot read the token file {file}: {error.strerror}") from error
        if others:
            raise InvalidConfig(f"other users may write the token file {file}", hint=f"chmod 600 {file}")
        if len(text) > TOKEN_FILE_BYTES_MAX:
            raise InvalidConfig(f"the token file {file} is larger than {TOKEN_FILE_BYTES_MAX} bytes")
        found += _parse(text, f"token file {file}")
    if environment:
        found += _parse(environment.encode(), f"environment variable {ENVIRONMENT}")
    names = [token.name for token in found]
    for name in names:
        if names.count(name) > 1:
            raise InvalidConfig(f"two tokens are named {name}", hint="rename one: the audit names a token by its name")
    return found


def _parse(text: bytes, where: str) -> list[Token]:
    try:
        tokens = list(msgspec.toml.decode(text, type=TokenFile).token)
    except msgspec.DecodeError as error:  # also a ValidationError; the message of neither quotes the file
        raise InvalidConfig(f"{where}: {error}", hint="shadowswitch token makes an entry") from error
    for token in tokens:
        if token.expires is not None and token.expires.tzinfo is None:
            raise InvalidConfig(f"{where}: `expires` of {token.name} has no time zone", hint="end it with Z")
    return tokens


def now() -> datetime:
    """The present time, in UTC."""
    return datetime.now(UTC)
