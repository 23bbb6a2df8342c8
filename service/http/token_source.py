"""The tokens of a server as they are now: a change of the token file holds for the next request and open streams."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

from shadowswitch.model.errors import InvalidConfig
from shadowswitch.service.http.access import EVERYTHING, Access, Token, load_tokens, new_token

logger = logging.getLogger("shadowswitch")
Stamp = tuple[int, int, int, int]


class TokenSource:
    """The token file and the content of SHADOWSWITCH_TOKENS. Any thread.

    A file that is removed, or wrong, after the start leaves the tokens as they were, and the log has the error. A
    server that began with tokens never serves without them: a file without entries revokes all of them.
    """

    def __init__(self, file: Path | None = None, environment: str | None = None) -> None:
        self._file = file
        self._environment = environment
        self._stamp = self._stamp_now()
        self._lock = threading.Lock()
        tokens = load_tokens(file, environment)
        if file is not None and not tokens:
            raise InvalidConfig(
                f"the token file {file} has no token, and a server without tokens gives every right",
                hint="shadowswitch token makes an entry; leave --token-file out to serve without tokens",
            )
        self.secret = ""
        """The secret of the token that the file HOST gives to commands of the same user; "" without tokens."""
        self._own: Token | None = None
        if tokens:
            self.secret, self._own = new_token(f"user-{os.getuid()}", EVERYTHING)
        self.access = self._access_of(tokens)

    def changed(self) -> bool:
        """Whether the file is another than the one that was read: one system call."""
        return self._file is not None and self._stamp_now() != self._stamp

    def reload(self) -> None:
        """Read a changed file again."""
        with self._lock:
            if not self.changed():
                return
            stamp = self._stamp_now()
            try:
                tokens = load_tokens(self._file, self._environment)
            except InvalidConfig as error:
                logger.error("the tokens stay as they were: %s", error)
            else:
                self.access = self._access_of(tokens)
                logger.info("the token file has changed: %d tokens", len(tokens))
            self._stamp = stamp  # last: a request that sees no change must see the new tokens

    def _access_of(self, tokens: list[Token]) -> Access:
        return Access([*tokens, self._own]) if self._own is not None else Access()

    def _stamp_now(self) -> Stamp | None:
        if self._file is None:
            return None
        try:
            found = os.stat(self._file)
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
