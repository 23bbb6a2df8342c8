"""Who may do what: bearer tokens with scopes and branch patterns.

A token file is TOML, one table for each token; only hashes are in it:

    [[token]]
    name = "ci"
    sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
    scopes = ["read", "write", "build"]
    branches = ["feature/*"]
    expires = 2027-01-01T00:00:00Z

`branches` are shell patterns, by default every branch. A token with a branch pattern sees and changes only what belongs
to a branch, and only to a matching one.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

import msgspec

from shadowswitch.model.errors import InvalidConfig, ShadowSwitchError

ENVIRONMENT = "SHADOWSWITCH_TOKENS"
"""Holds what a token file holds, for hosts that keep their secrets in the environment."""
TOKEN_BYTES = 32
TOKEN_FILE_BYTES_MAX = 1 << 20
OWNER_SEPARATOR = "/"


class Scope(StrEnum):
    """What a token may do. None includes another; `admin` is for locks and branches of others, and for the audit."""

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
    """There is no token, or it is not known, or no longer."""


class Forbidden(ShadowSwitchError):
    """The token may not do this."""


class Token(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One token as a file describes it; what it is for, never what it is."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[\w.@:-]{1,64}$")]
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    scopes: frozenset[Scope]
    branches: tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=400)], ...] = ("*",)
    expires: datetime | None = None


class TokenFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A token file."""

    token: tuple[Token, ...] = ()


class Caller(msgspec.Struct, frozen=True):
    """Who is calling, and what they may do."""

    name: str
    scopes: frozenset[Scope]
    branches: tuple[str, ...] = ("*",)
    trusted: bool = False
    """Anybody on this machine, where no tokens are configured: owners of locks are as they say."""

    def may(self, scope: Scope, branch: str | None = None) -> bool:
        """Whether they may do this, to this branch if one is given."""
        return scope in self.scopes and (branch is None or self.reaches(branch))

    def reaches(self, branch: str) -> bool:
        """Whether a branch is one of theirs."""
        return any(fnmatchcase(branch, pattern) for pattern in self.branches)

    def require(self, scope: Scope, branch: str | None = None) -> None:
        """Raise Forbidden unless they may."""
        if scope not in self.scopes:
            raise Forbidden(f"{self.name} may not do this", hint=f"it takes a token with the scope {scope}")
        if branch is not None and not self.reaches(branch):
            raise Forbidden(
                f"{self.name} may not touch branch {branch!r:.220}",
                hint=f"this token is for {', '.join(self.branches)}",
            )

    def owner(self, given: str = "") -> str:
        """The owner under whose name locks are taken and writes are done: the caller's, and a name of theirs."""
        if self.trusted or not given:
            return given or self.name
        return given if self.owns(given) else f"{self.name}{OWNER_SEPARATOR}{given}"

    def owns(self, owner: str) -> bool:
        """Whether a lock of that owner is theirs."""
        return self.trusted or owner == self.name or owner.startswith(f"{self.name}{OWNER_SEPARATOR}")


EVERYTHING = frozenset(Scope)
LOCAL = Caller("local", EVERYTHING, trusted=True)


class Access:
    """The tokens that are known. Any thread; it never changes."""

    def __init__(self, tokens: Iterable[Token] = ()) -> None:
        self._tokens = [(bytes.fromhex(token.sha256), token) for token in tokens]

    @property
    def open(self) -> bool:
        """Whether whoever reaches the port may do everything, because no token is configured."""
        return not self._tokens

    def caller(self, authorization: str | None, now: datetime) -> Caller | None:
        """Who sends this header; None for nobody. Raises Unauthorized for a token that is not known.

        Every known hash is compared in constant time: how long it takes tells nothing.
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
        return Caller(found.name, found.scopes, found.branches)


def digest(secret: str) -> bytes:
    """The hash under which a secret is known."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


def new_token(name: str, scopes: Iterable[Scope], branches: Iterable[str] = ("*",)) -> tuple[str, Token]:
    """A fresh secret, which is nowhere else, and what a token file says of it. Raises InvalidConfig."""
    secret = secrets.token_urlsafe(TOKEN_BYTES)
    token = Token(name, digest(secret).hex(), frozenset(scopes), tuple(branches))
    try:
        return secret, msgspec.convert(msgspec.to_builtins(token), Token)
    except msgspec.ValidationError as error:
        raise InvalidConfig(f"this cannot be a token: {error}") from error


def load_tokens(file: Path | None, environment: str | None = None) -> list[Token]:
    """The tokens of a file and of the environment variable SHADOWSWITCH_TOKENS. Raises InvalidConfig."""
    found: list[Token] = []
    if file is not None:
        try:
            with open(file, "rb") as opened:
                others = os.fstat(opened.fileno()).st_mode & 0o022
                text = opened.read(TOKEN_FILE_BYTES_MAX + 1)
        except OSError as error:
            raise InvalidConfig(f"cannot read the token file {file}: {error.strerror}") from error
        if others:
            raise InvalidConfig(f"others may write the token file {file}", hint=f"chmod 600 {file}")
        if len(text) > TOKEN_FILE_BYTES_MAX:
            raise InvalidConfig(f"the token file {file} is larger than {TOKEN_FILE_BYTES_MAX} bytes")
        found += _parse(text, f"token file {file}")
    if environment:
        found += _parse(environment.encode(), f"environment variable {ENVIRONMENT}")
    names = [token.name for token in found]
    for name in names:
        if names.count(name) > 1:
            raise InvalidConfig(f"two tokens are named {name}", hint="the audit could not tell them apart; rename one")
    return found


def _parse(text: bytes, where: str) -> list[Token]:
    try:
        tokens = list(msgspec.toml.decode(text, type=TokenFile).token)
    except msgspec.DecodeError as error:  # ValidationError is one, too; neither shows what it read
        raise InvalidConfig(f"{where}: {error}", hint="shadowswitch token makes an entry") from error
    for token in tokens:
        if token.expires is not None and token.expires.tzinfo is None:
            raise InvalidConfig(f"{where}: `expires` of {token.name} has no time zone", hint="end it with Z")
    return tokens


def now() -> datetime:
    """The present, in UTC."""
    return datetime.now(UTC)
