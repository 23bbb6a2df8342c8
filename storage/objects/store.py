"""Objects: values with a path, written once, in a folder or in a bucket of an object store.

A path is relative to that of the URL: names of letters, digits, `-` and `.`, joined by `/`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import msgspec


class Listed(msgspec.Struct, frozen=True):
    """An object as it is listed."""

    path: str
    size_bytes: int
    changed_at: float
    """Seconds since the epoch, by the clock of the store."""


class ObjectStore(Protocol):
    """A folder or a bucket. Any thread. Each call has a deadline.

    Each raises StoreUnavailable when the store does not answer or refuses, StorageFull, ResourceExhausted.
    """

    url: str
    """For people to read, without credentials."""

    def put(self, path: str, data: bytes, settled: bool = True) -> None:
        """Store an object durably, whole or not at all; one of that path is replaced.

        One that need not be `settled` is durable, and whole, once `settle` was called with its path.
        """

    def settle(self, paths: Iterable[str]) -> None:
        """Make objects durable that were put without that: many at a time cost little more than one."""

    def create(self, path: str, data: bytes) -> bool:
        """Store an object durably if there is none of that path; False if there is one, or may be.

        After StoreUnavailable it may have been stored. Ask `get` what is there.
        """

    def get(self, path: str) -> bytes | None:
        """An object; None if there is none."""

    def listed(self, folder: str) -> Iterator[Listed]:
        """The objects below a folder, in no order."""

    def delete(self, path: str) -> None:
        """Remove an object; one that is not there is no error."""
