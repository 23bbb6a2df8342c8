"""What a sender waits for: the answer to one message, given once, by whoever handled it.

The calls are those of `concurrent.futures.Future` that actors need, and mean the same; without callbacks and a
condition of its own an answer costs a third of the CPU, which a write that crosses three threads feels.
"""

from __future__ import annotations

from concurrent.futures import CancelledError, InvalidStateError
from threading import TIMEOUT_MAX, Lock
from typing import Generic, TypeVar

T = TypeVar("T")

_PENDING, _RUNNING, _CANCELLED, _FINISHED = range(4)


class Reply(Generic[T]):
    """Any thread. Of `cancel` and `set_running_or_notify_cancel` exactly one succeeds, whichever comes first."""

    __slots__ = ("_answered", "_error", "_moves", "_state", "_value")

    _value: T

    def __init__(self) -> None:
        self._state = _PENDING
        self._error: BaseException | None = None
        self._moves = Lock()
        self._answered = Lock()
        self._answered.acquire()

    def set_running_or_notify_cancel(self) -> bool:
        """Claim it, before anything is done for it. False when the sender does not wait any more: do nothing."""
        with self._moves:
            if self._state == _PENDING:
                self._state = _RUNNING
                return True
            if self._state == _CANCELLED:
                return False
        raise InvalidStateError("this reply was claimed or given before")

    def cancel(self, error: BaseException | None = None) -> bool:
        """Stop waiting, or end the wait of others with an error. False when it was claimed or given already: an answer
        is near, or there."""
        with self._moves:
            if self._state != _PENDING:
                return self._state == _CANCELLED
            self._error = error or CancelledError()  # before the state, at which others look without the lock
            self._state = _CANCELLED
        self._answered.release()
        return True

    def set_result(self, value: T) -> None:
        """Answer. Raises InvalidStateError when it was answered or cancelled before."""
        with self._moves:
            if self._state > _RUNNING:
                raise InvalidStateError("this reply was given or cancelled before")
            self._value = value
            self._state = _FINISHED
        self._answered.release()

    def set_exception(self, error: BaseException) -> None:
        """Answer with an error. Raises InvalidStateError when it was answered or cancelled before."""
        with self._moves:
            if self._state > _RUNNING:
                raise InvalidStateError("this reply was given or cancelled before")
            self._error = error
            self._state = _FINISHED
        self._answered.release()

    def done(self) -> bool:
        """Was it answered or cancelled?"""
        return self._state > _RUNNING

    def wait(self, timeout_s: float) -> bool:
        """Wait until it is answered or cancelled; False if it was not in time."""
        if self._state > _RUNNING:
            return True
        if not self._answered.acquire(timeout=min(max(0.0, timeout_s), TIMEOUT_MAX)):
            return False
        self._answered.release()  # for the next who waits
        return True

    def result(self, timeout_s: float = TIMEOUT_MAX) -> T:
        """Wait for the answer and return it, or raise the error that it is. Raises TimeoutError."""
        if not self.wait(timeout_s):
            raise TimeoutError
        if self._error is not None:
            raise self._error
        return self._value
