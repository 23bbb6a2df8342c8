"""A write transaction of LMDB, which ends at once, whatever other threads read.

`Transaction.abort` of py-lmdb 3 waits for a moment at which no thread of the process is in a call of the environment.
That moment need not come: beside two threads that read in a loop one abort took from seconds to minutes, and no other
writer begins meanwhile. The wait is meant for threads that share a transaction. No two threads share one here, and a
transaction whose last reference goes is aborted without it.
"""

from __future__ import annotations

import traceback
import weakref
from collections.abc import Callable
from typing import TypeVar

import lmdb

T = TypeVar("T")


def write_transaction(env: lmdb.Environment, work: Callable[[lmdb.Transaction[bytes]], T]) -> T:
    """Begin, do `work`, commit. When `work` raises nothing is stored, and the frames of its error lose their variables.

    `work` keeps the transaction, and its cursors, nowhere but in variables of its own. The thread of the writer.
    Raises what `work` raises, and as LMDB.
    """
    held = [env.begin(write=True)]
    try:
        result = work(held[0])
        held[0].commit()
        return result
    except BaseException as error:
        transaction = weakref.ref(held.pop())
        _forget_variables(error)
        left = transaction()
        if left is not None:  # another reference is somewhere: wait, rather than keep the lock of writers
            left.abort()
        raise


def _forget_variables(error: BaseException | None) -> None:
    """Of frames that have ended, in the traceback of an error and of those before it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
