"""Unsafe variants of the library: textual changes, each with the test that must fail on it."""

from __future__ import annotations

from tests.support.edited_library import Edits

SWITCHES = "storage/catalog/transitions/switches.py"

MUTANTS_OF_SAFETY: dict[str, tuple[str, Edits]] = {
    "done recorded before the effect": (
        "test_points.py -k named_point[retire.removed@1]",
        {
            "actors/maintenance/janitor.py": [
                (
                    """        remove_directory(path)
        failpoint("retire.removed")
        self._context.transact(lambda commit: transitions.forget_generation(commit, row.number), "retire")
""",
                    """        self._context.transact(lambda c: transitions.forget_generation(c, row.number), "retire")
        failpoint("retire.removed")
        remove_directory(path)
""",
                )
            ]
        },
    ),
    "journal trimmed too early": (
        "test_safety.py -k trimmed",
        {
            "actors/maintenance/trimmer.py": [
                ("min(needed + 1, queue", "min(self._catalog.head(branch)[0] + 1, queue"),
            ]
        },
    ),
    "journal trimmed by an old view of the needed changes": (
        "test_safety.py -k busy",
        {"actors/maintenance/trimmer.py": [("        queue.look()  # after", "        pass  # after")]},
    ),
    "a hold not looked at in the transaction that trims": (
        "test_holds.py -k kept_or_refused",
        {"actors/maintenance/trimmer.py": [("    if held is not None:\n", "    if False:\n")]},
    ),
    "a torn index served after a power cut": (
        "test_kv_power_cut.py -k torn",
        {"engine/recovery.py": [("            self._check_before_opening(row)\n", "")]},
    ),
    "a link followed when a generation is removed": (
        "test_links.py -k removed_with",
        {
            "storage/generations/generation.py": [
                (
                    "    if path.is_symlink():\n        path.unlink()\n        disk",
                    "    if False:\n        disk",
                )
            ]
        },
    ),
    "deleted before a look at the pins": (
        "test_safety.py -k pinned",
        {
            "actors/maintenance/janitor.py": [
                ("            if opened.pins or not", "            if not"),
                ("if pinned_elsewhere(path):", "if False:"),
            ]
        },
    ),
    "fence not checked": (
        "test_safety.py -k token",
        {SWITCHES: [("    if shadow.token != token:\n", "    if False:\n")]},
    ),
    "expected generation not checked": (
        "test_safety.py -k expects",
        {
            "storage/catalog/transitions/switches.py": [
                ("    if live != expected_live or generation", "    if generation")
            ]
        },
    ),
}


ATTEMPT, LIVE_INDEX = "actors/switch/attempt.py", "actors/switch/live_index.py"
MUTANTS_OF_THE_TURN: dict[str, tuple[str, Edits]] = {
    "the pointer moved before the commit": (
        "test_turn.py -k stale_token",
        {
            ATTEMPT: [
                (
                    '        failpoint("switch.proven")\n',
                    '        failpoint("switch.proven")\n'
                    "        self._index.set_live(self._target, self._index.epoch + 1, self._head)\n",
                )
            ]
        },
    ),
    "the proof skipped": (
        "test_turn.py -k digest_that_differs",
        {ATTEMPT: [("        if self._target.writer.differing(source):\n", "        if False:\n")]},
    ),
    "drained and proven behind the commit": (
        "test_turn.py -k any_window",
        {
            ATTEMPT: [
                ("        ends = self._begun + self._drain_s\n", "        return None\n"),
                (
                    "        if not self._index.agree(",
                    "        head = self._context.catalog.head(self._index.branch)[0]\n"
                    "        self._target.writer.apply_until(head, self._begun + 9.0)\n"
                    "        if not self._index.agree(",
                ),
            ]
        },
    ),
    "writes that gathered not committed before the drain": (
        "test_turn.py -k writes_that_gather",
        {
            "actors/journal_writer.py": [
                ("        self._commit_pending()\n        self._answer()  # its", "        self._answer()  # its")
            ]
        },
    ),
    "a drain without a deadline": (
        "test_turn.py -k beside_the_writers",
        {ATTEMPT: [("        ends = self._begun + self._drain_s\n", "        ends = self._begun + 1e6\n")]},
    ),
    "each attempt has the same time for its drain": (
        "test_turn.py -k longer_drain",
        {ATTEMPT: [("DRAIN_FIRST_S * 4**number", "DRAIN_FIRST_S")]},
    ),
    "a turn that comes late is taken": (
        "test_turn.py -k comes_late",
        {
            ATTEMPT: [
                ("        if not reply.wait(self._begin_by - now) and reply.cancel():\n", "        if False:\n"),
                ("        if self._begun > self._begin_by:\n", "        if False:\n"),
            ]
        },
    ),
    "a switch committed although its caller was answered": (
        "test_deadline.py -k stands_still",
        {"actors/switch/switching.py": [("not reply.set_running_or_notify_cancel():\n", "False:\n")]},
    ),
    "the deadline of a switch not looked at": (
        "test_deadline.py -k no_turn_begins",
        {
            "actors/switch/switch_run.py": [("        if now < self.deadline:\n", "        if now < 1e99:\n")],
            ATTEMPT: [
                ("= min(now + self._budget_s, self._deadline)\n", "= now + self._budget_s\n"),
                ("return min(limit_s, self._deadline - self._clock.monotonic())\n", "return limit_s\n"),
            ],
        },
    ),
    "a validator waited for beyond the deadline": (
        "test_deadline.py -k never_returns",
        {"actors/switch/host_check.py": [("reply.wait(left_s)", "reply.wait(60.0)")]},
    ),
    "an index in an unknown format switched to although a change came": (
        "test_turn.py -k unknown_format",
        {
            ATTEMPT: [
                ('            return AttemptEnd(Failure.GAVE_UP, f"a change', '            logger.debug(f"a change'),
                ('builder has not applied: {error.message}")\n', 'builder has not applied", error)\n'),
                ("        if self._target.writer.differing(source):\n", "        if False:\n"),
            ]
        },
    ),
    "the counters of a writer that was overtaken": (
        "test_two_writers.py",
        {
            "storage/catalog/transaction.py": [
                ("        if self.counters.txn_id != txn_id - 1:\n", "        if False:\n"),
            ]
        },
    ),
    "a soak that ends under a switch": (
        "test_hindered_turn.py -k retire",
        {
            "actors/maintenance/janitor.py": [
                (
                    "            if row is not None and (row.branch, row.index_type) in switched:\n",
                    "            if False:\n",
                ),
            ]
        },
    ),
    "a pointer that could not be settled and is forgotten": (
        "test_hindered_turn.py -k settled",
        {"actors/journal_writer.py": [("            self._unsettled.append(message)\n", "            pass\n")]},
    ),
    "the pointer not moved after an error": (
        "test_turn.py -k lost_answer",
        {
            "actors/journal_writer.py": [
                ("            self._settle(message)\n            self._refuse(", "            self._refuse("),
            ]
        },
    ),
    "an error believed although the catalog has the switch": (
        "test_switch_outcome.py -k in_the_catalog",
        {"model/switch_outcome.py": [("        if target_live:\n", "        if False:\n")]},
    ),
    "the pointer moved without a look at the epoch": (
        "test_live_index.py -k agrees",
        {LIVE_INDEX: [("row is None or row.epoch <= self.epoch", "row is None")]},
    ),
    "the floor not raised by a switch": (
        "test_live_index.py -k never_falls",
        {LIVE_INDEX: [("                self.read_floor_lsn = max(", "                max(")]},
    ),
    "the floor lowered by a switch": (
        "test_live_index.py -k never_falls",
        {LIVE_INDEX: [("max(self.read_floor_lsn, floor_lsn)", "floor_lsn")]},
    ),
    "the floor not set at the start": (
        "test_live_index.py -k after_a_start",
        {"engine/recovery.py": [("set_live(live, index.epoch, head)", "set_live(live, index.epoch, 0)")]},
    ),
    "readers not kept waiting for the floor": (
        "test_live_index.py -k waits_for_the_floor",
        {LIVE_INDEX: [("        least = max(min_lsn, self._floor_of(live))\n", "        least = min_lsn\n")]},
    ),
    "a soaking generation followed ahead of the live one": (
        "test_live_index.py -k no_further",
        {LIVE_INDEX: [("        return min(head, live.applied_lsn)\n", "        return head\n")]},
    ),
    "the previous generation not known as exposed": (
        "test_live_index.py -k stays_exposed",
        {
            LIVE_INDEX: [
                ("                self._exposed.add(generation.row.number)\n", ""),
            ]
        },
    ),
    "a soaking generation caught up ahead of the live one": (
        "test_live_index.py -k live_one_first",
        {LIVE_INDEX: [("self._comes_first(live, generation, live_until):", "False:")]},
    ),
    "a switch that waits for a live generation that raises": (
        "test_live_index.py -k that_raises",
        {LIVE_INDEX: [("except Exception as error:  # whatever", "except Timeout as error:  # whatever")]},
    ),
    "writers held by a live generation that was left behind": (
        "test_leaving.py -k wait_for_a_slow_index",
        {LIVE_INDEX: [("        return live.applied_lsn >= generation.applied_lsn or ", "        return True or ")]},
    ),
}
"""Mutants of the turn of a switch, and of the rules for readers of an index."""

TELL = "        self._context.journal.tell(CommitSwitch(self._prepare, self._work, self._settle, reply))\n"
MUTANTS_OF_GROUPS: dict[str, tuple[str, Edits]] = {
    "a group committed in two transactions": (
        "test_points.py -k named_point[group.moved@1]",
        {
            "actors/group/group_attempt.py": [
                (
                    TELL,
                    "        for one in self._targets[:-1]:\n"
                    "            first: Reply[IndexRow] = Reply()\n"
                    "            self._context.journal.tell(CommitSwitch(one.prepare, one.work, one.settle, first))\n"
                    "            first.result(60)\n"
                    "        self._targets = self._members = self._targets[-1:]\n" + TELL,
                )
            ]
        },
    ),
    "a member of a group switched alone": (
        "test_group_holds.py -k in_its_transaction",
        {
            "storage/catalog/transitions/groups.py": [
                ("    if row is None or shadow is None:\n        return\n", "    return\n")
            ]
        },
    ),
    "a member of a group that is not proven": (
        "test_group_switches.py -k is_not_proven",
        {"actors/group/group_attempt.py": [("            if refusal is not None:\n", "            if False:\n")]},
    ),
    "a view that does not look at the pointers again": (
        "test_read_group.py -k begins_it_anew",
        {
            "engine/groups/reading.py": [
                ("            return all(index.live is", "            return True or all(index.live is")
            ]
        },
    ),
    "a view that shows what is written later": (
        "test_read_group.py -k stays_at_its_moment",
        {"engine/groups/reading.py": [("                reader.freeze()\n", "")]},
    ),
    "what soaks for a group retired one by one": (
        "test_group_switches.py -k retire_together",
        {"actors/group/soaks.py": [("    if group is None:\n", "    if True:\n")]},
    ),
}
"""Mutants of the switch of a group, and of a view."""

UNSAFE = {**MUTANTS_OF_SAFETY, **MUTANTS_OF_THE_TURN, **MUTANTS_OF_GROUPS}

IN_TORTURE = {
    "journal trimmed by an old view of the needed changes",
    "a hold not looked at in the transaction that trims",
    "each attempt has the same time for its drain",
    "a turn that comes late is taken",
    "a torn index served after a power cut",
    "a link followed when a generation is removed",
    *MUTANTS_OF_GROUPS,
}
"""Mutants that run only with `make torture`: they would make the ordinary run too long."""
