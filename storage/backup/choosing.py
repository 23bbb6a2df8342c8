"""Which backup a restore begins with."""

from __future__ import annotations

from datetime import datetime

from shadowswitch.model.errors import InvalidConfig
from shadowswitch.storage.backup import layout
from shadowswitch.storage.backup.layout import Manifest
from shadowswitch.storage.objects.store import ObjectStore


def all_of(store: ObjectStore) -> list[Manifest]:
    """The backups of a store that are whole, the oldest first. Raises InvalidConfig if there is none."""
    found = layout.manifests(store, left_out=lambda error: None)
    if not found:
        raise InvalidConfig(
            f"{store.url} has no backup",
            operation="restore",
            object=store.url,
            hint="check the URL; backup create makes one",
        )
    return found


def chosen(store: ObjectStore, id: str) -> Manifest:
    """The backup of that id. Raises InvalidConfig if there is none."""
    for one in all_of(store):
        if one.id == id:
            return one
    raise InvalidConfig(f"{store.url} has no backup {id!r:.80}", operation="restore", hint="backup list shows them")


def as_of(store: ObjectStore, at: datetime) -> Manifest:
    """The newest backup that is not later than a moment. Raises InvalidConfig if there is none."""
    if at.tzinfo is None:
        raise InvalidConfig(f"{at} has no time zone", operation="restore", hint="add one, such as +00:00 or Z")
    found = all_of(store)
    moment = at.timestamp()
    early = [one for one in found if one.created_at <= moment]
    if not early:
        first = datetime.fromtimestamp(found[0].created_at, at.tzinfo).isoformat(timespec="seconds")
        raise InvalidConfig(
            f"{store.url} has no backup as old as {at.isoformat(timespec='seconds')}; the oldest is of {first}",
            operation="restore",
            object=store.url,
            hint="give a later moment, or leave it out",
        )
    return early[-1]


def around(store: ObjectStore, lsn: int) -> tuple[Manifest, Manifest | None]:
    """The newest backup up to an LSN, and the one after it, whose journal leads there; None if the first is at the LSN.

    Both of one data directory: the newest whose backups reach there. Raises InvalidConfig.
    """
    found = all_of(store)
    reach: list[str] = []
    for uuid in dict.fromkeys(one.uuid for one in reversed(found)):
        mine = [one for one in found if one.uuid == uuid]
        before = [one for one in mine if one.last_lsn <= lsn]
        after = [one for one in mine if one.last_lsn >= lsn]
        if before and after:
            return before[-1], None if before[-1].last_lsn == lsn else after[0]
        reach.append(f"from {mine[0].last_lsn} to {mine[-1].last_lsn}")
    raise InvalidConfig(
        f"no backups in {store.url} reach to LSN {lsn}: they reach {', '.join(reach)}",
        operation="restore",
        object=store.url,
        hint="give an LSN between these, or leave it out",
    )
