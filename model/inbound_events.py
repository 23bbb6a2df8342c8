"""Events from outside: what they look like, which way each goes, and under which rules.

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
from shadowswitch.model.views import DEFAULT_CHECKS, SwitchRequest

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
"""What others say of an error is kept up to this length."""

Whole = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class IncomingRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an event from outside may bring about. Raises InvalidConfig for a request that could not be made of it."""

    auto_switch: bool = True
    """Switch to a shadow as soon as an event has completed it."""
    validation_checks: tuple[str, ...] = DEFAULT_CHECKS
    backup_before_switch: bool = True
    switch_timeout_seconds: float = 10
    auto_merge: bool = True
    """Note a branch as merged when it is READY and every condition is met; no content is merged here."""
    require_validation: bool = True
    """The event must say `validation_results.passed`; not saying so is no."""
    require_no_conflicts: bool = True
    """The condition `no_conflicts` must have been registered and say yes (`Engine.add_merge_condition`)."""
    sources: tuple[str, ...] = ()
    """Events of other sources are refused; without any, every source is heard."""

    def __post_init__(self) -> None:
        if isinstance(self.sources, str):
            raise InvalidConfig("IncomingRules.sources is a list of strings")
        for name in ("auto_switch", "backup_before_switch", "auto_merge", "require_validation", "require_no_conflicts"):
            if not isinstance(getattr(self, name), bool):
                raise InvalidConfig(f"IncomingRules.{name} is True or False, not {getattr(self, name)!r:.80}")
        self.switch_request("")

    def switch_request(self, by: str) -> SwitchRequest:
        """The switch that an event asks for; never forced."""
        return SwitchRequest(
            validation_checks=self.validation_checks,
            backup_current=self.backup_before_switch,
            switch_timeout_seconds=self.switch_timeout_seconds,
            performed_by=by,
            reason="indexing completed",
        )


class ValidationResults(msgspec.Struct, frozen=True):
    """What the builder says of its own validation."""

    passed: bool = False
    errors: list[Any] = []


class IndexingData(msgspec.Struct, frozen=True):
    """`data` of an accepted event; other fields are let through unread."""

    branch_name: str
    indexing_mode: Literal["traditional", "shadow"] | None = None
    shadow_index_id: str | None = None
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
    """One accepted event. `(source, id)` is what makes it one."""

    id: str
    source: str
    type: str
    data: IndexingData

    @property
    def for_shadow(self) -> bool:
        """Does it go the way of shadows, or that of branches and locks?"""
        mode = self.data.indexing_mode or ("shadow" if ".shadow." in self.type else "traditional")
        return mode == "shadow" and bool(self.data.shadow_index_id)

    @property
    def succeeded(self) -> bool:
        """Is it good news?"""
        return self.type.endswith(".completed") and self.data.status in (None, "success")

    @property
    def error(self) -> str:
        """What went wrong, in the sender's words."""
        said = self.data.error_message or "; ".join(str(error) for error in self.data.errors)
        return (said or f"{self.source} says that indexing failed")[:TEXT_CHARS_MAX]


class EventOutcome(msgspec.Struct, frozen=True):
    """What an event from outside brought about.

    `outcome` is "switched", "ready_for_manual_switch" (BUILT; the message says why it was not switched to), "built"
    (auto_switch is off), "completed" (indexing under locks), "failed" (it told of a failure, which was noted) or
    "refused" (nothing was done, the message says why). A `duplicate` gets what the first one got.
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
    """Conditions of an automatic merge that were not met; empty when none was considered."""
    duplicate: bool = False

    @property
    def accepted(self) -> bool:
        """Was anything done about it?"""
        return self.outcome != "refused"


def parse_incoming(event: Mapping[str, Any]) -> Incoming:
    """Check an event in the JSON form of CloudEvents 1.0. Raises InvalidEvent, in words for the sender."""
    if not isinstance(event, Mapping):
        raise InvalidEvent(f"an event must be a JSON object, not {type(event).__name__}")
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
