"""Is the target of a switch fit to be live? Asked before the first attempt, beside readers and writers.

    probe       files that may end their reader, in a worker; the sizes of closed files
    proof       the digest of the target by its counters is that of its source, at a common LSN
    samples     SAMPLE_READ_BACK reads some records; not in a rollback, which is to be quick
    comparison  with the live index (`actors.switch.comparison`)
    kinds       links and violations, of an index that has them (`storage.quality.kinds`); not in a rollback
    host        the checks that the host registered (`actors.switch.host_check`)
    gate        what the index would lack (`actors.build.gate`); not in a rollback

No row of the target is read for the proof: a worker process read and validated every row when it was BUILT, and the
engine has applied each change since (rows and counters change together, IX-2). So a request for any other check of
BUILD_CHECKS is a request for what was done. The Scrubber reads every row again once the target is live. A target whose
counters differ is repaired once, and then validated row by row. An index in an unknown format does not follow the
journal: its files are compared with their checksums at each switch.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import msgspec

from shadowswitch.actors.build import gate
from shadowswitch.actors.build.gate import Surprises
from shadowswitch.actors.build.validator import BUILD_CHECKS, COMPARISONS, ShadowValidator, Validation
from shadowswitch.actors.context import EngineContext
from shadowswitch.actors.switch import host_check
from shadowswitch.actors.switch.comparison import compare_with_live
from shadowswitch.model.errors import EngineClosed
from shadowswitch.model.kinds.asking import Asking
from shadowswitch.model.search.bounds import TimeLimit
from shadowswitch.model.views import ADVISORY_CHECKS, SwitchRequest
from shadowswitch.storage import disk
from shadowswitch.storage.backends.protocol import IndexReader
from shadowswitch.storage.clock import Clock
from shadowswitch.storage.generations.generation import Generation
from shadowswitch.storage.quality import kinds


def examine(
    context: EngineContext,
    validator: ShadowValidator,
    target: Generation,
    request: SwitchRequest,
    is_rollback: bool,
    deadline: float,
    before_repair: Callable[[], None],
    in_group: bool = False,
) -> Validation:
    """The findings of the checks of a request, and of DIGEST. `deadline` is monotonic, and bounds each step. Raises
    Timeout, and CorruptData for files that end their reader. `before_repair` raises where a repair is not allowed.
    `in_group`: a check of another kind of index is for another member."""
    checks = list(dict.fromkeys([*request.validation_checks, "DIGEST"]))
    if target.row.opaque:
        found = validator.validate(
            target, [check for check in checks if check in COMPARISONS or check in BUILD_CHECKS], deadline
        )
    else:
        found = Validation({check: [] for check in checks if check in BUILD_CHECKS}, [], [], 0, 0)
        problems = validator.probe(target, deadline)
        if problems:
            errors = [f"INTEGRITY_CHECK: {problem}" for problem in problems]
            return msgspec.structs.replace(found, findings={"INTEGRITY_CHECK": problems}, errors=errors)
        differing = validator.differing(target, deadline)
        if differing:
            context.metrics.count("buckets_repaired", len(differing))
            before_repair()
            validator.repair(target, differing, deadline)
            found = validator.validate(target, BUILD_CHECKS, deadline)
        elif "SAMPLE_READ_BACK" in checks and not is_rollback:
            found = found.joined(validator.validate(target, ["SAMPLE_READ_BACK"], deadline))
    compared = compare_with_live(
        context, validator.answers, target, validator.live_beside(target), checks, request.queries, deadline
    )
    found = msgspec.structs.replace(found.joined(compared), size_bytes=disk.directory_size_bytes(target.path))
    for check in checks:
        if check in validator.host_checks:
            problems = host_check.problems_of(check, validator.host_checks[check], target, context.clock, deadline)
            found = _with(found, check, problems)
        elif not is_rollback and (check in kinds.KIND or (check == kinds.SAME_RECORDS and not in_group)):
            live = validator.live_beside(target)
            found = _with(found, check, _of_kind(check, target, live, in_group, context.clock, deadline))
    return found if is_rollback else _gated(found, _surprises(context, target, validator.live_beside(target)), request)


def _with(found: Validation, check: str, problems: list[str]) -> Validation:
    return msgspec.structs.replace(
        found,
        findings={**found.findings, check: problems},
        errors=[*found.errors, *(f"{check}: {problem}" for problem in problems)],
    )


def _of_kind(
    check: str, target: Generation, live: Generation | None, in_group: bool, clock: Clock, deadline: float
) -> list[str]:
    if check == kinds.SAME_RECORDS:
        return ["it compares the members of a group, and this index is switched alone"]
    asking = Asking(TimeLimit(deadline - clock.monotonic(), clock.monotonic, "query"), target.row.resource_types)
    with ExitStack() as held:
        reader = _reader(target, held)
        if not kinds.answers(check, reader):
            lacks = f"a {target.row.backend} index has nothing to check: it answers no queries of the kind"
            return [] if in_group else [f"{lacks} {kinds.KIND[check]}"]
        if check == kinds.LINKS:
            return kinds.links(reader, asking)
        before = _reader(live, held) if live is not None else None
        comparable = before if before is not None and kinds.answers(check, before) else None
        return kinds.violations(reader, comparable, asking, clock)


def _reader(generation: Generation, held: ExitStack) -> IndexReader:
    if not held.enter_context(generation.kept()):
        raise EngineClosed("a generation was closed before it could be checked", operation="validate")
    reader = generation.take_reader()
    held.callback(generation.give_reader, reader)
    return reader


def _surprises(context: EngineContext, target: Generation, live: Generation | None) -> Surprises:
    catalog, row = context.catalog, target.row
    shadow = catalog.shadow(row.shadow_id)
    names = catalog.types()
    records = {names[number]: count for number, count in catalog.counts(row.branch).items()}
    counts = {name: records.get(name, 0) for name in row.resource_types}
    lacking = [name for name, count in counts.items() if not count]
    present = list(records) if lacking else []
    accepted = live.row.resource_types if live is not None else []
    held = sum(records.get(name, 0) for name in accepted)
    absent, count = gate.of_types(shadow.branch_name, counts, present, accepted), sum(counts.values())
    drop = gate.of_drop(count, held, context.config.records_kept_min)
    if not count:  # an index that may be empty drops to nothing
        return Surprises(absent + drop, shadow.surprises)
    return Surprises(absent, shadow.surprises + drop)


def _gated(found: Validation, surprises: Surprises, request: SwitchRequest) -> Validation:
    """With the surprises as the first findings of the count, unless the request allows them."""
    problems = [*([] if request.allow_empty else surprises.absent), *surprises.others]
    allowed = surprises.absent if request.allow_empty else []
    if not problems:
        return msgspec.structs.replace(found, allowed=allowed)
    name = "RECORD_COUNT_VALIDATION"
    return msgspec.structs.replace(
        found,
        findings={**found.findings, name: problems + found.findings.get(name, [])},
        errors=[*(f"{name}: {problem}" for problem in problems), *found.errors],
        allowed=allowed,
    )


def refusal(found: Validation, host_checks: Callable[[str], bool], is_forced: bool) -> str:
    """Why the findings refuse the switch, "" if they do not. Force overrides advisory checks and those of the host."""
    if not found.errors:
        return ""
    fatal = found.differing_buckets or any(
        errors and check not in ADVISORY_CHECKS and not host_checks(check) for check, errors in found.findings.items()
    )
    return "" if is_forced and not fatal else "validation failed: " + "; ".join(found.errors)
