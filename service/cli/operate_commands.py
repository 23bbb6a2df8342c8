"""The commands that operate a build: pause, resume, throttle, priority, retry, and the schedule of its switch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from cyclopts.validators import Number

from shadowswitch.engine.calls.switches import PLAN_MAX_S
from shadowswitch.engine.engine import Engine
from shadowswitch.model.views import SWITCH_TIMEOUT_S, ShadowIndex, SwitchRequest
from shadowswitch.service.cli import output
from shadowswitch.service.cli.builds import full_id, wait_until_built
from shadowswitch.service.cli.directory import (
    AllowEmpty,
    By,
    Checks,
    Data,
    Force,
    Json,
    Reason,
    ShadowId,
    SwitchTimeout,
    open_engine,
    with_checks,
)
from shadowswitch.service.hints import in_commands
from shadowswitch.service.remote import RemoteEngine

Share = Annotated[float, Parameter(validator=Number(gt=0, lte=1), help="Above 0 and at most 1; 0.25 is a quarter.")]
Priority = Annotated[
    int, Parameter(help="A whole number; the highest goes first, then the oldest.", allow_leading_hyphen=True)
]


def add_to(app: App) -> None:
    """Register the commands."""
    for command in (pause, resume, throttle, priority, retry, schedule, unschedule):
        app.command(command)


def pause(shadow_id: ShadowId, *, data: Data, by: By = "", reason: Reason = "", json: Json = False) -> None:
    """Let a build stand still until `resume`, also over restarts. It keeps what it has copied.

    Example: `shadowswitch pause 5f0c... --data ./data --reason "the release is at noon"`
    """
    _operate(data, shadow_id, json, lambda engine, id: engine.pause_build(id, by, reason))


def resume(shadow_id: ShadowId, *, data: Data, by: By = "", reason: Reason = "", json: Json = False) -> None:
    """Let a paused build go on. Without a server, `build` or `serve` goes on with it.

    Example: `shadowswitch resume 5f0c... --data ./data`
    """
    _operate(data, shadow_id, json, lambda engine, id: engine.resume_build(id, by, reason))


def throttle(
    shadow_id: ShadowId, share: Share, *, data: Data, by: By = "", reason: Reason = "", json: Json = False
) -> None:
    """Let a build copy and catch up only a share of the time, from its next slice on, also over restarts.

    A share of 1 lets it work all the time again. A validation works all the time, and so does a build that falls behind
    the writers. `status` shows the share.

    Example: `shadowswitch throttle 5f0c... 0.25 --data ./data`
    """
    _operate(data, shadow_id, json, lambda engine, id: engine.throttle_build(id, share, by, reason), _share_text)


def priority(
    shadow_id: ShadowId, number: Priority, *, data: Data, by: By = "", reason: Reason = "", json: Json = False
) -> None:
    """Give a build another place in the queue, see `Config.builds_max`.

    Example: `shadowswitch priority 5f0c... 10 --data ./data`
    """
    _operate(data, shadow_id, json, lambda engine, id: engine.set_priority(id, number, by, reason))


def retry(shadow_id: ShadowId, *, data: Data, by: By = "", reason: Reason = "", json: Json = False) -> None:
    """Go on with a FAILED build from what it has stored, and wait until it is BUILT. Ctrl-C cancels the build.

    Example: `shadowswitch retry 5f0c... --data ./data`
    """
    shadow_id = full_id(data, shadow_id)
    with open_engine(data) as engine:
        shadow = wait_until_built(engine, engine.retry_build(shadow_id, by, reason), json, by)
    output.print_result(shadow, output.built(shadow), json)


def schedule(
    shadow_id: ShadowId,
    *,
    data: Data,
    quiet_for: Annotated[float, Parameter(validator=Number(gte=0, lte=PLAN_MAX_S))] = 900,
    within: Annotated[float, Parameter(validator=Number(gte=0, lte=PLAN_MAX_S))] = 86_400,
    switch_timeout: SwitchTimeout = SWITCH_TIMEOUT_S,
    allow_empty: AllowEmpty = False,
    force: Force = False,
    check: Checks = None,
    by: By = "",
    reason: Reason = "",
    json: Json = False,
) -> None:
    """Switch to a shadow at the first quiet moment of its branch. It happens while `serve` has the directory open.

    Example: `shadowswitch schedule 5f0c... --quiet-for 600 --within 43200 --data ./data`

    Parameters
    ----------
    quiet_for
        Seconds without a change of the branch.
    within
        Seconds after which the switch comes without quiet, too.
    """
    request = SwitchRequest(
        switch_timeout_seconds=switch_timeout, force_switch=force, allow_empty=allow_empty, performed_by=by,
        reason=reason,
    )  # fmt: skip
    request = with_checks(request, check)
    _operate(data, shadow_id, json, lambda engine, id: engine.schedule_switch(id, quiet_for, within, request))


def unschedule(shadow_id: ShadowId, *, data: Data, by: By = "", reason: Reason = "", json: Json = False) -> None:
    """Take a scheduled switch back.

    Example: `shadowswitch unschedule 5f0c... --data ./data`
    """
    _operate(data, shadow_id, json, lambda engine, id: engine.unschedule_switch(id, by, reason))


def _share_text(shadow: ShadowIndex) -> str:
    """The share that a build has now, from when on, and the way back."""
    begins = "once it works" if shadow.stands_still else "from its next slice on"
    slower = output.time_share(shadow.share)
    if not slower:
        return f"; it works all the time, {begins}"
    undo = f"shadowswitch throttle {shadow.shadow_index_id} 1 lets it work all the time"
    return f"; it copies and catches up {slower}, {begins} and over restarts; status shows the share; {undo}"


def _operate(
    data: Path,
    given: str,
    json: bool,
    call: Callable[[Engine | RemoteEngine, str], ShadowIndex],
    more: Callable[[ShadowIndex], str] = lambda shadow: "",
) -> None:
    shadow_id = full_id(data, given)
    with open_engine(data) as engine:
        shadow, hosted = call(engine, shadow_id), isinstance(engine, RemoteEngine)
    paused = shadow.stands_still is not None  # its text says so, too
    text = f"{shadow.shadow_index_id} is {shadow.state}" + ("" if paused else f", {shadow.phase}")
    if shadow.scheduled_switch is not None:
        plan = shadow.scheduled_switch
        text += f"; its switch comes after {plan.quiet_for_s:g} s of quiet, at the latest after {plan.within_s:g} s"
        text += "" if hosted else ", while serve has the directory open: no process has it open now"
    text += more(shadow)
    if shadow.stands_still:
        text += f", {in_commands(shadow.stands_still)}"
    output.print_result(shadow, text, json)
