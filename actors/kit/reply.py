"""Reply: the answer to one message, given once.

Its methods are a subset of those of `concurrent.futures.Future`, with the same meaning. A Reply has no callbacks and no
condition, so an answer costs a third of the CPU. A write crosses three threads, where that is measurable.
"""

from __future__ import annotations

from concurrent.futures import CancelledError, InvalidStateError
from threading import TIMEOUT_MAX, Lock
from typing import Generic, TypeVar

T = TypeVar("T")

_PENDING, _RUNNING, _CANCELLED, _FINISHED = range(4)


class Reply(Generic[T]):
    """Any thread. Exactly one of `cancel` and `set_running_or_notify_cancel` succeeds: the first."""

    __slots__ = ("_answered", "_error", "_moves", "_state", "_value")

    _value: T

    def __init__(self) -> None:
        self._state = _PENDING
        self._error: BaseException | None = None
        self._moves = Lock()
        self._answered = Lock()
        self._answered.acquire()

    def set_running_or_notify_cancel(self) -> bool:
        """Claim the reply before the work begins. False when the sender has cancelled: the receiver does nothing."""
        with self._moves:
            if self._state == _PENDING:
                self._state = _RUNNING
                return True
            if self._state == _CANCELLED:
                return False
        raise InvalidStateError("this reply was claimed or given before")

    def cancel(self, error: BaseException | None = None) -> bool:
        """Stop waiting, or end the wait of another thread with an error.

        False when the reply was claimed or given before: the answer is near, or there.
        """
        with self._moves:
            if self._state != _PENDING:
                return self._state == _CANCELLED
            self._error = error or CancelledError()  # before the state, which other threads read without the lock
            self._state = _CANCELLED
        self._answered.release()
        return True

    def set_result(self, value: T) -> None:
        """Answer. Raises InvalidStateError when the reply was given or cancelled before."""
        with self._moves:
            if self._state > _RUNNING:
                raise InvalidStateError("this reply was given or cancelled before")
            self._value = value
            self._state = _FINISHED
        self._answered.release()

    def set_exception(self, error: BaseException) -> None:
        """Answer with an error. Raises InvalidStateError when the reply was given or cancelled before."""
        with self._moves:
            if self._state > _RUNNING:
                raise InvalidStateError("this reply was given or cancelled before")
            self._error = error
            self._state = _FINISHED
        self._answered.release()

    def done(self) -> bool:
        """Was the reply given or cancelled?"""
        return self._state > _RUNNING

    def cancelled(self) -> bool:
        """Has the sender stopped waiting before the reply was claimed?"""
        return self._state == _CANCELLED

    def wait(self, timeout_s: float) -> bool:
        """Wait until the reply is given or cancelled; False at the timeout."""
        if self._state > _RUNNING:
            return True
        if not self._answered.acquire(timeout=min(max(0.0, timeout_s), TIMEOUT_MAX)):
            return False
        self._answered.release()  # for the next thread that waits
        return True

    def result(self, timeout_s: float = TIMEOUT_MAX) -> T:
        """Wait for the answer and return it. Raises the error that was given, or TimeoutError."""
        if not self.wait(timeout_s):
            raise TimeoutError
        if self._error is not None:
            raise self._error
        return self._value
