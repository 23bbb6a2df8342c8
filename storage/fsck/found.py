"""Findings, bounded, and the reading of what may not decode."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TypeVar

import msgspec

from shadowswitch.model.errors import CorruptData
from shadowswitch.model.views import Finding

T = TypeVar("T")
FINDINGS_MAX = 20
"""Findings of one kind in one place; more add nothing."""
UNREADABLE = (CorruptData, ValueError, msgspec.MsgspecError, struct.error)
"""What the decoding of damaged bytes raises."""


def readable(read: Callable[[], T], findings: list[Finding]) -> T | None:
    """What `read` returns. What does not decode is a finding, and the check goes on without it."""
    try:
        return read()
    except UNREADABLE as error:
        findings.append(undecoded(error))
        return None


def undecoded(error: Exception) -> Finding:
    """The finding of what does not decode."""
    return Finding("ST-4", "catalog", f"a part of it does not decode: {error}")


def first(found: Iterator[Finding]) -> list[Finding]:
    """The findings of a check of the catalog; its end where something does not decode is one, too."""
    listed: list[Finding] = []
    while len(listed) < FINDINGS_MAX:
        finding = readable(lambda: next(found, None), listed)
        if finding is None:
            break
        listed.append(finding)
    return listed


class Bounded:
    """Findings, of each branch at most FINDINGS_MAX."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self._counts = Counter[int]()

    def add(self, branch: int, finding: Finding) -> None:
        """Keep a finding, unless the branch has enough."""
        self._counts[branch] += 1
        if self._counts[branch] <= FINDINGS_MAX:
            self.findings.append(finding)
