"""Every change of a shadow's, generation's or index's state: one function, one write transaction, with event and audit.

Each function runs inside a `Commit`, so all of it is on disk, or none of it. It checks before it changes.
`commit_switch` is THE ONLY COMMIT POINT of a switch (SW-4, IX-1, IX-6), and `switch_members` that of a group of them
(GR-1); `withdraw_live` and `drop_index` take a live one away.

A shadow's state and its generation's role belong together (IX-6):

    PREPARING BUILDING FAILED   building      BUILT SWITCHING   standby
    ACTIVE                      live, soaking CLEANUP CANCELLED retiring, then no row
"""

from shadowswitch.storage.catalog.transitions.builds import (
    begin_building,
    claim_build,
    drop_seed,
    fail_waiting,
    mark_built,
    mark_cancelled,
    mark_delivered,
    mark_failed,
    mark_retrying,
    note_external,
    note_progress,
    note_refused,
    resume_building,
)
from shadowswitch.storage.catalog.transitions.forks import (
    begin_rebase,
    end_rebase,
    end_rebase_of_follower,
    fork_branch,
    note_merged,
    trim_undo,
)
from shadowswitch.storage.catalog.transitions.groups import (
    dissolve,
    end_soak,
    leave_group,
    start_group,
    switch_members,
    withdraw_member,
)
from shadowswitch.storage.catalog.transitions.operating import (
    note_queued,
    pause,
    set_priority,
    set_share,
    unpause,
)
from shadowswitch.storage.catalog.transitions.recovery import (
    note_recovered,
    note_recovery,
)
from shadowswitch.storage.catalog.transitions.removal import (
    drop_branch,
    drop_index,
    forget_branch,
    forget_ended,
    forget_shadows,
    remove_slice,
)
from shadowswitch.storage.catalog.transitions.restoring import begin_restored
from shadowswitch.storage.catalog.transitions.retirement import (
    forget_generation,
    mark_unsound,
    note_hindered,
    note_read,
    note_unsound,
    retire_failed,
    retire_previous,
)
from shadowswitch.storage.catalog.transitions.schedule import (
    carry_over_plan,
    postpone,
    schedule,
    unschedule,
)
from shadowswitch.storage.catalog.transitions.switches import (
    begin_switching,
    commit_switch,
    finish_switch,
    give_up_switching,
    retune,
    withdraw_live,
)

__all__ = [
    "begin_building",
    "begin_rebase",
    "begin_restored",
    "begin_switching",
    "carry_over_plan",
    "claim_build",
    "commit_switch",
    "dissolve",
    "drop_branch",
    "drop_index",
    "drop_seed",
    "end_rebase",
    "end_rebase_of_follower",
    "end_soak",
    "fail_waiting",
    "finish_switch",
    "forget_branch",
    "forget_ended",
    "forget_generation",
    "forget_shadows",
    "fork_branch",
    "give_up_switching",
    "leave_group",
    "mark_built",
    "mark_cancelled",
    "mark_delivered",
    "mark_failed",
    "mark_retrying",
    "mark_unsound",
    "note_external",
    "note_hindered",
    "note_merged",
    "note_progress",
    "note_queued",
    "note_read",
    "note_recovered",
    "note_recovery",
    "note_refused",
    "note_unsound",
    "pause",
    "postpone",
    "remove_slice",
    "resume_building",
    "retire_failed",
    "retire_previous",
    "retune",
    "schedule",
    "set_priority",
    "set_share",
    "start_group",
    "switch_members",
    "trim_undo",
    "unpause",
    "unschedule",
    "withdraw_live",
    "withdraw_member",
]
