"""How far a build is and how long it will take, from what was measured.

The work left is rows to copy at the measured row rate, changes to replay at the measured change rate less the rate at
which new ones arrive, and the validation at the rate of the last one. Percent is time spent over time spent plus time
left, so that it moves evenly through all phases. Neither percent nor ETA goes backwards: when the work turns out
longer than thought they stand still until they are true again.
"""

from __future__ import annotations

VALIDATION_ROWS_PER_S = 200_000.0
"""First guess, until a validation was measured."""
CONVERGENCE_MIN = 1.0


class ProgressMeter:
    """Percent and ETA of one build. Pure: elapsed times are handed in."""

    def __init__(self, percent: float = 0.0) -> None:
        self.percent = percent
        self.eta_s: float | None = None

    def update(
        self,
        elapsed_s: float,
        rows_total: int,
        rows_done: int,
        row_rate: float,
        residual_changes: int,
        change_rate: float,
        write_rate: float,
        validation_left: float = 1.0,
    ) -> None:
        """Take in a measurement. `validation_left` is the share of the validation still to do, 1 to 0."""
        rows_left = max(0, rows_total - rows_done)
        if rows_left and row_rate <= 0:
            return
        copy_s = rows_left / row_rate if rows_left else 0.0
        surplus = max(CONVERGENCE_MIN, change_rate - write_rate) if change_rate > 0 else 20_000.0
        catchup_s = (residual_changes + write_rate * copy_s) / surplus
        validation_s = validation_left * rows_total / VALIDATION_ROWS_PER_S
        left_s = copy_s + catchup_s + validation_s
        share = elapsed_s / (elapsed_s + left_s) if elapsed_s + left_s > 0 else 0.0
        self.percent = max(self.percent, min(99.9, 100.0 * share))
        self.eta_s = left_s if self.eta_s is None else min(self.eta_s, left_s)

    def finish(self) -> None:
        """The build is BUILT."""
        self.percent, self.eta_s = 100.0, 0.0
