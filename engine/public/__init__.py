"""shadowswitch: rebuild an index in the shadow while everybody keeps writing, lose nothing, switch in one disk commit.

from shadowswitch import Engine, Put

with Engine.open("data") as engine:
    engine.create_branch("main")
    engine.write("main", [Put("object_type", "User", {"title": "User"})])
    engine.rebuild("main", "SEARCH_INDEX", ["object_type"])
    with engine.reader("main", "SEARCH_INDEX") as reader:
        print(reader.search("user"))
"""

from shadowswitch._start import release_interrupts as _release_interrupts  # the first import: it begins to hold them
from shadowswitch.engine.backups.stored import backups, prune_backups, restore, verify_backup
from shadowswitch.engine.engine import Engine
from shadowswitch.engine.groups.reading import GroupView
from shadowswitch.engine.reader import Reader
from shadowswitch.model.config import Config
from shadowswitch.model.errors import (
    BranchExists,
    BuildCancelled,
    BuildFailed,
    CloseInCallback,
    CompletionRefused,
    CorruptData,
    DirectoryLost,
    DuplicateBuild,
    EngineAlreadyOpen,
    EngineClosed,
    Fenced,
    InternalFailure,
    InUse,
    InvalidChange,
    InvalidConfig,
    InvalidEvent,
    InvalidName,
    InvalidTransition,
    JournalTrimmed,
    LockConflict,
    LockLost,
    NotConverging,
    PlaceLost,
    ResourceExhausted,
    ShadowSwitchError,
    StaleFence,
    StaleReplica,
    StorageFull,
    StoreUnavailable,
    StoreUnsafe,
    Timeout,
    UnknownBranch,
    UnknownGroup,
    UnknownIndex,
    UnknownShadow,
    UnsupportedFilesystem,
    UnsupportedFormat,
    WriteBlocked,
)
from shadowswitch.model.forks.views import Conflict, DiffKind, DiffPage, MergeResult, RecordDiff
from shadowswitch.model.groups.views import Group, GroupMember, GroupMemberInfo, GroupResult, GroupState
from shadowswitch.model.inbound_events import EventOutcome, IncomingRules
from shadowswitch.model.kinds.graph import Edge, Reached
from shadowswitch.model.locks.branch_state import BranchState
from shadowswitch.model.locks.info import Lock, LockSpec, LockWaiter
from shadowswitch.model.locks.records import ProgressReport
from shadowswitch.model.locks.refusal import Blocked, WritePermission
from shadowswitch.model.locks.targets import LockScope, LockType
from shadowswitch.model.operating.backups import BackupFindings, BackupInfo, PruneResult, RestoreResult
from shadowswitch.model.records import Change, ChangeKind, Delete, Hit, Put, Receipt, Record, RecordPage
from shadowswitch.model.search.comparison import Comparison, ComparisonRow, Mirrored
from shadowswitch.model.search.merged import MergedHit, SearchPage
from shadowswitch.model.search.relevance import Verdict
from shadowswitch.model.search.snippets import Snippet
from shadowswitch.model.shadow_state import ShadowState
from shadowswitch.model.views import (
    BranchInfo,
    BuildCost,
    ChangesHold,
    CheckProgress,
    Event,
    Finding,
    Health,
    IndexInfo,
    QuietHours,
    ShadowIndex,
    SwitchRequest,
    SwitchResult,
)

__version__ = "0.1.0"

__all__ = [
    "BackupFindings",
    "BackupInfo",
    "Blocked",
    "BranchExists",
    "BranchInfo",
    "BranchState",
    "BuildCancelled",
    "BuildCost",
    "BuildFailed",
    "Change",
    "ChangeKind",
    "ChangesHold",
    "CheckProgress",
    "CloseInCallback",
    "Comparison",
    "ComparisonRow",
    "CompletionRefused",
    "Config",
    "Conflict",
    "CorruptData",
    "Delete",
    "DiffKind",
    "DiffPage",
    "DirectoryLost",
    "DuplicateBuild",
    "Edge",
    "Engine",
    "EngineAlreadyOpen",
    "EngineClosed",
    "Event",
    "EventOutcome",
    "Fenced",
    "Finding",
    "Group",
    "GroupMember",
    "GroupMemberInfo",
    "GroupResult",
    "GroupState",
    "GroupView",
    "Health",
    "Hit",
    "InUse",
    "IncomingRules",
    "IndexInfo",
    "InternalFailure",
    "InvalidChange",
    "InvalidConfig",
    "InvalidEvent",
    "InvalidName",
    "InvalidTransition",
    "JournalTrimmed",
    "Lock",
    "LockConflict",
    "LockLost",
    "LockScope",
    "LockSpec",
    "LockType",
    "LockWaiter",
    "MergeResult",
    "MergedHit",
    "Mirrored",
    "NotConverging",
    "PlaceLost",
    "ProgressReport",
    "PruneResult",
    "Put",
    "QuietHours",
    "Reached",
    "Reader",
    "Receipt",
    "Record",
    "RecordDiff",
    "RecordPage",
    "ResourceExhausted",
    "RestoreResult",
    "SearchPage",
    "ShadowIndex",
    "ShadowState",
    "ShadowSwitchError",
    "Snippet",
    "StaleFence",
    "StaleReplica",
    "StorageFull",
    "StoreUnavailable",
    "StoreUnsafe",
    "SwitchRequest",
    "SwitchResult",
    "Timeout",
    "UnknownBranch",
    "UnknownGroup",
    "UnknownIndex",
    "UnknownShadow",
    "UnsupportedFilesystem",
    "UnsupportedFormat",
    "Verdict",
    "WriteBlocked",
    "WritePermission",
    "backups",
    "prune_backups",
    "restore",
    "verify_backup",
]

_release_interrupts()
