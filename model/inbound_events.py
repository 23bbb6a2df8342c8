"""Events from outside: their form, the effect of each type, and the rules for it.

    type                                   with indexing_mode "shadow" and a shadow_index_id      otherwise
    com.oms.indexing.completed             the shadow is completed, then switched                 indexing is completed
    com.oms.indexing.failed                the shadow is FAILED                                   indexing has failed
    com.oms.shadow.indexing.completed      as above; the mode need not be said, the id must
    com.oms.shadow.indexing.failed         as above

A `status` other than "success" makes a completed event a failed one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import msgspec

from shadowswitch.model.errors import InvalidConfig, InvalidEvent
from shadowswitch.model.names import BRANCH_CHARS_MAX
from shadowswitch.model.records import DEPTH_MAX, is_deeper
from shadowswitch.model.views import DEFAULT_CHECKS, SWITCH_TIMEOUT_S, SwitchRequest

ACCEPTED: Final = frozenset(
    {
        "com.oms.indexing.completed",
        "com.oms.indexing.failed",
        "com.oms.shadow.indexing.completed",
        "com.oms.shadow.indexing.failed",
    }
)
ID_CHARS_MAX = 256
SOURCE_CHARS_MAX = 1024
TEXT_CHARS_MAX = 2000
"""The longest stored error text of a sender."""

Name = Annotated[str, msgspec.Meta(max_length=BRANCH_CHARS_MAX)]
"""A name in an event is stored with its outcome, also that of a branch that does not exist."""
Whole = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


_SWITCHES = (
    "auto_switch", "backup_before_switch", "auto_merge", "require_validation", "require_no_conflicts", "allow_empty",
)  # fmt: skip


class IncomingRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The effects that an event from outside may have. Raises InvalidConfig if its switch request would be invalid."""

    auto_switch: bool = True
    """A switch follows as soon as an event has completed a shadow."""
    validation_checks: tuple[str, ...] = DEFAULT_CHECKS
    backup_before_switch: bool = True
    switch_timeout_seconds: float = SWITCH_TIMEOUT_S
    auto_merge: bool = True
    """A READY branch becomes MERGED when every condition is met. A fork is merged, unless there is a conflict."""
    require_validation: bool = True
    """A condition of the merge: the event has `validation_results.passed` true."""
    require_no_conflicts: bool = True
    """A condition of the merge, but for a fork, which the engine compares: `no_conflicts` is registered
    (`Engine.add_merge_condition`) and returns None."""
    sources: tuple[str, ...] = ()
    """The accepted sources; () accepts every source."""
    allow_empty: bool = False
    """The switch may make an index live that has no records, or has a resource type without any."""

    def __post_init__(self) -> None:
        if isinstance(self.sources, str):
            raise InvalidConfig("IncomingRules.sources is a list of strings")
        for name in _SWITCHES:
            if not isinstance(getattr(self, name), bool):
                raise InvalidConfig(f"IncomingRules.{name} is True or False, not {getattr(self, name)!r:.80}")
        self.switch_request("")

    def switch_request(self, by: str) -> SwitchRequest:
        """The request for the switch after an event; never forced."""
        return SwitchRequest(
            validation_checks=self.validation_checks,
            backup_current=self.backup_before_switch,
            switch_timeout_seconds=self.switch_timeout_seconds,
            performed_by=by,
            reason="indexing completed",
            allow_empty=self.allow_empty,
        )


class ValidationResults(msgspec.Struct, frozen=True):
    """The result of the builder's own validation."""

    passed: bool = False
    errors: list[Any] = []


class IndexingData(msgspec.Struct, frozen=True):
    """`data` of an accepted event; other fields are ignored."""

    branch_name: Name
    indexing_mode: Literal["traditional", "shadow"] | None = None
    shadow_index_id: Name | None = None
    indexing_id: str | None = None
    status: str | None = None
    records_indexed: Whole | None = None
    index_size_bytes: Whole | None = None
    applied_lsn: Whole | None = None
    resource_types: list[str] | None = None
    indexed_resource_types: list[str] | None = None
    errors: list[Any] = []
    error_message: str | None = None
    validation_results: ValidationResults | None = None


class Incoming(msgspec.Struct, frozen=True):
    """One accepted event, identified by `(source, id)`."""

    id: str
    source: str
    type: str
    data: IndexingData

    @property
    def for_shadow(self) -> bool:
        """True if the event is about a shadow, False if it is about indexing under locks."""
        mode = self.data.indexing_mode or ("shadow" if ".shadow." in self.type else "traditional")
        return mode == "shadow" and bool(self.data.shadow_index_id)

    @property
    def succeeded(self) -> bool:
        """True if the event reports success."""
        return self.type.endswith(".completed") and self.data.status in (None, "success")

    @property
    def error(self) -> str:
        """The error text of the sender."""
        said = self.data.error_message or "; ".join(str(error) for error in self.data.errors)
        return (said or f"{self.source} says that indexing failed")[:TEXT_CHARS_MAX]


class EventOutcome(msgspec.Struct, frozen=True):
    """The outcome of an event from outside.

    `outcome` is "switched", "ready_for_manual_switch" (BUILT and not live; the message has the reason), "built"
    (auto_switch is off), "completed" (indexing under locks), "failed" (the event reported a failure, which was stored)
    or "refused" (no effect; the message has the reason). A `duplicate` gets the outcome of the first.
    """

    source: str
    id: str
    type: str
    outcome: str
    message: str
    branch_name: str = ""
    shadow_index_id: str = ""
    merged: bool = False
    unmet: tuple[str, ...] = ()
    """The unmet conditions of an automatic merge; empty when no merge was considered."""
    duplicate: bool = False

    @property
    def accepted(self) -> bool:
        """True unless the event was refused."""
        return self.outcome != "refused"


def parse_incoming(event: Mapping[str, Any]) -> Incoming:
    """Check an event in the JSON form of CloudEvents 1.0. Raises InvalidEvent, with a message for the sender."""
    if not isinstance(event, Mapping):
        raise InvalidEvent(f"an event must be a JSON object, not {type(event).__name__}")
    if is_deeper(event):
        raise InvalidEvent(f"the event is nested deeper than {DEPTH_MAX} levels", hint="send flatter data")
    if event.get("specversion") != "1.0":
        raise InvalidEvent(f"specversion must be '1.0', not {event.get('specversion')!r:.40}")
    id = _text(event, "id", ID_CHARS_MAX)
    source = _text(event, "source", SOURCE_CHARS_MAX)
    kind = _text(event, "type", 200)
    if kind not in ACCEPTED:
        raise InvalidEvent(f"events of type {kind!r} are not accepted", hint=f"accepted: {', '.join(sorted(ACCEPTED))}")
    try:
        data = msgspec.convert(event.get("data"), IndexingData)
    except msgspec.ValidationError as error:
        raise InvalidEvent(f"data: {error}") from error
    if ".shadow." in kind and not data.shadow_index_id:
        raise InvalidEvent(f"data: an event of type {kind} must have a shadow_index_id")
    return Incoming(id, source, kind, data)


def _text(event: Mapping[str, Any], name: str, chars_max: int) -> str:
    value = event.get(name)
    if not isinstance(value, str) or not 1 <= len(value) <= chars_max:
        raise InvalidEvent(f"{name} must be a text of 1 to {chars_max} characters")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidEvent(f"{name} is not valid Unicode") from error
    return value
