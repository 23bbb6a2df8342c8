"""Many seeds, one after the other; or one, with its trace.

python -m tests.simulation.runs --seeds 10000 [--from 0]      exit status 1 at the first violation, with its trace
                                [--progress]                  prints how many are done, to tell a hang from slowness
python -m tests.simulation.runs --seed 4711                   one seed, with its trace
"""

from __future__ import annotations

import argparse
import gc
import sys
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from shadowswitch.actors import journal_writer
from shadowswitch.actors.branch import locks as branch_locks
from shadowswitch.actors.switch.live_index import LiveIndex
from shadowswitch.storage.backends.kv import kept as kv_kept
from shadowswitch.storage.backends.kv import store as kv_store
from shadowswitch.storage.backends.tantivy import writer as tantivy_writer
from shadowswitch.storage.catalog import locks as lock_rows
from shadowswitch.storage.catalog.transaction import Commit
from shadowswitch.storage.generations.writer import GenerationWriter
from tests.simulation import host as hosts
from tests.simulation import seams
from tests.simulation.forks import Forking
from tests.simulation.host import Store
from tests.simulation.scenario import Rebuilding, Run
from tests.simulation.world import Violation, present

PROGRESS_SEEDS = 10
"""With --progress a line is printed after this many seeds."""


class WatchedCommit(Commit):
    """A transaction that the oracle sees."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        present().watcher.begun()

    def write(self, branch: int, batch: Any, *more: Any, **named: Any) -> Any:
        receipt = super().write(branch, batch, *more, **named)
        present().watcher.wrote(branch, batch, receipt.lsn)
        return receipt

    def put_branch(self, row: Any) -> None:
        super().put_branch(row)
        present().watcher.put_branch(row)

    def put_shadow(self, row: Any) -> None:
        super().put_shadow(row)
        present().watcher.put(row)

    def put_generation(self, row: Any) -> None:
        super().put_generation(row)
        present().watcher.put(row)

    def put_index(self, row: Any) -> None:
        super().put_index(row)
        present().watcher.put(row)

    def delete_generation(self, number: int) -> None:
        super().delete_generation(number)
        present().watcher.put(number)


class Unwatched:
    """The watcher of a world without an oracle."""

    def begun(self) -> None: ...

    def wrote(self, branch: int, batch: Any, lsn: int) -> None: ...

    def stored(self, row: Any, events: Any) -> None: ...

    def put(self, row: Any) -> None: ...

    def put_branch(self, row: Any) -> None: ...

    def pointed(self, *what: Any) -> None: ...

    def applied(self, *what: Any) -> None: ...


@contextmanager
def simulating() -> Iterator[Store]:
    """In the `with` block the library is simulated, and the oracle watches it."""
    folder = hosts.scratch()
    replaced = seams.Replaced()
    save, set_live, apply_until = lock_rows.save_locks, LiveIndex.set_live, GenerationWriter.apply_until

    def watched_save(commit: Commit, row: Any, events: Any, audit: Any) -> None:
        save(commit, row, events, audit)
        present().watcher.stored(row, events)

    def watched_set_live(index: LiveIndex, generation: Any, epoch: int, floor_lsn: int) -> None:
        before = index.live
        set_live(index, generation, epoch, floor_lsn)
        present().watcher.pointed(index, before)

    def watched_apply_until(writer: GenerationWriter, *arguments: Any) -> int:
        in_time = False
        try:
            applied = apply_until(writer, *arguments)
            in_time = True
        finally:
            present().watcher.applied(writer.row.number, in_time)
        return applied

    try:
        store = Store(folder)
        replaced.put(branch_locks, "save_locks", watched_save)
        replaced.put(journal_writer, "Commit", WatchedCommit)
        replaced.put(LiveIndex, "set_live", watched_set_live)
        replaced.put(GenerationWriter, "apply_until", watched_apply_until)
        replaced.put(kv_store, "_open", {})  # a process that died in virtual time leaves its environments open
        replaced.put(kv_kept, "_used", {})
        replaced.put(tantivy_writer, "CARRY_ROWS", 1)  # few records, and many carries
        replaced.put(tantivy_writer, "CARRY_S", 0.0)  # it is measured in true time
        with seams.virtual_reality():
            yield store
    finally:
        replaced.put_back()
        hosts.remove(folder)


def run_seed(seed: int, store: Store, kind: type[Run] = Run) -> Run:
    """Run one seed; raises Violation with its number and its trace."""
    run = kind(seed, store)
    run.world.watcher = run.oracle
    try:
        run.go()
    except Exception as error:
        what = str(error) if isinstance(error, Violation) else "".join(traceback.format_exception(error)[-4:])
        run.world.note("%s", what)
        trace = "\n".join(run.world.trace_lines())
        raise Violation(f"seed {seed}: {error}\n{trace}\nagain: make simulate SEED={seed}{run.again}") from error
    return run


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--from", type=int, default=0, dest="first")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--progress", action="store_true")
    parser.add_argument("--builds", action="store_const", dest="kind", const=Rebuilding, default=Run)
    parser.add_argument("--forks", action="store_const", dest="kind", const=Forking)
    options = parser.parse_args(arguments)
    gc.freeze()
    gc.set_threshold(50_000)  # a seed leaves few reference cycles, and the search for them costs a fifth of the time
    with simulating() as store:
        try:
            if options.seed is not None:
                run = run_seed(options.seed, store, options.kind)
                print("\n".join(run.world.trace_lines()))
                return 0
            counts: Counter[str] = Counter()
            for number, seed in enumerate(range(options.first, options.first + options.seeds), 1):
                counts += run_seed(seed, store, options.kind).counts
                if options.progress and number % PROGRESS_SEEDS == 0:
                    print(f"{number} of {options.seeds} seeds", flush=True)
        except Violation as violation:
            print(violation)
            return 1
    happened = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
    print(f"{options.seeds} seeds from {options.first}: no violation; {happened}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
