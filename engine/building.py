"""Builds: the calls that start, watch, cancel and retry them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from shadowswitch.engine.running import Running
from shadowswitch.engine.viewing import shadow_index
from shadowswitch.model.errors import (
    BuildCancelled,
    BuildFailed,
    InvalidConfig,
    Timeout,
)
from shadowswitch.model.states import ShadowState
from shadowswitch.model.views import (
    ShadowIndex,
)


class Building(Running):
    """Building of shadows. Any thread."""

    def start_build(
        self,
        branch: str,
        index_type: str,
        resource_types: Sequence[str],
        build_config: Mapping[str, Any] | None = None,
        external: bool = False,
        service_name: str = "",
    ) -> ShadowIndex:
        """Begin to build an index in the shadow; returns at once. Raises DuplicateBuild, InvalidConfig, InvalidName."""
        house = self._alive()
        if external:
            raise InvalidConfig("external builds are not available in this version", hint="leave external=False")
        row = self._builds.claim(
            self._branch_row(branch), index_type, resource_types, build_config, external, service_name
        )
        return shadow_index(house, row)

    def cancel_build(self, shadow_id: str, reason: str = "") -> ShadowIndex:
        """End a build, or discard a BUILT or FAILED shadow. Raises InvalidTransition when it is too late."""
        house = self._alive()
        self._builds.cancel(shadow_id, reason)
        return shadow_index(house, house.catalog.shadow(shadow_id))

    def pause_build(self, shadow_id: str) -> ShadowIndex:
        """Let a running build stand still until `resume_build`. Raises InvalidTransition when none is running."""
        return self._tune(shadow_id, paused=True)

    def resume_build(self, shadow_id: str) -> ShadowIndex:
        """Let a paused build go on."""
        return self._tune(shadow_id, paused=False)

    def throttle_build(self, shadow_id: str, share: float) -> ShadowIndex:
        """Let a running build work only a share of the time, above 0 and at most 1."""
        if not isinstance(share, int | float) or not 0 < share <= 1:
            raise InvalidConfig(f"share must be above 0 and at most 1, not {share!r}")
        return self._tune(shadow_id, share=float(share))

    def _tune(self, shadow_id: str, share: float | None = None, paused: bool | None = None) -> ShadowIndex:
        house = self._alive()
        house.catalog.shadow(shadow_id)
        self._builds.tune(shadow_id, share, paused)
        return shadow_index(house, house.catalog.shadow(shadow_id))

    def retry_build(self, shadow_id: str) -> ShadowIndex:
        """Go on with a FAILED build from what its shards have stored. Raises InvalidTransition, DuplicateBuild."""
        house = self._alive()
        return shadow_index(house, self._builds.retry(shadow_id))

    def shadow(self, shadow_id: str) -> ShadowIndex:
        """The status of a shadow. Raises UnknownShadow."""
        house = self._alive()
        return shadow_index(house, house.catalog.shadow(shadow_id))

    def shadows(self, branch: str | None = None, state: str | ShadowState | None = None) -> list[ShadowIndex]:
        """All shadows, oldest first; of one branch, in one state."""
        house = self._alive()
        if state is not None and state not in set(ShadowState):
            raise InvalidConfig(f"there is no state {state!r}", hint=f"states: {', '.join(ShadowState)}")
        number = self._branch_row(branch).number if branch is not None else None
        rows = [row for row in house.catalog.shadows() if number in (None, row.branch) and state in (None, row.state)]
        return [shadow_index(house, row) for row in rows]

    def wait_for(self, shadow_id: str, *states: str, timeout_s: float | None = None) -> ShadowIndex:
        """Wait until a shadow is in one of `states` (default BUILT) and return its status.

        Raises BuildFailed or BuildCancelled when it ends otherwise, Timeout after `timeout_s`.
        """
        house = self._alive()
        wanted = set(states or ("BUILT",))
        unknown = wanted - set(ShadowState)
        if unknown:
            raise InvalidConfig(f"there is no state {', '.join(sorted(unknown))}")

        def arrived() -> ShadowIndex | None:
            row = house.catalog.shadow(shadow_id)
            if row.state in wanted:
                return shadow_index(house, row)
            if row.state == ShadowState.FAILED:
                raise BuildFailed(f"shadow {shadow_id} failed: {row.error}", object=shadow_id, hint="see retry_build")
            if row.state == ShadowState.CANCELLED:
                raise BuildCancelled(f"shadow {shadow_id} was cancelled: {row.error or 'no reason given'}")
            if row.state in (ShadowState.ACTIVE, ShadowState.CLEANUP) and not wanted & {
                "ACTIVE",
                "CLEANUP",
                "SWITCHING",
            }:
                return shadow_index(house, row)  # past what was waited for
            return None

        deadline = time.monotonic() + timeout_s if timeout_s is not None else None
        what = f"waiting for shadow {shadow_id} to be {' or '.join(sorted(wanted))}"
        try:
            return house.wait_changed(arrived, deadline, what)
        except Timeout as error:
            if shadow_id not in house.stuck:
                raise
            raise Timeout(f"{error.message}; it stands still: {house.stuck[shadow_id]}", operation="wait") from None
