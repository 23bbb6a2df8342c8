"""The parts of fsck as tasks of a worker process, so that a file that ends its reader is a finding."""

from __future__ import annotations

from pathlib import Path

import msgspec

from shadowswitch.model.views import Finding
from shadowswitch.storage import data_directory, fsck, fsck_generation
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.reading import Note


class CheckCatalog(msgspec.Struct, frozen=True, tag=True):
    """To a worker: check the catalog of its data directory."""

    root: str


class CheckGeneration(msgspec.Struct, frozen=True, tag=True):
    """To a worker: check one generation against its source."""

    root: str
    number: int


class Found(msgspec.Struct, frozen=True, tag=True):
    """The findings; of a check of the catalog also the numbers of the generations to check."""

    findings: list[Finding]
    generations: list[int] = []


def catalog_file(root: Path) -> Path:
    """The file of the catalog."""
    return root / data_directory.CATALOG / data_directory.DATA_FILE


def check_catalog(catalog: Catalog, task: CheckCatalog) -> Found:
    """Every invariant of the catalog."""
    findings = fsck.check_catalog(catalog, Path(task.root))
    rows = fsck.generations_to_check(catalog, findings)
    return Found(findings, [row.number for row in rows])


def check_generation(catalog: Catalog, task: CheckGeneration, reading: Note) -> Found:
    """Every invariant of a generation; none of one that is gone."""
    row = catalog.generation(task.number)
    return Found(fsck_generation.check_generation(catalog, Path(task.root), row, reading) if row is not None else [])
