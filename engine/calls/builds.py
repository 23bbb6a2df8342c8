"""Builds: the calls that start, watch, cancel and retry them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from shadowswitch.actors.build.external import Claim, ExternalBuilds
from shadowswitch.actors.build.registry import BuildRegistry, plain
from shadowswitch.actors.build.running_builds import RunningBuilds
from shadowswitch.actors.context import EngineContext
from shadowswitch.engine.arguments import check_number, check_seconds, check_text, check_whole
from shadowswitch.engine.branch_directory import BranchDirectory
from shadowswitch.engine.calls.authors import author
from shadowswitch.engine.open_state import OpenState
from shadowswitch.engine.views import Views
from shadowswitch.model.errors import (
    NOT_CONVERGING,
    BuildCancelled,
    BuildFailed,
    DuplicateBuild,
    InvalidConfig,
    NotConverging,
    ShadowSwitchError,
    Timeout,
    no_shadow,
)
from shadowswitch.model.shadow_state import UNDER_WAY, ShadowState
from shadowswitch.model.views import ShadowIndex
from shadowswitch.storage.catalog.rows import ShadowRow
from shadowswitch.storage.generations.build_spec import refuse_other_options
from shadowswitch.storage.generations.seeding import AUTO

logger = logging.getLogger("shadowswitch")

ERROR_CHARS_MAX = 10_000
NAME_CHARS_MAX = 1000
PRIORITY_MAX = 1_000_000


class BuildCalls:
    """Building of shadows. Any thread."""

    def __init__(
        self,
        context: EngineContext,
        state: OpenState,
        branches: BranchDirectory,
        builds: BuildRegistry,
        external: ExternalBuilds,
        running_builds: RunningBuilds,
        views: Views,
        cut_off: set[str],
    ) -> None:
        """`cut_off` has the builds that a stop of the host cut off: they go on, or wait as a rebuild left them."""
        self._catalog = context.catalog
        self._clock = context.clock
        self._changes = context.changes
        self._state = state
        self._branches = branches
        self._builds = builds
        self._external = external
        self._running_builds = running_builds
        self._views = views
        self._table = context.shadows
        self._cut_off = cut_off

    def start_build(
        self,
        branch: str,
        index_type: str,
        resource_types: Sequence[str],
        build_config: Mapping[str, Any] | None = None,
        external: bool = False,
        service_name: str = "",
        track_ready: bool = False,
        by: str = "",
        reason: str = "",
        priority: int = 0,
        of_rebuild: bool = False,
        seed: str = AUTO,
    ) -> ShadowIndex:
        """Begin to build an index in the shadow; returns at once. Raises DuplicateBuild, InvalidConfig, InvalidName.

        While `Config.builds_max` builds are under way, it waits with the phase `queued`: the highest `priority` goes
        first, then the oldest. It is PREPARING then, and its ETA is None. An external build does not wait.

        With `external` a program outside builds it: the answer names its directory (`shadow_index_path`) and the LSN
        from which changes are kept (`start_lsn`). See docs/external-builds.md. With `track_ready` the branch becomes
        READY when this shadow, and everything else that is indexed and tracked, is live and verified;
        InvalidTransition if the branch is MERGED, and in any case if it is ARCHIVED. The audit history keeps `by` (by
        default the user, host and process of the caller) and `reason`.

        With `of_rebuild` the caller will switch to the shadow or cancel it, and gives it up when the host stops, as
        `rebuild` does. The next such call ends what a stop of the host cut off: it joins that shadow, BUILT or not, if
        the options are equal, and else discards it. It joins any equal build of the same `service_name` that was cut
        off and goes on since.

        A large index may begin with the files of a generation that is live, of the branch or of one that it was forked
        from: what differs from the records is written, and the result is checked as any other. With `seed="auto"` it
        does where that saves time, with `"never"` it reads every record, with `"require"` it raises InvalidConfig where
        there is no such generation. `seeded_from` of the status has its number. See docs/branches.md.
        """
        self._state.check()
        check_text("service_name", service_name, NAME_CHARS_MAX)
        if not all(isinstance(flag, bool) for flag in (external, track_ready, of_rebuild)):
            raise InvalidConfig("external, track_ready and of_rebuild are True or False")
        if external and of_rebuild:
            raise InvalidConfig("an external build is no part of a rebuild", hint="leave of_rebuild out")
        check_priority(priority)
        named = author(by, reason)
        row = self._branches.row(branch)
        what = (resource_types, build_config)
        claim = partial(
            self._builds.claim, row, index_type, *what, external, service_name, track_ready, *named, priority,
            of_rebuild, seed,
        )  # fmt: skip
        try:
            claimed = claim()
        except DuplicateBuild as error:
            if not of_rebuild:
                raise
            claimed = self._taken_over(error, what, service_name, by) or claim()
        return self._views.shadow_of(claimed)

    def _taken_over(
        self,
        error: DuplicateBuild,
        what: tuple[Sequence[str], Mapping[str, Any] | None],
        service_name: str,
        by: str,
    ) -> ShadowRow | None:
        """The build that stands in the way, if it is the rest of an equal one that a stop of the host cut off.

        None when it was the rest of another rebuild, and is discarded. Raises `error`.
        """
        id = error.shadow_index_id
        row = self._catalog.find_shadow(id)
        if id not in self._cut_off or row is None or row.external or row.paused_by:
            raise error
        if not row.of_rebuild and row.service_name != service_name:
            raise error
        try:
            refuse_other_options(error, row.index_type, (row.resource_types, row.build_config), what)
        except DuplicateBuild:
            planned = row.plan is not None  # another caller waits for it
            if row.of_rebuild and not planned and self.discard(id, "its host stopped; another rebuild follows", by):
                return None
            raise
        try:
            self._cut_off.remove(id)
        except KeyError:  # another rebuild has joined it
            raise error from None
        return row

    def discard(self, id: str, reason: str, by: str) -> bool:
        """Cancel the shadow of a rebuild, if it still stands in the way of the next; True if it was cancelled."""
        try:
            if self._state.closed or self._catalog.shadow(id).state not in UNDER_WAY:
                return False
            self.cancel_build(id, reason[:ERROR_CHARS_MAX], by)
        except ShadowSwitchError as error:  # it was switched meanwhile, or that cannot be stored now
            logger.warning("the shadow %s of a rebuild that ended was not cancelled: %s", id, error)
            return False
        return True

    def report_progress(
        self,
        id: str,
        percent: float,
        estimated_completion_s: float | None = None,
        record_count: int | None = None,
    ) -> ShadowIndex:
        """From an external builder: it lives, and is so far. Raises InvalidTransition when it is to stop building.

        Without a report for `Config.external_timeout_s` the build fails.
        """
        self._state.check()
        check_number("percent", percent, 100)
        if estimated_completion_s is not None:
            check_number("estimated_completion_s", estimated_completion_s, float("inf"))
        if record_count is not None:
            check_whole("record_count", record_count, 0)
        self._external.progress(id, float(percent), estimated_completion_s, record_count)
        return self._views.shadow(id)

    def complete_build(
        self,
        id: str,
        index_size_bytes: int | None,
        record_count: int | None,
        applied_lsn: int | None = None,
        build_summary: Mapping[str, Any] | None = None,
        by: str = "",
        reason: str = "",
    ) -> ShadowIndex:
        """From an external builder: all is in place. The engine looks at it, which may take long; then it is BUILT.

        A claim may be None. A claim that differs from the files raises CompletionRefused, and so does every defect of
        the files: the shadow stays BUILDING. An index in a format that only its builder knows may be completed again
        while it is BUILT, with a higher `applied_lsn`. Raises InvalidTransition, Timeout.
        """
        self._state.check()
        for name, value in (
            ("index_size_bytes", index_size_bytes), ("record_count", record_count), ("applied_lsn", applied_lsn)
        ):  # fmt: skip
            if value is not None:
                check_whole(name, value, 0)
        named = author(by, reason)
        summary = plain("build_summary", build_summary or {})
        self._external.complete(id, Claim(index_size_bytes, record_count, applied_lsn, summary, *named))
        return self._views.shadow(id)

    def fail_build(self, id: str, error: str, by: str = "") -> ShadowIndex:
        """From a builder: it gave up. Raises InvalidTransition unless the shadow is BUILDING.

        A build of the engine's own is stopped and FAILED, with `error` as its reason.
        """
        self._state.check()
        if not isinstance(error, str) or not error or len(error) > ERROR_CHARS_MAX:
            raise InvalidConfig(f"error must be a text of 1 to {ERROR_CHARS_MAX} characters")
        by, _ = author(by)
        if self._catalog.shadow(id).external:
            self._external.fail(id, error, by)
        else:
            self._builds.fail(id, error, by)
        return self._views.shadow(id)

    def cancel_build(self, id: str, reason: str = "", by: str = "") -> ShadowIndex:
        """End a build, or discard a BUILT or FAILED shadow. Raises InvalidTransition when it is too late."""
        self._state.check()
        named, _ = author(by)
        self._builds.cancel(id, check_text("reason", reason, ERROR_CHARS_MAX), named)
        return self._views.shadow(id)

    def pause_build(self, id: str, by: str = "", reason: str = "") -> ShadowIndex:
        """Let a build stand still until `resume_build`, also over restarts. It keeps what it has copied.

        Its place in the queue is free for another build. `paused_by` of the status is the author. Raises
        InvalidTransition for a build that has ended, and for an external one.
        """
        self._state.check()
        self._builds.pause(id, *author(by, reason))
        return self._views.shadow(id)

    def resume_build(self, id: str, by: str = "", reason: str = "") -> ShadowIndex:
        """Let a paused build go on, as soon as it has a place again. Raises InvalidTransition, see `pause_build`."""
        self._state.check()
        self._builds.resume(id, *author(by, reason))
        return self._views.shadow(id)

    def throttle_build(self, id: str, share: float, by: str = "", reason: str = "") -> ShadowIndex:
        """Let a build work only a share of the time, above 0 and at most 1, also over restarts.

        Raises InvalidConfig, and InvalidTransition for a build that has ended, and for an external one.
        """
        self._state.check()
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
            raise InvalidConfig(f"share must be above 0 and at most 1, not {share!r}", hint="0.25 is a quarter")
        self._builds.throttle(id, float(share), *author(by, reason))
        return self._views.shadow(id)

    def set_priority(self, id: str, priority: int, by: str = "", reason: str = "") -> ShadowIndex:
        """Give a build another place in the queue, see `start_build`. A build that copies already is not stopped.

        Raises InvalidConfig, and InvalidTransition for a build that has ended, and for an external one.
        """
        self._state.check()
        check_priority(priority)
        self._builds.set_priority(id, priority, *author(by, reason))
        return self._views.shadow(id)

    def retry_build(self, id: str, by: str = "", reason: str = "") -> ShadowIndex:
        """Go on with a FAILED build from what its shards have stored. Raises InvalidTransition, DuplicateBuild.

        An ARCHIVED branch refuses it, as it refuses `start_build`.
        """
        self._state.check()
        return self._views.shadow_of(self._builds.retry(id, *author(by, reason)))

    def shadow(self, id: str) -> ShadowIndex:
        """The status of a shadow. Raises UnknownShadow."""
        self._state.check()
        row = self._catalog.shadow(id)
        if self._branches.is_dropped(row.branch):
            raise no_shadow(id)
        return self._views.shadow_of(row)

    def shadows(
        self,
        branch: str | None = None,
        state: str | ShadowState | None = None,
        limit: int | None = None,
        after: int = 0,
        *,
        newest_first: bool = False,
        wanted: Callable[[str], bool] | None = None,
    ) -> list[ShadowIndex]:
        """All shadows, oldest first; of one branch, in one state. With `wanted`, of branches with such a name.

        By page: up to `limit` of them behind the one with the `generation` `after`; for the next page, that of the last
        one. A page takes as long as its shadows, however many there are. With `newest_first` the order is the reverse,
        and the first page is that of `after=0` as well. The row of an ended shadow goes `Config.ended_keep_s` after its
        files; the audit history keeps its decisions.
        """
        number, state = self._of(branch, state)
        if limit is not None:
            check_whole("limit", limit, 1)
        check_whole("after", after, 0)
        page = self._table.pages(number, state, after, limit, newest_first, wanted)
        return [self._views.shadow_of(row) for row in page]

    def count_shadows(
        self, branch: str | None = None, state: str | ShadowState | None = None
    ) -> dict[str, dict[str, int]]:
        """How many shadows there are, by the name of the branch and the state."""
        number, state = self._of(branch, state)
        counts = self._table.count_by_branch() if branch is None else {branch: self._table.count(number)}
        chosen = {name: _only(state, of_branch) for name, of_branch in counts.items()}
        return {name: of_branch for name, of_branch in chosen.items() if of_branch}

    def count_shadow_states(self) -> dict[str, int]:
        """How many shadows there are by state, of all branches; O(1)."""
        self._state.check()
        return self._table.count()

    def _of(self, branch: str | None, state: str | ShadowState | None) -> tuple[int | None, ShadowState | None]:
        """The number of a branch, and a state. Raises UnknownBranch, InvalidConfig."""
        self._state.check()
        if state is not None and state not in set(ShadowState):
            raise InvalidConfig(f"there is no state {state!r}", hint=f"states: {', '.join(ShadowState)}")
        number = self._branches.row(branch).number if branch is not None else None
        return number, ShadowState(state) if state is not None else None

    def unsound(self) -> set[int]:
        """The generations with an error. Raises CorruptData."""
        return self._table.unsound()

    def wait_for(self, id: str, *states: str, timeout_s: float | None = None) -> ShadowIndex:
        """Wait until a shadow is in one of `states` (default BUILT) and return its status.

        Raises BuildFailed (NotConverging if writers outran it) or BuildCancelled when it ends otherwise, Timeout after
        `timeout_s`.
        """
        self._state.check()
        wanted = set(states or ("BUILT",))
        unknown = wanted - set(ShadowState)
        if unknown:
            raise InvalidConfig(
                f"there is no state {', '.join(sorted(map(str, unknown)))}", hint=f"states: {', '.join(ShadowState)}"
            )

        def arrived() -> ShadowIndex | None:
            row = self._catalog.shadow(id)
            if row.state in wanted:
                return self._views.shadow_of(row)
            if row.state == ShadowState.FAILED:
                raise _failure(row)
            if row.state == ShadowState.CANCELLED:
                raise BuildCancelled(f"shadow {id} was cancelled: {row.error or 'no reason given'}")
            past_built = row.state == ShadowState.ACTIVE and not wanted & {"ACTIVE", "CLEANUP", "SWITCHING"}
            if past_built or row.state == ShadowState.CLEANUP:
                return self._views.shadow_of(row)  # past every state in `wanted`
            return None

        deadline = self._clock.monotonic() + check_seconds("timeout_s", timeout_s) if timeout_s is not None else None
        what = f"waiting for shadow {id} to be {' or '.join(sorted(wanted))}"
        try:
            return self._changes.wait(arrived, deadline, what)
        except Timeout as error:
            reason = self._views.shadow(id).stands_still
            if reason is None:
                raise
            raise Timeout(f"{error.message}; it stands still: {reason}", operation="wait") from None


def check_priority(priority: object) -> None:
    """Raise InvalidConfig unless it is a priority."""
    if isinstance(priority, bool) or not isinstance(priority, int) or abs(priority) > PRIORITY_MAX:
        raise InvalidConfig(
            f"a priority is a whole number from {-PRIORITY_MAX} to {PRIORITY_MAX}, not {priority!r:.80}",
            hint="0 is that of a build without one; the highest goes first",
        )


def _only(state: ShadowState | None, counts: dict[str, int]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if state in (None, name)}


def _failure(row: ShadowRow) -> BuildFailed:
    """The error of a wait for a build that failed; the stored reason is its text."""
    kind = NotConverging if (row.error or "").startswith(NOT_CONVERGING) else BuildFailed
    return kind(f"shadow {row.id} failed: {row.error}", operation="build", object=row.id, hint="see retry_build")
