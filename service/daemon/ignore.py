"""Which files of a folder are not wanted: `.gitignore` files, as git reads them, and patterns from the settings.

A pattern of a deeper `.gitignore` outweighs that of a higher one; what lies in an ignored folder stays ignored.
The patterns themselves are pathspec's.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from pathspec import GitIgnoreSpec

logger = logging.getLogger("shadowswitch")

GITIGNORE = ".gitignore"
GITIGNORE_BYTES_MAX = 1 << 20


class IgnoreRules:
    """The rules below one folder. Reads each `.gitignore` once, until `forget`. One thread."""

    def __init__(self, folder: Path, patterns: Iterable[str] = ()) -> None:
        """Raises ValueError for a pattern that is none."""
        self.folder = folder
        self._own = GitIgnoreSpec.from_lines(patterns)
        self._specs: dict[PurePosixPath, GitIgnoreSpec] = {}

    def forget(self) -> None:
        """A `.gitignore` changed."""
        self._specs.clear()

    def ignored(self, path: Path, is_folder: bool) -> bool:
        """Is this entry itself unwanted? The folders above it are taken as wanted."""
        relative = PurePosixPath(path.relative_to(self.folder).as_posix())
        for above in relative.parents:  # the deepest first
            found = _says(self._spec(above), relative.relative_to(above), is_folder)
            if found is not None:
                return found
        return bool(_says(self._own, relative, is_folder))

    def unwanted(self, path: Path, is_folder: bool = False) -> bool:
        """Is it, or a folder above it, unwanted?"""
        relative = path.relative_to(self.folder)
        folders = [self.folder / above for above in reversed(relative.parents) if above.parts]
        return any(self.ignored(folder, True) for folder in folders) or self.ignored(path, is_folder)

    def _spec(self, folder: PurePosixPath) -> GitIgnoreSpec:
        spec = self._specs.get(folder)
        if spec is None:
            spec = self._specs[folder] = _read(self.folder / folder / GITIGNORE)
        return spec


def _says(spec: GitIgnoreSpec, relative: PurePosixPath, is_folder: bool) -> bool | None:
    return spec.check_file(f"{relative}/" if is_folder else str(relative)).include


def _read(path: Path) -> GitIgnoreSpec:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            lines = file.read(GITIGNORE_BYTES_MAX).decode(errors="surrogateescape").splitlines()
    except OSError:
        return GitIgnoreSpec.from_lines([])
    try:
        return GitIgnoreSpec.from_lines(lines)
    except ValueError:
        return GitIgnoreSpec.from_lines(filter(lambda line: _is_pattern(path, line), lines))


def _is_pattern(path: Path, line: str) -> bool:
    try:
        GitIgnoreSpec.from_lines([line])
    except ValueError as error:
        logger.warning("%s: %r is no pattern: %s", path, line, error)
        return False
    return True
