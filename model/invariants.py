"""The registry of invariants. Code, tests and documents cite these ids.

ST: the catalog; IX: generations and the live pointer; SW: a switch, as readers and writers see it; BK: promises of a
backend (spelled out in `storage.backends.protocol`); BR: forks; GR: groups; EV: the event log; LK: the lock table (see
`model.locks.table`).
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

INVARIANTS: Final = MappingProxyType(
    {
        "ST-1": "journal LSNs of a branch rise, none is above the last LSN, and the branch's head is the last of them",
        "ST-2": "a record's LSN is that of the last journal entry of its key, while that entry is kept",
        "ST-3": "the digest kept by branch and resource type equals the one recomputed from the records",
        "ST-4": "every row decodes and has the content that its checksum names, and every row it points to exists",
        "ST-5": "a write is acknowledged only after the transaction that holds it is on disk",
        "ST-6": "the journal keeps every change above the LSN of each generation that follows it and of each hold",
        "IX-1": "an index has exactly one live generation, which is on disk and whole, and readers get that one",
        "IX-2": "a shard's counters equal what its rows say",
        "IX-3": "a generation at LSN L holds exactly the records of its types as they were at L",
        "IX-4": "the backend's own integrity check of every shard finds nothing",
        "IX-5": "every generation directory on disk belongs to a generation in the catalog",
        "IX-6": "a shadow's state and its generation's role agree",
        "IX-7": "the published path of an index leads to its live generation, or to a whole copy of it",
        "IX-8": "the manifest and the closed files of a built generation are as they were when it was built",
        "SW-1": "a reader sees one complete generation",
        "SW-2": "the version of a key that readers see never goes back to an older LSN",
        "SW-3": "a switch commits only a shadow whose digest equals that of its source at the LSN of the commit",
        "SW-4": "a switch commits only if the expected generation is live and the fencing token is the present one",
        "SW-5": "a pinned generation is not removed",
        "BK-1": "rows, counters, applied LSN and cursor of a shard change in one transaction",
        "BK-2": "apply is ordered and idempotent",
        "BK-3": "a shard knows the LSN of every key, and its digest",
        "BK-4": "every change up to the LSN that flush returned survives a power cut",
        "BK-5": "readers and the writer of a shard never block each other",
        "BK-6": "no query string raises anything but InvalidConfig",
        "BR-1": "the digest kept of a fork equals the one recomputed from what it shows",
        "BR-2": "a parent keeps each version of a record that one of its forks shows",
        "BR-3": "a branch with old images is written to as one with forks",
        "BR-4": "forks form a tree: a fork has one older parent, whose head is not below the LSN of the fork",
        "BR-5": "the journal of a fork that follows has each change of its parent, except of records that it changed",
        "GR-1": "the indexes of a switched group are all at the generations of the group, or all at those before it",
        "EV-1": "events and audit rows are numbered without gaps, and the newest has the highest number given",
        "EV-2": "model.events lists the type of every event",
        "EV-3": "an event from outside has one outcome, as long as its row is kept",
        "EV-4": "every row of the audit history has an author and a reason; a decision of the engine has its rule",
        "LK-1": "two exclusive locks that overlap are held only if the later was requested under the earlier",
        "LK-2": "the token of a grant is larger than every token granted before on its branch, also over restarts",
        "LK-3": "an expired lock blocks no request, and its token is not valid",
        "LK-4": "only requests that do not overlap a waiter, or are made under the locks it waits for, pass it",
        "LK-5": "several locks requested together are granted in one step or not at all",
        "LK-6": "after every step no waiter could be granted",
    }
)
