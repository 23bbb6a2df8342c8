"""A writer that is killed at any instruction."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from shadowswitch.storage.backends.protocol import Backend
from shadowswitch.storage.conformance import process
from shadowswitch.storage.conformance.base import Shards
from shadowswitch.storage.conformance.expected import Expected


class Killing(Shards):
    """SIGKILL in the middle of a load or an apply (BK-1): whole transactions, none lost, and a new writer continues."""

    @pytest.mark.slow
    @pytest.mark.parametrize("seed", [61, 62, 63, 64, 65, 66])
    def test_a_killed_writer_leaves_whole_transactions_and_a_new_writer_continues(
        self, backend: Backend, options: dict[str, Any], path: Path, seed: int
    ) -> None:
        early = seed % 2 == 0
        first, last = (1, process.LOADS - 1) if early else (process.LOADS + 1, process.STEPS - 2)
        acknowledged = self._kill(options, path, seed, random.Random(seed).randint(first, last))
        expected = Expected()
        steps = list(process.steps(seed, self.fields_for))
        for step in steps[:acknowledged]:
            step(expected)
        writer = backend.open_writer(path, options)
        done = acknowledged
        while writer.state() != expected.state:
            assert done < len(steps), f"after {acknowledged} steps or more the state is none of those passed through"
            steps[done](expected)
            done += 1
        print(f"killed after {acknowledged} acknowledged steps, found {done} of {len(steps)}")
        self.assert_same(backend, options, path, writer, expected)
        for step in steps[done:]:
            step(writer)
            step(expected)
        self.assert_same(backend, options, path, writer, expected)
        writer.close()
        assert backend.check(path, options) == []

    def _kill(self, options: dict[str, Any], path: Path, seed: int, after: int) -> int:
        """Run the steps in another process and kill it after `after` reports; returns the number of reports."""
        arguments = (self.fields_template, str(seed))
        with process.start("write", self.backend_spec, options, path, *arguments) as victim:
            assert victim.stdout
            reported = 0
            for line in victim.stdout:
                reported = int(line)
                if reported == after:
                    victim.kill()
            assert reported >= after
        return reported
