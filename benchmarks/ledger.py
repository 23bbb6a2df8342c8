"""The ledger of acknowledged changes, and the one auditor that compares any index with it.

An index is wrong in a record when it does not hold the version that was acknowledged last: a *lost* write (an older
version, or none), or a *revived* delete (any version of a record whose deletion was acknowledged). The order of two
changes of a record is that of their LSNs. A record with a change of unknown outcome is left out.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

import msgspec

Key = tuple[str, str, str]
"""Branch, resource type, id."""


class Version(msgspec.Struct, frozen=True):
    """The newest acknowledged change of a record."""

    lsn: int
    deleted: bool
    acked_at: float


class Verdict(msgspec.Struct):
    """Versions that an index had lost or revived when the auditor looked."""

    lost: set[tuple[Key, int]] = set()
    revived: set[tuple[Key, int]] = set()
    looked_at: int = 0

    def add(self, other: Verdict) -> None:
        """Add the verdict of another look."""
        self.lost |= other.lost
        self.revived |= other.revived
        self.looked_at += other.looked_at


class Ledger:
    """The acknowledged changes. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._newest: dict[Key, Version] = {}
        self._unknown: set[Key] = set()

    def imported(self, key: Key, lsn: int) -> None:
        """A record that was imported before the run."""
        self._newest[key] = Version(lsn, False, 0.0)

    def acked(self, key: Key, lsn: int, deleted: bool) -> None:
        """A change was acknowledged, just now."""
        version = Version(lsn, deleted, time.perf_counter())
        with self._lock:
            before = self._newest.get(key)
            if before is None or before.lsn < lsn:
                self._newest[key] = version

    def unknown(self, key: Key) -> None:
        """A change failed with an unknown outcome."""
        with self._lock:
            self._unknown.add(key)

    def newest(self, key: Key) -> Version | None:
        """The version that a reader must see by now, or None when that is unknown."""
        with self._lock:
            return None if key in self._unknown else self._newest.get(key)

    def of_branch(self, branch: str, since: float = 0.0) -> dict[Key, Version]:
        """The newest versions of a branch that were acknowledged at or after a moment (perf_counter)."""
        with self._lock:
            return {
                key: version
                for key, version in self._newest.items()
                if key[0] == branch and version.acked_at >= since and key not in self._unknown
            }

    def audit_changed(
        self,
        known: Mapping[Key, Version],
        lsn_of: Callable[[Key], int | None],
        source: Callable[[Key], int | None],
    ) -> Verdict:
        """Hold records against the index while people go on working.

        `known` must be what `of_branch` gave before the index was last asked to catch up. `lsn_of` gives the version
        that the index holds, `source` the one that the branch holds, None for none. A record that has a newer version
        by now, acknowledged or not, is left to the next audit.
        """
        found = Verdict()
        for key, version in known.items():
            held = lsn_of(key)
            settled = source(key) == (None if version.deleted else version.lsn)
            if settled and self.newest(key) == version:
                judge(found, key, version, held)
        return found

    def audit_whole(self, branch: str, held: Mapping[Key, int]) -> Verdict:
        """Compare the whole ledger with everything that the index holds, while no writer runs."""
        found = Verdict()
        known = self.of_branch(branch)
        for key, version in known.items():
            judge(found, key, version, held.get(key))
        with self._lock:
            found.revived |= {(key, lsn) for key, lsn in held.items() if key not in known and key not in self._unknown}
        return found


def judge(found: Verdict, key: Key, version: Version, held: int | None) -> None:
    """Look at one record."""
    found.looked_at += 1
    if version.deleted:
        if held is not None and held != version.lsn:
            found.revived.add((key, version.lsn))
    elif held is None or held < version.lsn:
        found.lost.add((key, version.lsn))
    elif held > version.lsn:
        found.revived.add((key, held))
