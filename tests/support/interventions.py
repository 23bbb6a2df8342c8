"""Changes of the product for the time of a test, named by their meaning: part of `tests.support.inside`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from shadowswitch import Engine
from shadowswitch.model.digest import BUCKETS, bucket_of, shard_of
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.journal import read_records
from shadowswitch.storage.clock import Clock
from shadowswitch.storage.generations.generation import Generation
from shadowswitch.storage.generations.writer import GenerationWriter
from tests.support.places import Limit, Patch, Step, patch_limit, replace, wrap

Ordinary = Callable[..., Any]
SPOILT_BUCKET = 5


# -- generations -------------------------------------------------------------------------------------------------------


def before_apply(patch: Patch, hindrance: Callable[[GenerationWriter, int], int | None]) -> None:
    """Call `hindrance(writer, upto)` before a generation applies a slice.

    `hindrance` may raise, or return the size of the slice (None: the ordinary one).
    """

    def apply(ordinary: Ordinary, writer: GenerationWriter, upto: int, limit: int) -> Any:
        return ordinary(writer, upto, hindrance(writer, upto) or limit)

    wrap(patch, Step.APPLY, apply)


def before_apply_until(patch: Patch, number: int, hindrance: Callable[[], object]) -> None:
    """Call `hindrance` before any caller but its follower applies to one generation up to an LSN. It may raise."""

    def apply_until(ordinary: Ordinary, writer: GenerationWriter, *given: Any) -> Any:
        if writer.row.number == number:
            hindrance()
        return ordinary(writer, *given)

    wrap(patch, Step.APPLY_UNTIL, apply_until)


def on_follow(patch: Patch, number: int, first: Callable[[], object], then: Callable[[], object] = int) -> None:
    """Call `first` before the follower applies a slice to one generation, and `then` after it."""

    def follow_slice(ordinary: Ordinary, writer: GenerationWriter, *given: Any) -> Any:
        if writer.row.number != number:
            return ordinary(writer, *given)
        first()
        applied = ordinary(writer, *given)
        then()
        return applied

    wrap(patch, Step.FOLLOW, follow_slice)


def before_compact(patch: Patch, number: int, then: Callable[[], object]) -> None:
    """Call `then` before the follower does a piece of housekeeping of one generation."""

    def compact(ordinary: Ordinary, writer: GenerationWriter) -> Any:
        if writer.row.number == number:
            then()
        return ordinary(writer)

    wrap(patch, Step.COMPACT, compact)


def unsound(patch: Patch, is_so: Callable[[int], bool]) -> None:
    """A generation differs from its source in one bucket as long as `is_so(number)`."""

    def differing(ordinary: Ordinary, writer: GenerationWriter, source: Any) -> Any:
        return [SPOILT_BUCKET] if is_so(writer.row.number) else ordinary(writer, source)

    wrap(patch, Step.DIFFERING_BUCKETS, differing)


def spoil_digest(patch: Patch, engine: Engine, number: int) -> None:
    """The digest of a generation is wrong, always in the same way."""
    wrong = _opened(engine, number).writer.digest()
    wrong.add(12345, 1)

    def digest(ordinary: Ordinary, writer: GenerationWriter) -> Any:
        return wrong if writer.row.number == number else ordinary(writer)

    wrap(patch, Step.DIGEST, digest)


def spoil_source_digest(patch: Patch) -> None:
    """The digest of every source is wrong when it is read outside of a write transaction."""

    def source_digest(ordinary: Ordinary, *given: Any) -> Any:
        head, digest = ordinary(*given)
        digest.add(12345, 1)
        return head, digest

    wrap(patch, Step.SOURCE_DIGEST, source_digest)


def without_repair(patch: Patch) -> None:
    """A repair changes nothing."""
    replace(patch, Step.REPAIR, lambda *_: None)


def lose_a_record(engine: Engine, number: int, branch: int) -> bool:
    """Empty the bucket of one record in a generation, as if its changes were never applied; False without a record."""
    writer = _opened(engine, number).writer
    for type_number, name in sorted(writer.types.items()):
        found = read_records(writer.catalog, branch, type_number, name, range(BUCKETS), b"", 1).items
        if found:
            bucket = bucket_of(found[0].key_hash)
            writer.repair(shard_of(bucket, writer.row.shards), bucket, [])
            return True
    return False


def fail_take_reader(patch: Patch, number: int, error: Exception) -> None:
    """One generation cannot be opened for reading."""

    def take_reader(ordinary: Ordinary, generation: Generation) -> Any:
        if generation.row.number == number:
            raise error
        return ordinary(generation)

    wrap(patch, Step.TAKE_READER, take_reader)


def before_search(patch: Patch, reader: Any, then: Callable[[], object]) -> None:
    """Call `then` when the index behind a reader of the engine begins a search."""
    opened = reader._reader
    search = opened.search

    def searching(*given: Any, **more: Any) -> Any:
        then()
        return search(*given, **more)

    patch.setattr(opened, "search", searching)


def before_removal(patch: Patch, then: Callable[[Path], object]) -> None:
    """Call `then(path)` before the janitor removes the files of a generation."""

    def remove(ordinary: Ordinary, path: Path) -> None:
        then(path)
        ordinary(path)

    wrap(patch, Step.REMOVE_GENERATION, remove)


def _opened(engine: Engine, number: int) -> Generation:
    found = engine._lifecycle.generations.get(number)
    assert found is not None
    return found


# -- switches ----------------------------------------------------------------------------------------------------------


def expire_first_commit_budget(patch: Patch) -> None:
    """The first attempt of a switch has no time for its turn."""
    late = [True]

    def take_turn(ordinary: Ordinary, attempt: Any) -> Any:
        if late:
            late.clear()
            attempt._budget_s = 0.0
        return ordinary(attempt)

    wrap(patch, Step.TAKE_TURN, take_turn)


def one_attempt(patch: Patch) -> None:
    """No switch has time for a second attempt."""
    patch_limit(patch, Limit.ATTEMPT_BACKOFF_FIRST_S, 1e6)


def is_in_turn() -> bool:
    """Is this the JournalWriter's thread, on which the turn of a switch runs?"""
    return threading.current_thread().name == "shadowswitch-journal"


def stale_token(patch: Patch) -> None:
    """The commit of a switch has another token than its shadow."""

    def commit_switch(ordinary: Ordinary, commit: Any, number: int, token: int, *more: Any) -> Any:
        return ordinary(commit, number, token + 7, *more)

    wrap(patch, Step.COMMIT_SWITCH, commit_switch)


def on_set_live(patch: Patch, seen: Callable[[Generation | None, Generation], object]) -> None:
    """Call `seen(old, new)` before the pointer of readers moves."""

    def set_live(ordinary: Ordinary, index: Any, new: Generation, *given: Any) -> Any:
        seen(index.live, new)
        return ordinary(index, new, *given)

    wrap(patch, Step.SET_LIVE, set_live)


def fail_verification(patch: Patch, problem: str) -> None:
    """The verification behind a switch finds a problem."""
    replace(patch, Step.VERIFY, lambda *_: [problem])


def verify_through(patch: Patch, around: Callable[[Any], Any]) -> None:
    """The verification behind a switch reads through `around(reader)`."""

    def read(ordinary: Ordinary, context: Any, generation: Any, reader: Any, lsn: int) -> Any:
        return ordinary(context, generation, around(reader), lsn)

    wrap(patch, Step.VERIFY_READ, read)


# -- builds ------------------------------------------------------------------------------------------------------------


def fail_build_validation(patch: Patch, problem: str) -> None:
    """The validation at the end of a build finds a problem."""

    def validate(ordinary: Ordinary, *given: Any, **how: Any) -> Any:
        return msgspec.structs.replace(ordinary(*given, **how), errors=[problem])

    wrap(patch, Step.VALIDATE_SHADOW, validate)


def before_build_phase(patch: Patch, then: Callable[[str], object]) -> None:
    """Call `then(phase)` before a build stores its phase in the catalog."""

    def note(ordinary: Ordinary, builder: Any, phase: str) -> Any:
        then(phase)
        return ordinary(builder, phase)

    wrap(patch, Step.BUILD_NOTE_PHASE, note)


def before_worker_task(patch: Patch, engine: Engine, then: Callable[[int, Callable[[], bool]], object]) -> None:
    """Call `then(pid, noticed)` when a worker process has a task and is about to get its pace.

    `noticed()` is true when the engine has noticed the death of the process.
    """
    pool = engine._lifecycle.pool

    def tune(ordinary: Ordinary, worker: Any, *given: Any) -> Any:
        then(worker.process.pid, lambda: worker not in pool._busy.values())
        return ordinary(worker, *given)

    wrap(patch, Step.WORKER_TUNE, tune)


# -- actors, branches, locks -------------------------------------------------------------------------------------------


def fail_messages(patch: Patch, error_of: Callable[[type, type], BaseException | None]) -> None:
    """The handler of a message raises `error_of(type of the actor, type of the message)`, unless that is None."""

    def on_receive(ordinary: Ordinary, actor: Any, message: Any) -> None:
        error = error_of(type(actor), type(message))
        if error is None:
            ordinary(actor, message)
            return
        handlers, raised = actor._handlers, error

        def fail(_: Any) -> None:
            raise raised

        actor._handlers = {**handlers, type(message): fail}
        ordinary(actor, message)
        actor._handlers = handlers

    wrap(patch, Step.ACTOR_MESSAGE, on_receive)


def on_branch_message(patch: Patch, around: Callable[[int], AbstractContextManager[None]]) -> None:
    """A branch handles each message inside `around(its number)`."""

    def on_receive(ordinary: Ordinary, actor: Any, message: Any) -> None:
        with around(actor._row.number):
            ordinary(actor, message)

    wrap(patch, Step.BRANCH_MESSAGE, on_receive)


def before_branch_write(patch: Patch, then: Callable[[str], object]) -> None:
    """Call `then(name of the branch)` before a branch handles a write."""

    def write(ordinary: Ordinary, actor: Any, message: Any) -> None:
        then(actor._row.name)
        ordinary(actor, message)

    wrap(patch, Step.BRANCH_WRITE, write)


class _Late(Clock):
    """A clock that is ahead by some seconds."""

    def __init__(self, by_s: float) -> None:
        self._by_s = by_s

    def monotonic(self) -> float:
        return super().monotonic() + self._by_s


def hold_up_lock_store(patch: Patch, branch: int, by_s: float) -> None:
    """The next transaction that stores the locks of a branch begins `by_s` seconds later than it was requested."""
    late = [True]

    def store(ordinary: Ordinary, locks: Any, *given: Any, **how: Any) -> Any:
        if locks.row.number == branch and late:
            late.clear()
            patch.setattr(locks, "_clock", _Late(by_s))
        return ordinary(locks, *given, **how)

    wrap(patch, Step.STORE_LOCKS, store)


class HeldWrite:
    """Holds up the first write under a lock between its admission and its commit, until `let_go`."""

    def __init__(self, patch: Patch, engine: Engine) -> None:
        self._journal = engine._lifecycle.context.journal
        self._held: list[Any] = []

        def append(ordinary: Ordinary, writer: Any, message: Any) -> None:
            if message.fence is not None and not self._held:
                self._held.append(message)
            else:
                ordinary(writer, message)

        wrap(patch, Step.JOURNAL_APPEND, append)
        self._journal.ref.stop()  # a handler is looked up when its actor starts
        self._journal.restart_if_dead()

    @property
    def is_held(self) -> bool:
        """Has the write reached the JournalWriter?"""
        return bool(self._held)

    def let_go(self) -> None:
        """Let the JournalWriter commit the write."""
        self._journal.tell(self._held[0])


@contextmanager
def map_in_workers(engine: Engine, size_bytes: int) -> Iterator[None]:
    """Meanwhile new workers map so much of the catalog."""
    pool = engine._lifecycle.pool
    before = pool._config
    pool._config = msgspec.structs.replace(before, map_size_bytes=size_bytes)
    try:
        yield
    finally:
        pool._config = before


def count_decoded_shadows(patch: Patch, catalog: Catalog) -> list[str]:
    """Note the id of every row of a shadow that is decoded from now on."""
    decode, decoded = catalog.lists.shadow, list[str]()

    def noted(value: Any, txn: Any) -> Any:
        row = decode(value, txn)
        decoded.append(row.id)
        return row

    patch.setattr(catalog.lists, "shadow", noted)
    return decoded


def count_heads_read(patch: Patch, catalog: Catalog) -> list[int]:
    """Note the number of each branch whose head is read from now on."""
    head, looked = catalog.head, list[int]()

    def noted(branch: int) -> tuple[int, int]:
        looked.append(branch)
        return head(branch)

    patch.setattr(catalog, "head", noted)
    return looked


def resumed_at(engine: Engine) -> float:
    """When the engine last found that its process had stood still (monotonic); at first when it was opened."""
    return engine._lifecycle.context.attention.resumed_at
