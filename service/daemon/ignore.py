"""The ignore rules of a folder: its `.gitignore` files, read as git reads them, and the patterns of the settings.

A deeper `.gitignore` overrides a higher one. Everything below an ignored folder is ignored. pathspec matches the
patterns.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from pathspec import GitIgnoreSpec

from shadowswitch.storage.shortages import passing

logger = logging.getLogger("shadowswitch")

GITIGNORE = ".gitignore"
GITIGNORE_BYTES_MAX = 1 << 20


class IgnoreRules:
    """The rules of one folder. Each `.gitignore` is read once, and again after `forget`. One thread."""

    def __init__(self, folder: Path, patterns: Iterable[str] = ()) -> None:
        """Raises ValueError for an invalid pattern."""
        self.folder = folder
        self._own = GitIgnoreSpec.from_lines(patterns)
        self._specs: dict[PurePosixPath, GitIgnoreSpec] = {}

    def forget(self) -> None:
        """Read every `.gitignore` again: one of them changed."""
        self._specs.clear()

    def ignored(self, path: Path, is_folder: bool) -> bool:
        """Do the rules ignore this entry? The folders above it are not checked."""
        relative = PurePosixPath(path.relative_to(self.folder).as_posix())
        for above in relative.parents:  # the deepest folder comes first
            found = _match(self._spec(above), relative.relative_to(above), is_folder)
            if found is not None:
                return found
        return bool(_match(self._own, relative, is_folder))

    def ignored_with_parents(self, path: Path, is_folder: bool) -> bool:
        """Do the rules ignore this entry or a folder above it?"""
        relative = path.relative_to(self.folder)
        folders = [self.folder / above for above in reversed(relative.parents) if above.parts]
        return any(self.ignored(folder, True) for folder in folders) or self.ignored(path, is_folder)

    def _spec(self, folder: PurePosixPath) -> GitIgnoreSpec:
        spec = self._specs.get(folder)
        if spec is None:
            spec = self._specs[folder] = _read(self.folder / folder / GITIGNORE)
        return spec


def _match(spec: GitIgnoreSpec, relative: PurePosixPath, is_folder: bool) -> bool | None:
    """True: ignored; False: included again by a `!` pattern; None: no pattern matches."""
    return spec.check_file(f"{relative}/" if is_folder else str(relative)).include


def _read(path: Path) -> GitIgnoreSpec:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            lines = file.read(GITIGNORE_BYTES_MAX).decode(errors="surrogateescape").splitlines()
    except OSError as error:
        lack = passing(error, "read ignore rules", str(path))
        if lack is not None:  # without its rules the files that it leaves out would become records
            raise lack from error
        return GitIgnoreSpec.from_lines([])
    try:
        return GitIgnoreSpec.from_lines(lines)
    except ValueError:
        return GitIgnoreSpec.from_lines(filter(lambda line: _is_pattern(path, line), lines))


def _is_pattern(path: Path, line: str) -> bool:
    try:
        GitIgnoreSpec.from_lines([line])
    except ValueError as error:
        logger.warning("%s: the pattern %r is invalid: %s", path, line, error)
        return False
    return True
