"""What every actor of the engine is made of.

Pykka's rules, and what is made of them here (Pykka 4.5): an exception in an `ask` leaves the actor alive, in a `tell`
kills it; SystemExit or KeyboardInterrupt inside an actor leaves the caller without an answer and stops *every* actor
of the process, the host's too. So a handler never lets anything out: `on_receive` catches BaseException, gives it
to whoever waits for the reply, logs it with its cause, lets the actor mend itself (`recover`), and tells the
supervisor.

Only actors of this engine are ever stopped, by reference.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import Any

import pykka

from shadowswitch.actors.kit.reply import Reply
from shadowswitch.model.errors import EngineClosed, InternalFailure, ShadowSwitchError, Timeout

logger = logging.getLogger("shadowswitch")

Crash = Callable[[str, BaseException], None]


class EngineActor(pykka.ThreadingActor):
    """Base of all actors: one handler for each message type, no exception escapes."""

    use_daemon_thread = True

    @staticmethod
    def _create_actor_inbox() -> Any:
        """Pykka's hook; its own choice, `queue.Queue`, takes twice the CPU for each message."""
        return queue.SimpleQueue()

    def __init__(self, name: str, crashed: Crash) -> None:
        super().__init__()
        self.name = name
        self._crashed = crashed
        self._handlers: dict[type, Callable[[Any], None]] = {}

    def handles(self, message_type: type, handler: Callable[[Any], None]) -> None:
        """Register the handler of a message type."""
        self._handlers[message_type] = handler

    def on_start(self) -> None:
        """On the actor's thread, before the first message. Names the thread; cannot fail."""
        threading.current_thread().name = self.name

    def on_receive(self, message: Any) -> None:
        """Handle one message; whatever goes wrong is answered, logged and reported, never raised."""
        try:
            self._handlers[type(message)](message)
        except BaseException as error:
            self._failed(message, error)

    def _failed(self, message: Any, error: BaseException) -> None:
        expected = isinstance(error, ShadowSwitchError)
        answered = fail_reply(message, error if expected else wrap(error, self.name))
        if expected and answered:
            return
        if expected:
            logger.warning("%s could not do %s: %s", self.name, type(message).__name__, error)
        else:
            logger.error("%s failed on %s", self.name, type(message).__name__, exc_info=error)
        try:
            self.recover(message, error)
        except BaseException as second:
            logger.critical("%s could not mend itself", self.name, exc_info=second)
        if not expected:
            self._crashed(self.name, error)

    def recover(self, message: Any, error: BaseException) -> None:
        """Bring the actor's own state back to what is durable, after a handler failed. On the actor's thread."""

    def on_stop(self) -> None:
        """Answer whoever still waits; on the actor's thread."""
        while not self.actor_inbox.empty():
            fail_reply(
                self.actor_inbox.get().message, EngineClosed(f"{self.name} has stopped", hint="open the engine again")
            )


def wrap(error: BaseException, where: str) -> InternalFailure:
    """An unexpected error, as one that a caller may catch."""
    return InternalFailure(
        f"{where} failed: {error!r}", cause=error, hint="see the log; this is a defect, please report it"
    )


def fail_reply(message: Any, error: BaseException) -> bool:
    """Give an error to whoever waits for a message's reply; False when nobody waits (any more)."""
    reply = getattr(message, "reply", None)
    if not isinstance(reply, Reply) or reply.done():
        return False
    try:
        reply.set_exception(error)
    except Exception:
        return False
    return True


class Address:
    """Where an actor can be reached; stays the same when the supervisor replaces the actor behind it."""

    def __init__(self, start: Callable[[], pykka.ActorRef[Any]]) -> None:
        self._start = start
        self.ref = start()

    def tell(self, message: Any) -> None:
        """Send. A message to a dead actor, or to one that dies in this moment, is answered with InternalFailure."""
        ref = self.ref
        try:
            ref.tell(message)
            if ref.is_alive():
                return  # it handles the message, or its end finds it in the mailbox
        except pykka.ActorDeadError:
            pass
        reply = getattr(message, "reply", None)
        if isinstance(reply, Reply):  # one that was claimed is answered by the actor's end
            reply.cancel(InternalFailure("the engine is mending itself", hint="try again in a second, or see the log"))

    def restart_if_dead(self) -> bool:
        """Start a new actor if the present one is gone; True if so."""
        if self.ref.is_alive():
            return False
        self.ref = self._start()
        return True

    def stop(self, timeout_s: float) -> bool:
        """Stop behind what is queued; False if it did not stop in time."""
        try:
            return bool(self.ref.stop(block=True, timeout=timeout_s))
        except pykka.Timeout:
            return False


def result_of(reply: Reply[Any], timeout_s: float, what: str) -> Any:
    """Wait for a reply. On timeout the message is cancelled if it was not begun; the error says which.

    Raises what the receiver raised, or Timeout.
    """
    try:
        return reply.result(timeout_s)
    except TimeoutError as error:
        if isinstance(error, ShadowSwitchError):
            raise
        if reply.cancel():
            raise Timeout(
                f"{what} was not begun within {timeout_s:g} s; nothing was done", operation=what, hint="try again"
            ) from None
    try:
        return reply.result(COMMIT_GRACE_S)
    except TimeoutError as error:
        if isinstance(error, ShadowSwitchError):
            raise
        raise Timeout(
            f"{what} was begun but did not end in time; whether it took effect is not known",
            operation=what,
            hint="the disk may be stalled; read back what you wrote before you try again",
        ) from None


COMMIT_GRACE_S = 30.0
"""How long to wait for a transaction that has begun: its outcome is near, and giving up would leave it unknown."""
