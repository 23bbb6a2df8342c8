"""`shadowswitch restore`: a data directory out of a backup."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from cyclopts.validators import Number

from shadowswitch.engine.backups import stored
from shadowswitch.engine.engine import Engine
from shadowswitch.model.operating.backups import RestoreResult
from shadowswitch.model.shadow_state import UNDER_WAY
from shadowswitch.model.views import ShadowIndex
from shadowswitch.service.cli import output
from shadowswitch.service.cli.builds import LOOK_S
from shadowswitch.service.cli.directory import Data, Json, Refused
from shadowswitch.service.cli.progress import build_details, steps
from shadowswitch.service.daemon import settings

Optional = Parameter(show_default=False)


def add_to(app: App) -> None:
    """Register the command."""
    app.command(restore)


def restore(
    url: str,
    *,
    data: Data,
    at: Annotated[str, Optional] = "",
    at_lsn: Annotated[int | None, Parameter(show_default=False, validator=Number(gte=0))] = None,
    backup: Annotated[str, Optional] = "",
    no_wait: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    json: Json = False,
) -> None:
    """Make a data directory out of a backup, in a new or empty folder, and build its indexes.

    Records, journal, branches and locks are as they were, at the same LSNs. Tokens and the numbers of events go on far
    behind those of the backup, so none is given twice. A restore that was killed is begun again, into the same folder.

    Example: `shadowswitch restore s3://bucket/search --data ./restored --at 2026-11-28T02:00Z`

    Parameters
    ----------
    url
        Where `backup create` stored it.
    at
        The newest backup up to this moment, in ISO 8601 with a time zone, such as `2026-11-28T02:00Z`.
    at_lsn
        The last whole batch up to this LSN, from the journal in the next backup. Default: the newest backup.
    backup
        The id of a backup, as `backup list` shows it.
    no_wait
        Do not build the indexes now: the next host that opens the directory does.
    """
    moment = _moment(at) if at else None
    with steps(quiet=json) as show:

        def progressed(done: int, of: int) -> None:
            show("restore", 100 * done / max(1, of), f"{done:,} of {of:,} rows")

        made = stored.restore(url, data, moment, at_lsn, backup=backup or None, progress=progressed)
    failed = [] if no_wait else _built(data, made, json)
    lines = [
        f"{data}: {made.records:,} records up to LSN {made.last_lsn}, of backup {made.backup}"
        + (f" and {output.counted(made.replayed, 'change')} after it" if made.replayed else "")
    ]
    if made.indexes and no_wait:
        lines.append(f"built when a host opens it: {', '.join(made.indexes)}")
    elif made.indexes:
        lines.append(f"indexes: {', '.join(made.indexes)}")
    lines += [f"{name} is in a format of its builder, which has to deliver it again" for name in made.unserved]
    lines += failed
    output.print_result(made, lines, json)
    if failed:
        raise Refused


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"--at {text!r} is no moment in ISO 8601, such as 2026-11-28T02:00Z") from None


def _built(data: Path, made: RestoreResult, json: bool) -> list[str]:
    """Build the indexes and switch to them; returns why some are not. Ctrl-C leaves the rest to the next host."""
    if not made.indexes:
        return []
    with Engine.open(data, settings.engine_config(data)) as engine, steps(quiet=json) as show:
        ids = [shadow.shadow_index_id for shadow in engine.shadows() if shadow.scheduled_switch is not None]
        try:
            while True:
                found = [engine.shadow(id) for id in ids]
                left = [shadow for shadow in found if shadow.state in UNDER_WAY and not _refusal(shadow)]
                for shadow in left[:1]:
                    percent = sum(one.build_progress_percent for one in found) / len(found)
                    show("build of the indexes", percent, f"{len(left)} of {len(found)} left  {build_details(shadow)}")
                if not left:
                    return [line for shadow in found if (line := _failure(shadow))]
                time.sleep(LOOK_S)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("the next host that opens the directory builds its indexes") from None


def _failure(shadow: ShadowIndex) -> str:
    if shadow.state in ("ACTIVE", "CLEANUP"):
        return ""
    why = _refusal(shadow) or shadow.error
    return f"{shadow.index_type} of branch {shadow.branch_name!r} could not be built: {why}"


def _refusal(shadow: ShadowIndex) -> str:
    """Why a switch was refused. The next host tries it again."""
    plan = shadow.scheduled_switch
    return f"its switch was refused: {plan.error}" if plan is not None and plan.refusals else ""
