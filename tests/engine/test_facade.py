"""The facade: exactly the promised names, sorted, importable, documented."""

from __future__ import annotations

import inspect
import pickle
import subprocess
import sys

import shadowswitch
from shadowswitch.model import errors
from shadowswitch.model.errors import ShadowSwitchError
from tests.support.engine_helpers import outside_environment

PROMISED = """Config Delete Engine Put SwitchRequest SwitchResult Reader Receipt Record Change Hit ShadowIndex
IndexInfo BranchInfo Finding Event ShadowSwitchError WriteBlocked LockConflict LockLost UnknownBranch UnknownShadow
UnknownIndex InvalidName InvalidChange InvalidTransition DuplicateBuild BuildFailed BuildCancelled NotConverging
StorageFull CorruptData EngineAlreadyOpen EngineClosed Timeout"""
CALLS = """open close create_branch branch branches write get scan count head changes start_build cancel_build
retry_build switch rebuild rollback shadow shadows index indexes wait_for reader acquire_lock heartbeat extend_lock
release_lock force_unlock locks check_write events subscribe check stats"""
PARAMETERS = {
    "write": "branch changes owner timeout_s",
    "get": "branch resource_type id",
    "scan": "branch resource_type",
    "count": "branch resource_type",
    "changes": "branch after limit",
    "start_build": "branch index_type resource_types build_config external service_name",
    "report_progress": "id percent estimated_completion_s record_count",
    "complete_build": "id index_size_bytes record_count applied_lsn build_summary",
    "fail_build": "id error",
    "cancel_build": "id reason",
    "retry_build": "id",
    "switch": "id request",
    "rebuild": "branch index_type resource_types build_config request timeout_s",
    "rollback": "branch index_type request",
    "shadow": "id",
    "shadows": "branch state",
    "wait_for": "id states timeout_s",
    "reader": "branch index_type min_lsn timeout_s",
    "acquire_lock": "branch lock_type owner scope resource_type resource_id ttl_s heartbeat_s reason wait_s",
    "heartbeat": "lock_id token progress",
    "extend_lock": "lock_id token extra_s",
    "release_lock": "lock_id token",
    "force_unlock": "branch admin reason",
    "locks": "branch",
    "check_write": "branch action resource_type resource_id owner",
    "events": "after limit",
    "subscribe": "callback",
}
"""Parameters that programs outside pass by name; a call may have more."""


def test_the_facade_is_exact_and_sorted() -> None:
    public = {name for name in vars(shadowswitch) if not name.startswith("_")}
    modules = {name for name in public if inspect.ismodule(getattr(shadowswitch, name))}
    assert sorted(shadowswitch.__all__) == shadowswitch.__all__
    assert public - modules == set(shadowswitch.__all__)


def test_everything_promised_is_there() -> None:
    assert [name for name in PROMISED.split() if name not in shadowswitch.__all__] == []


def test_every_promised_call_is_there_and_has_a_docstring() -> None:
    assert [name for name in CALLS.split() if not hasattr(shadowswitch.Engine, name)] == []
    silent = [name for name in CALLS.split() if not (getattr(shadowswitch.Engine, name).__doc__ or "").strip()]
    assert silent == []


def test_every_promised_parameter_is_there_and_the_first_is_the_first() -> None:
    for call, names in PARAMETERS.items():
        given = list(inspect.signature(getattr(shadowswitch.Engine, call)).parameters)[1:]
        assert set(names.split()) <= set(given), call
        assert given[0] == names.split()[0], call


def test_every_error_is_exported_and_belongs_to_the_tree() -> None:
    tree = {name: kind for name, kind in vars(errors).items() if inspect.isclass(kind)}
    kinds = {name: kind for name, kind in tree.items() if issubclass(kind, ShadowSwitchError)}
    assert set(kinds) <= set(shadowswitch.__all__)
    assert all(kind.__doc__ for kind in kinds.values())
    assert all(name in (errors.__doc__ or "") for name in kinds)


def test_errors_travel_between_processes_with_all_they_say() -> None:
    error = shadowswitch.DuplicateBuild("busy", shadow_index_id="x", operation="start_build", hint="wait")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.shadow_index_id, again.operation) == ("busy; wait", "x", "start_build")


def test_standard_errors_catch_ours_where_that_is_expected() -> None:
    assert issubclass(shadowswitch.Timeout, TimeoutError)
    assert issubclass(shadowswitch.UnknownBranch, LookupError)
    assert issubclass(shadowswitch.InvalidName, ValueError)


def test_importing_it_starts_nothing_and_loads_nothing_that_is_optional() -> None:
    script = (
        "import sys, threading; import shadowswitch; "
        "assert threading.active_count() == 1, threading.enumerate(); "
        "print(*[m for m in ('rich', 'cyclopts', 'hypothesis', 'pytest') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        env=outside_environment(),
        check=True,
    )
    assert done.stdout.strip() == ""
