"""Feature branches: forked, worked on, searched, rebased and merged while the developers of their parent go on.

Two threads on each branch edit the same records on forks of their own; nothing but a merge writes these records on the
parent. A record has one field that changes, and a conflict is settled for the fork. So what the parent must show after
each merge is known exactly, and the ledger of the whole run has it: the one auditor counts what was lost or revived.
"""

from __future__ import annotations

import random
import threading
import time

from benchmarks.common import KIND
from benchmarks.simulation.developers import EXAMPLES_MAX, Run
from shadowswitch.model.errors import InUse
from shadowswitch.model.records import Delete, Put

TIMEOUT_S = 120.0
RECORDS = 40
EDITS = 12
"""Of a fork before its rebase, and again behind it."""
THINK_S = 0.02

State = dict[str, str | None]
"""By id, the text; None for a record that is deleted."""


class Trunk:
    """What the forks of one branch share: the records that only merges write there. Guarded by `lock`."""

    def __init__(self, run: Run, branch: str, resource_type: str) -> None:
        self.run = run
        self.branch = branch
        self.resource_type = resource_type
        self.lock = threading.Lock()
        self.state: State = {}
        batch = [Put(resource_type, f"feature-{n}", {"title": "feature", "body": f"first {n}"}) for n in range(RECORDS)]
        last = run.host.engine.write(branch, batch, timeout_s=TIMEOUT_S).lsn
        for n, one in enumerate(batch):
            self.state[one.id] = one.fields["body"]
            run.ledger.acked((branch, resource_type, one.id), last - len(batch) + 1 + n, deleted=False)


class Features(threading.Thread):
    """Makes one fork after the other until the run is over. What is wrong is noted as an error of the run."""

    def __init__(self, trunk: Trunk, number: int) -> None:
        super().__init__(name=f"features-{trunk.branch}-{number}", daemon=True)
        self._trunk = trunk
        self._run = trunk.run
        self._engine = trunk.run.host.engine
        self._chance = random.Random(number)
        self._number = number

    def run(self) -> None:
        """All forks."""
        made = 0
        while time.perf_counter() < self._run.ends and not self._run.stop.is_set():
            try:
                self._fork(f"feature/{self._trunk.branch}-{self._number}-{made}")
            except Exception as error:
                self._note(f"{type(error).__name__}: {error}")
            made += 1

    def _fork(self, name: str) -> None:
        engine, trunk = self._engine, self._trunk
        with trunk.lock:
            engine.fork_branch(name, trunk.branch)
            shown = dict(trunk.state)
        own = self._edit(name, shown)
        with trunk.lock:  # the base of the fork is then what the trunk is here
            engine.rebase(name, on_conflict="ours", timeout_s=TIMEOUT_S)
            base = dict(trunk.state)
        shown = {**base, **own}
        own |= self._edit(name, shown)
        # made and deleted again: no change, so what the trunk has made of it meanwhile stays
        own = {id: text for id, text in own.items() if text is not None or base[id] is not None}
        self._audit(name, shown)
        with trunk.lock:
            self._merge(name, own)
        self._drop(name)
        self._count("feature branches merged")

    def _edit(self, name: str, shown: State) -> State:
        """Some edits and deletes; `shown` has them, too. To delete what is not there would be no change."""
        own: State = {}
        for edit in range(EDITS):
            id = f"feature-{self._chance.randrange(RECORDS)}"
            text: str | None = f"{name.replace('/', '')} {edit} {self._chance.random()}"
            if shown[id] is not None and self._chance.random() < 0.2:
                text = None
            change = Delete(self._trunk.resource_type, id) if text is None else self._put(id, text)
            self._engine.write(name, [change], owner=self.name, timeout_s=TIMEOUT_S)
            own[id] = shown[id] = text
            self._run.stop.wait(THINK_S)
        return own

    def _put(self, id: str, text: str) -> Put:
        return Put(self._trunk.resource_type, id, {"title": "feature", "body": text})

    def _audit(self, name: str, shown: State) -> None:
        """The fork, and its index, which its first reader has made, show these records as they must."""
        lsn = self._engine.head(name)
        with self._engine.reader(name, KIND, min_lsn=lsn, timeout_s=TIMEOUT_S) as reader:
            for id, text in shown.items():
                key = (self._trunk.resource_type, id)
                stored, indexed = self._engine.get(name, *key), reader.get(*key)
                if (stored.fields["body"] if stored else None) != text:
                    self._note(f"{name} shows {id} as {stored}, and it is {text!r}")
                if (indexed.lsn if indexed else 0) != (stored.lsn if stored else 0):
                    self._note(f"the index of {name} has {id} as {indexed}, the branch as {stored}")
        self._count("feature branches searched")

    def _merge(self, name: str, own: State) -> None:
        """Merge; what the trunk shows then is explained by the trunk before, and what the fork changed."""
        engine, trunk = self._engine, self._trunk
        changed = sum(1 for _ in engine.diff(name))
        result = engine.merge_into(trunk.branch, name, on_conflict="ours", timeout_s=TIMEOUT_S)
        if result.applied + result.same != changed:
            self._note(f"{name}: {changed} differences, {result.applied} applied and {result.same} the same")
        trunk.state |= own
        for id in own:
            key = (trunk.branch, trunk.resource_type, id)
            found = engine.get(*key)
            if (found.fields["body"] if found else None) != trunk.state[id]:
                self._note(f"after the merge of {name}, {id} is {found}, and must be {trunk.state[id]!r}")
            elif found is not None:
                self._run.ledger.acked(key, found.lsn, deleted=False)
            elif result.receipt is not None:
                self._run.ledger.acked(key, result.receipt.lsn, deleted=True)
        self._count("conflicts of features settled", len(result.conflicts))

    def _drop(self, name: str) -> None:
        """Drop a fork, once the switch of its index has ended."""
        until = time.perf_counter() + TIMEOUT_S
        while True:
            try:
                self._engine.drop_branch(name, reason="merged")
                return
            except InUse:
                if time.perf_counter() > until:
                    raise
            time.sleep(THINK_S)

    def _count(self, what: str, by: int = 1) -> None:
        with self._run.lock:
            self._run.notes.counts[what] += by

    def _note(self, problem: str) -> None:
        self._count("errors")
        if len(self._run.notes.errors) < EXAMPLES_MAX:
            self._run.notes.errors.append(f"{self.name}: {problem}")
