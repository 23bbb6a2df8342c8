"""Wrong edits that once left the whole suite green; each with the test that fails with it. See `test_mutations`.

A mutant names a part of the machine; `PLACES` alone says which file that is.
"""

from __future__ import annotations

from tests.support import edited_library

PLACES = {
    "copy and catch-up": "storage/generations/shard_build.py",
    "fts5 writer": "storage/backends/fts5/writer.py",
    "generation": "storage/generations/generation.py",
    "health check": "engine/calls/soak.py",
    "live index": "actors/switch/live_index.py",
    "locks of a branch": "actors/branch/locks.py",
    "locks of all branches": "actors/branch/lock_registry.py",
    "pace of a build": "actors/build/pacing.py",
    "publishing": "storage/generations/published_path.py",
    "readers": "engine/reader.py",
    "recovery": "engine/recovery.py",
    "trimmer": "actors/maintenance/trimmer.py",
    "validator": "actors/build/validator.py",
}
"""The file of each part, as it is installed below `shadowswitch`."""

Edits = list[tuple[str, str, str]]
"""A part, a text that occurs once in it, and the text that replaces it."""

MUTANTS: dict[str, tuple[str, Edits]] = {
    "the journal trimmed one LSN too far": (
        "test_trim_bounds.py -k oldest_that_is_kept",
        [("trimmer", "min(needed + 1, queue", "min(needed + 2, queue")],
    ),
    "durable LSNs not noted before the journal is trimmed": (
        "test_trim_bounds.py -k calls_durable",
        [("trimmer", 'self._transact(partial(retention.note_durable, durable=durable), "note durable")', "pass")],
    ),
    "a generation closed without a look at its pins": (
        "test_outside_pins.py -k lets_go",
        [("generation", "            if (self.pins or self._kept) and not self.closed:\n", "            if False:\n")],
    ),
    "a late pin of another process counts for a retiring generation": (
        "test_outside_pins.py -k late_pin",
        [("readers", 'if again is None or again.role == "retiring":', "if again is None:")],
    ),
    "readers do not wait for the head after a restart": (
        "test_restarted_readers.py -k head_at_the_start",
        [("recovery", "head = self._catalog.head(index.branch)[0]", "head = 0")],
    ),
    "recovery serves the previous generation": (
        "test_restarted_readers.py -k not_the_previous",
        [("recovery", "self._generations.get(index.live)", "self._generations.get(index.previous or index.live)")],
    ),
    "locks expire by the wall clock": (
        "test_wall_clock.py",
        [
            (
                "locks of a branch",
                "        self._clock = context.clock\n",
                "        self._clock = type(context.clock)()\n        self._clock.monotonic = self._clock.wall\n",
            ),
            ("locks of a branch", "LockTimer(timers, context.clock,", "LockTimer(timers, self._clock,"),
            (
                "locks of all branches",
                "now, clock_id = self._context.clock.monotonic()",
                "now, clock_id = self._context.clock.wall()",
            ),
        ],
    ),
    "a soaking generation is not followed": (
        "test_soaking.py -k follows",
        [("live index", "        return min(head, live.applied_lsn)\n", "        return 0\n")],
    ),
    "a health check only logs": (
        "test_soaking.py -k health",
        [
            (
                "health check",
                """self.go_back(info, f"health check: {'; '.join(reasons)}")""",
                'logger.error("health check: %s", reasons)',
            )
        ],
    ),
    "deletes dropped in catch-up": (
        "test_sound_builds.py -k catches_up",
        [
            (
                "copy and catch-up",
                "                writer.apply(items, reached)\n",
                "                writer.apply([item for item in items if item.fields is not None], reached)\n",
            )
        ],
    ),
    "a resumed copy skips the rest of a type": (
        "test_sound_builds.py -k resumed",
        [("copy and catch-up", "            if number < resume_type:\n", "            if number <= resume_type:\n")],
    ),
    "a build that says it gives way, and works on": (
        "test_giving_way.py -k workers",
        [("pace of a build", "Control(self.share * self._builds.way.share, ", "Control(self.share, ")],
    ),
    "a repair that does nothing": (
        "test_validation.py -k repaired_once",
        [("validator", "            writer.repair(shard, bucket, items)\n", "            pass\n")],
    ),
}

MUTANTS_OF_SYNCING: dict[str, tuple[str, Edits]] = {
    "a published copy that is not forced to disk": (
        "test_forced_to_disk.py -k published_copy",
        [("publishing", "            _sync_file(Path(folder, name))\n", "            pass\n")],
    ),
    "a published copy whose folders are not forced to disk": (
        "test_forced_to_disk.py -k published_copy",
        [("publishing", "        disk.sync_directory(Path(folder))\n", "        pass\n")],
    ),
    "a published copy whose name is not forced to disk before it is put in place": (
        "test_forced_to_disk.py -k published_copy",
        [("publishing", "        disk.sync_directory(staging)\n", "        pass\n")],
    ),
    "a folder of all published paths that is not forced to disk": (
        "test_forced_to_disk.py -k folder_of_the_published",
        [("publishing", "    disk.make_folder(root, 0o755)\n", "    root.mkdir(mode=0o755, exist_ok=True)\n")],
    ),
    "a published folder that is not forced to disk": (
        "test_forced_to_disk.py -k published_copy",
        [("publishing", "        disk.sync_directory(path.parent)\n", "        pass\n")],
    ),
    "a flush that does not force the log of a shard to disk": (
        "test_forced_to_disk.py -k flush",
        [("fts5 writer", "            store.sync_wal(self._path)\n", "            pass\n")],
    ),
}
"""Mutants that system calls show; power cuts show some of them, see `SYNCING` in `tests/crash/test_power_cut.py`."""


def by_file(edits: Edits) -> edited_library.Edits:
    """The edits of a mutant by the file of their part."""
    found: edited_library.Edits = {}
    for part, old, new in edits:
        found.setdefault(PLACES[part], []).append((old, new))
    return found
