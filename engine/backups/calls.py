"""A backup of the data directory of an open engine, made by a worker process."""

from __future__ import annotations

import os
import threading

from shadowswitch.actors.build.worker_answers import WorkerAnswers
from shadowswitch.actors.context import EngineContext
from shadowswitch.engine.arguments import check_seconds
from shadowswitch.engine.open_state import OpenState
from shadowswitch.model.errors import BuildCancelled, EngineClosed, Timeout
from shadowswitch.model.operating.backups import BackupInfo
from shadowswitch.storage.backup.task import BackedUp, BackUp
from shadowswitch.storage.objects.opening import open_store


class BackupCalls:
    """Backups of an open data directory. Any thread; a call blocks while a worker process makes one."""

    def __init__(self, context: EngineContext, state: OpenState, answers: WorkerAnswers) -> None:
        self._context = context
        self._state = state
        self._answers = answers
        self._turn = threading.Lock()

    def backup(self, url: str, *, scratch: str | os.PathLike[str] | None = None, timeout_s: float = 3600) -> BackupInfo:
        """Back the data directory up, as of a moment in the call; everybody goes on working.

        `url` is `s3://bucket/path`, `gs://`, `az://`, `file:///path`, or the path of a folder. What its newest backup
        has already is not stored again. `scratch` is a folder with room for a copy of the catalog while the call runs;
        default: the one for temporary files. One backup is made at a time; another call waits for it.

        Raises InvalidConfig for a URL with backups of another directory, or without the extra `replication`;
        StoreUnavailable, StorageFull, Timeout: then there is no new backup.
        """
        self._state.check()
        clock = self._context.clock
        deadline = clock.monotonic() + check_seconds("timeout_s", timeout_s)
        store = open_store(url)
        task = BackUp(url if "://" in url else store.url, None if scratch is None else os.path.abspath(scratch))
        late = Timeout(
            f"the backup was not made in {timeout_s:g} s",
            operation="backup",
            object=store.url,
            hint="give it more time (timeout_s); the next one goes on with nothing of it",
        )
        if not self._turn.acquire(timeout=min(max(0.0, timeout_s), threading.TIMEOUT_MAX)):
            raise late
        try:
            return self._answers.ask(task, BackedUp, deadline, patience_s=timeout_s).backup
        except BuildCancelled as error:
            raise EngineClosed("the engine is closed", operation="backup", hint="open it again") from error
        except Timeout as error:
            raise late from error
        finally:
            self._turn.release()
