"""The command for backups: create, list, verify, prune."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter
from cyclopts.validators import Number

from shadowswitch.engine.backups import stored
from shadowswitch.model.operating.backups import BackupInfo
from shadowswitch.service.cli import output
from shadowswitch.service.cli.directory import DATA_VARIABLE, Data, Json, Refused, open_catalog
from shadowswitch.service.cli.progress import Show, steps
from shadowswitch.storage.objects.opening import open_store

NAMED_MAX = 20
Optional = Parameter(show_default=False)


def add_to(app: App) -> None:
    """Register the command."""
    app.command(backup)


def backup(
    operation: Literal["create", "list", "verify", "prune"],
    url: str,
    *,
    data: Annotated[Data | None, Optional] = None,
    keep: Annotated[int | None, Parameter(show_default=False, validator=Number(gte=1))] = None,
    older_than_days: Annotated[float | None, Parameter(show_default=False, validator=Number(gte=0))] = None,
    deep: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    scratch: Annotated[Path | None, Optional] = None,
    json: Json = False,
) -> None:
    """Back a data directory up, also beside a running host; list, verify and remove its backups.

    A backup has every record of every branch, the journal, locks, holds, events and the audit history, as of one
    moment. Indexes are built again by a restore. What the newest backup at the URL has already is not stored again.
    Credentials come from the environment.

    Example: `shadowswitch backup create s3://bucket/search --data ./data`, `shadowswitch backup prune /mnt/backups
    --keep 30`

    Parameters
    ----------
    operation
        create: one backup more. list: all, the oldest first. verify: read every object and compare it with its hash;
        exit status 1 with findings. prune: remove all but the newest `--keep`.
    url
        `s3://bucket/path`, `gs://bucket/path`, `az://account/container/path`, `file:///path`, or the path of a folder.
        Each data directory has a URL of its own.
    data
        For create: the data directory.
    keep
        For prune: this many of the newest backups stay.
    older_than_days
        For prune: younger backups stay, too.
    deep
        For verify: restore the newest backup into a temporary folder and check it as `check` does.
    scratch
        For create and verify --deep: a folder with room for a copy of the catalog. Default: the one for temporary
        files.
    """
    _refuse_others(operation, {"--data": data, "--keep": keep, "--older-than-days": older_than_days}, deep, scratch)
    if operation == "create":
        _create(url, data, scratch, json)
    elif operation == "list":
        _list(url, json)
    elif operation == "verify":
        _verify(url, deep, scratch, json)
    else:
        _prune(url, keep, older_than_days, json)


def _refuse_others(operation: str, given: dict[str, object], deep: bool, scratch: Path | None) -> None:
    """Raise ValueError for an option of another operation; --data may come from the environment."""
    of = {
        "--keep": ("prune",),
        "--older-than-days": ("prune",),
        "--deep": ("verify",),
        "--scratch": ("create", "verify"),
    }
    named = {**given, "--deep": deep or None, "--scratch": scratch}
    for option, operations in of.items():
        if named[option] is not None and operation not in operations:
            raise ValueError(f"{option} is for backup {' and backup '.join(operations)}")


def _shown(show: Show, title: str, noun: str) -> Callable[[int, int], None]:
    return lambda done, of: show(title, 100 * done / max(1, of), f"{done:,} of {of:,} {noun}")


def _create(url: str, data: Path | None, scratch: Path | None, json: bool) -> None:
    if data is None:
        raise ValueError(f"give the data directory with --data or {DATA_VARIABLE}")
    store = open_store(url)
    from shadowswitch.storage.backup.creating import create  # the extra `replication`

    with open_catalog(data) as catalog, steps(quiet=json) as show:
        made = create(catalog, store, scratch, _shown(show, f"backup of {data}", "rows"))
    for problem in made.damaged[:NAMED_MAX]:
        output.warn(f"damaged in the data directory already: {problem}")
    text = (
        f"backup {made.id}: {made.records:,} records of {output.counted(made.branches, 'branch', 'branches')} up to LSN"
        f" {made.last_lsn}; {output.size(made.stored_bytes)} stored, {output.size(made.content_bytes)} of content"
    )
    output.print_result(made, text, json)
    if made.damaged:
        raise Refused


def _list(url: str, json: bool) -> None:
    found = stored.backups(url)
    if json:
        output.print_json(found)
        return
    if not found:
        output.say(f"no backup in {url}")
        return
    columns = ("backup", "of", "LSN", "branches", "records", "content", "stored", "directory")
    output.console().print(output.table(f"backups in {url}", columns, map(_row, found)))


def _row(one: BackupInfo) -> list[str]:
    return [
        one.id, f"{one.created_at:%Y-%m-%d %H:%M:%S}", str(one.last_lsn), f"{one.branches:,}", f"{one.records:,}",
        output.size(one.content_bytes), output.size(one.stored_bytes), one.uuid[:8],
    ]  # fmt: skip


def _verify(url: str, deep: bool, scratch: Path | None, json: bool) -> None:
    with steps(quiet=json) as show:
        found = stored.verify_backup(url, deep, scratch=scratch, progress=_shown(show, "verify", "objects"))
    sound = "sound" if not found.findings else output.counted(len(found.findings), "finding")
    text = (
        f"{output.counted(found.backups, 'backup')}, {output.counted(found.objects, 'object')}"
        f" ({output.size(found.size_bytes)}): {sound}"
    )
    output.print_result(found, [*found.findings, text], json)
    if found.findings:
        raise Refused


def _prune(url: str, keep: int | None, older_than_days: float | None, json: bool) -> None:
    if keep is None:
        raise ValueError("say with --keep how many of the newest backups stay")
    older = timedelta(days=older_than_days) if older_than_days is not None else None
    with steps(quiet=json) as show:
        done = stored.prune_backups(url, keep, older, progress=_shown(show, "prune", "objects"))
    text = (
        f"{output.counted(len(done.removed), 'backup')} removed with {output.counted(done.objects_removed, 'object')}"
        f" ({output.size(done.bytes_removed)}), {output.counted(len(done.kept), 'backup')} kept"
    )
    output.print_result(done, text, json)
