"""Publishing, start and stop, supervision of an engine: part of `tests.support.inside`."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, TypeVar

from shadowswitch import Engine
from shadowswitch.actors.kit.reply import Reply
from shadowswitch.actors.kit.signals import Tick
from shadowswitch.actors.maintenance.janitor import Sweep
from shadowswitch.storage.generations import published_path as published_paths
from shadowswitch.storage.generations.generation import Generation

T = TypeVar("T")
SEARCH = "SEARCH_INDEX"
WAIT_S = 30.0


def published_path(engine: Engine, branch: str = "main", index_type: str = SEARCH) -> Path:
    """The path for readers outside of this process."""
    return published_paths.published_path(engine._lifecycle.publisher.folder, branch, index_type)


def publish(engine: Engine, of: Generation, strategy: str, branch: str = "main") -> bool:
    """Publish a generation; False when it is published already, or is not live."""
    return engine._lifecycle.publisher.publish(branch, of, strategy)


def publish_lock(engine: Engine) -> Any:
    """The lock that the engine holds while it brings a published path up to date."""
    return engine._lifecycle.publisher._one_at_a_time


def counter(engine: Engine, name: str) -> int:
    """A counter of the engine's metrics, also of an engine that is closed."""
    counted: int = engine._lifecycle.context.metrics.counters.get(name, 0)
    return counted


def is_closed(engine: Engine) -> bool:
    """Was the engine closed?"""
    return engine._state.closed


def mark_closed(engine: Engine) -> None:
    """Every further call raises EngineClosed; no actor is stopped."""
    engine._state.close()


def is_closing(engine: Engine) -> bool:
    """Does the engine refuse new work because it closes?"""
    return engine._lifecycle.context.changes.closing


def sweep(engine: Engine, timeout_s: float = WAIT_S) -> None:
    """Let the janitor do one round, and wait for its end."""
    reply: Reply[None] = Reply()
    engine._lifecycle.janitor.tell(Sweep(reply))
    reply.result(timeout_s)


def tick_janitor(engine: Engine) -> None:
    """Send the janitor a tick of its timer, and do not wait."""
    engine._lifecycle.janitor.tell(Tick())


def stop_janitor(engine: Engine) -> None:
    """Stop the actor of the janitor, as a host does that stops all actors."""
    engine._lifecycle.janitor.ref.stop()


def crashes(engine: Engine) -> int:
    """How many failures of actors the supervisor has counted."""
    return len(engine._lifecycle.supervisor.crashes)


def crash_notes(engine: Engine) -> list[dict[str, Any]]:
    """The notes of the supervisor on each failure of an actor; the list grows."""
    return engine._lifecycle.supervisor.crashes


def are_actors_alive(engine: Engine) -> bool:
    """Do the JournalWriter, the janitor and all followers live?"""
    lifecycle = engine._lifecycle
    addresses = [*lifecycle.followers.addresses, lifecycle.janitor, lifecycle.journal]
    return all(address.ref.is_alive() for address in addresses)


def look_at_plans(engine: Engine, deadline_s: float = WAIT_S) -> None:
    """Let the Schedule look at its plans, and wait until it has."""
    schedule = engine._lifecycle.schedule
    schedule.tell(Tick())
    pause = threading.Event()
    for _ in range(int(deadline_s / 0.05)):
        if schedule.ref.actor_inbox.empty():
            break
        pause.wait(0.05)
    pause.wait(0.2)
