"""The ignore rules of a folder: its `.gitignore` files, read as git reads them, and the patterns of the settings.

A deeper `.gitignore` overrides a higher one. Everything below an ignored folder is ignored. A `.gitignore` is content:
its size, and the number, length and depth of its patterns are bounded. What is beyond a bound has no effect.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from shadowswitch.service.daemon.patterns import Pattern, pattern, verdict
from shadowswitch.storage import no_links
from shadowswitch.storage.shortages import passing

logger = logging.getLogger("shadowswitch")

GITIGNORE = ".gitignore"
GITIGNORE_BYTES_MAX = 1 << 20
PATTERNS_MAX = 5000
"""The patterns of one `.gitignore` that have an effect."""
WARNINGS_MAX = 20
"""Invalid patterns of one `.gitignore` that are logged; the next line counts the others."""


class IgnoreRules:
    """The rules of one folder. Each `.gitignore` is read once, and again after `forget`. One thread."""

    def __init__(self, folder: Path, patterns: Iterable[str] = ()) -> None:
        """Raises ValueError for an invalid pattern."""
        self.folder = folder
        self._own = last_first(map(pattern, patterns))
        self._read: dict[PurePosixPath, list[Pattern]] = {}
        self._warned: dict[PurePosixPath, list[str]] = {}
        """By folder, the warnings about its `.gitignore` when it was read last: each is logged once."""

    def forget(self) -> None:
        """Read every `.gitignore` again: one of them may have changed."""
        self._warned = {folder: warnings for folder, warnings in self._warned.items() if folder in self._read}
        self._read.clear()

    def ignored(self, path: Path, is_folder: bool) -> bool:
        """Do the rules ignore this entry? The folders above it are not checked."""
        relative = PurePosixPath(path.relative_to(self.folder).as_posix())
        for above in relative.parents:  # the deepest folder comes first
            found = verdict(self._patterns(above), str(relative.relative_to(above)), is_folder)
            if found is not None:
                return found
        return bool(verdict(self._own, str(relative), is_folder))

    def ignored_with_parents(self, path: Path, is_folder: bool) -> bool:
        """Do the rules ignore this entry or a folder above it?"""
        relative = path.relative_to(self.folder)
        folders = [self.folder / above for above in reversed(relative.parents) if above.parts]
        return any(self.ignored(folder, True) for folder in folders) or self.ignored(path, is_folder)

    def _patterns(self, folder: PurePosixPath) -> list[Pattern]:
        found = self._read.get(folder)
        if found is None:
            found, warnings = read_patterns(self.folder, folder / GITIGNORE)
            for warning in warnings:
                if warning not in self._warned.get(folder, ()):
                    logger.warning("%s: %s", self.folder / folder / GITIGNORE, warning)
            self._read[folder] = found
            self._warned.pop(folder, None)
            if warnings:
                self._warned[folder] = warnings
        return found


def last_first(patterns: Iterable[Pattern | None]) -> list[Pattern]:
    """The patterns in the order in which `verdict` tries them."""
    return [one for one in patterns if one is not None][::-1]


def read_patterns(folder: Path, relative: PurePosixPath) -> tuple[list[Pattern], list[str]]:
    """The valid patterns of a file below a folder, the last one first, and the warnings about the others.

    None of a file that cannot be read. Raises ResourceExhausted.
    """
    try:
        with no_links.opened_below(folder, relative) as descriptor:
            lines = no_links.read(descriptor, GITIGNORE_BYTES_MAX).decode(errors="surrogateescape").split("\n")
    except OSError as error:
        lack = passing(error, "read ignore rules", str(folder / relative))
        if lack is not None:  # without its rules the files that it leaves out would become records
            raise lack from error
        return [], []
    found: list[Pattern | None] = []
    warnings: list[str] = []
    invalid = 0
    for line in lines:
        try:
            found.append(pattern(line))
        except ValueError as error:
            invalid += 1
            if invalid <= WARNINGS_MAX:
                warnings.append(str(error))
        if len(found) == PATTERNS_MAX:
            warnings.append(f"the patterns after line {PATTERNS_MAX} have no effect")
            break
    if invalid > WARNINGS_MAX:
        warnings.append(f"{invalid - WARNINGS_MAX} more patterns are invalid")
    return last_first(found), warnings
