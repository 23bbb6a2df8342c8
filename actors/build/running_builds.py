"""What is known of running builds beside the catalog. One object for each engine."""

from __future__ import annotations

from shadowswitch.model.progress import ProgressMeter


class RunningBuilds:
    """Kept apart from the ShadowBuilders, so that a builder that is replaced finds it again. Any thread."""

    def __init__(self) -> None:
        self.meters: dict[str, ProgressMeter] = {}
        """The progress of running builds, by shadow id."""
        self.stuck: dict[str, str] = {}
        """Why a build stands still whose failure cannot even be recorded, by shadow id."""
        self.delays: dict[int, float] = {}
        """Seconds by which each write of a branch is slowed, while a build of it cannot keep up, by branch number."""
