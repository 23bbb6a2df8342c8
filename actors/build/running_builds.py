"""RunningBuilds: the state of running builds that is not in the catalog. One object for each engine."""

from __future__ import annotations

from shadowswitch.model.progress import ProgressMeter


class RunningBuilds:
    """It outlives the ShadowBuilders, so the successor of a dead builder finds its state. Any thread."""

    def __init__(self) -> None:
        self.meters: dict[str, ProgressMeter] = {}
        """The progress of running builds, by shadow id."""
        self.stuck: dict[str, str] = {}
        """Why a build stands still when its failure cannot be recorded, by shadow id."""
        self.delays: dict[int, float] = {}
        """The delay in seconds of each write of a branch while a build of it cannot keep up, by branch number."""
        self.heard_at: dict[str, float] = {}
        """The (monotonic) time of the last message of an external builder since the start, by shadow id."""
