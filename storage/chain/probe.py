"""Does a store keep what the chain needs: of several that make one object at a time, does one alone get it?

Some stores ignore the condition of a request, or look and write in two steps. Such a store loses acknowledged writes,
so it is refused before anything is stored there. Each round, contenders on threads of their own make an object of the
same name; the one with the answer that it did has to be the one whose content is read, now and behind all rounds.
"""

from __future__ import annotations

import secrets
import threading
from concurrent.futures import ThreadPoolExecutor

from shadowswitch.model.errors import StoreUnsafe, Timeout
from shadowswitch.storage.objects.store import ObjectStore

ROUNDS, CONTENDERS = 20, 8
FOLDER = "probe"
ANSWER_S = 300.0


def probe(store: ObjectStore, rounds: int = ROUNDS, contenders: int = CONTENDERS) -> None:
    """Raise StoreUnsafe unless the store passes. It removes what it has made. Raises StoreUnavailable, Timeout."""
    name = f"{FOLDER}/{secrets.token_hex(8)}"
    paths = [f"{name}-{number}" for number in range(rounds)]
    won: dict[str, bytes] = {}
    try:
        with ThreadPoolExecutor(contenders, thread_name_prefix="shadowswitch-probe") as pool:
            for path in paths:
                won[path] = _contend(store, pool, path, contenders)
        for path, content in won.items():
            if store.get(path) != content:
                raise _unsafe(store, "an object that was made once was changed")
            if store.create(path, b"again"):
                raise _unsafe(store, "an object that was there was made again")
    finally:
        for path in paths:
            store.delete(path)


def _contend(store: ObjectStore, pool: ThreadPoolExecutor, path: str, contenders: int) -> bytes:
    begin = threading.Barrier(contenders)
    contents = [secrets.token_bytes(16) for _ in range(contenders)]

    def make(content: bytes) -> bool:
        begin.wait(ANSWER_S)
        return store.create(path, content)

    try:
        made = [future.result(ANSWER_S) for future in [pool.submit(make, content) for content in contents]]
    except TimeoutError as error:
        raise Timeout(f"{store.url} has not answered in {ANSWER_S:.0f} s", operation="probe") from error
    winners = [content for content, was in zip(contents, made, strict=True) if was]
    if len(winners) != 1:
        raise _unsafe(
            store, f"of {contenders} that made one object at a time, {len(winners)} got the answer that they did"
        )
    if store.get(path) != winners[0]:
        raise _unsafe(store, "the content of an object is not that of the one that made it")
    return winners[0]


def _unsafe(store: ObjectStore, why: str) -> StoreUnsafe:
    return StoreUnsafe(
        f"{store.url} cannot hold a chain: {why}",
        operation="probe",
        object=store.url,
        hint="use one with conditional writes (S3, Google Cloud Storage, Azure, a folder); backups need none",
    )
