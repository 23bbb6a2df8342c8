"""The environment of a `kv` shard: its databases, its keys, its references, and LMDB's errors as errors of the library.

A shard is the directory that holds `kv/data.mdb` and `kv/lock.mdb`, with two databases. A backend that derives more
from its rows has two others (`derived`):

    rows   type \\0 id                      ->  LSN (8 bytes, big-endian), MessagePack of fields
           (first 460 bytes) \\xff (hash)   ->  LSN, MessagePack of [type, id, fields]: a key of more than 500 bytes
    meta   b"state"                        ->  MessagePack of Meta

UTF-8 holds no \\xff, so a shortened key is never the key of another record.

The map of a shard grows by itself, see `growth`: every transaction goes through `Environment.map`.

A process must not open one LMDB file twice: LMDB's locks belong to the process. `open_environment` therefore returns
references to one environment for each data file. Other processes open their own.
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any

import lmdb
import msgspec

from shadowswitch.model.digest import Digest
from shadowswitch.model.errors import CorruptData, EngineClosed, ShadowSwitchError, StorageFull
from shadowswitch.storage.backends.kv.growth import GrowingMap
from shadowswitch.storage.backends.protocol import ShardState
from shadowswitch.storage.cut_file import refuse_cut
from shadowswitch.storage.data_directory import refuse_another
from shadowswitch.storage.disk import identity, sync_directory
from shadowswitch.storage.shortages import full, no_room, shortage

FOLDER, DATA = "kv", "data.mdb"
DERIVED = (b"entries", b"owned")
"""The databases of a shard that derives entries from its rows."""
FORMAT = 1
KEY_BYTES_MAX = 500
"""LMDB allows 511."""
HEAD_BYTES = 460
READERS_MAX = 512
"""Read transactions at one moment, over all processes."""

_STATE = b"state"
_CUT_SHORT = os.strerror(errno.EIO)
"""What LMDB says of a write that was cut short for lack of room, too."""


class Meta(msgspec.Struct, frozen=True, array_like=True):
    """The one value of `meta`."""

    format: int
    options: str
    applied_lsn: int
    cursor: bytes
    loaded: bool
    digest: bytes


class Environment:
    """One environment of this process, shared by reference. The count is guarded by `_guard`.

    It closes while it is not used (see `growth`), so `env`, `rows` and `meta` are those of a transaction of `map`.
    """

    def __init__(self, path: Path, map_size_mib: int, create: bool, derives: bool = False) -> None:
        """`derives`: a new shard has the databases of `DERIVED`; one that is there has them, or not."""
        self.path = path
        self.references = 0
        self._open(map_size_mib << 20, create, derives)
        try:
            self._identity = identity(path / FOLDER / DATA)
            self.map = GrowingMap(self.env, path, self._reopen)
        except BaseException:
            self.env.close()
            raise

    def _open(self, map_size_bytes: int, create: bool, derives: bool = False) -> None:
        self.env = lmdb.open(
            os.fspath(self.path / FOLDER),
            map_size=map_size_bytes,
            mode=0o600,
            create=create,
            sync=False,
            max_dbs=2 + len(DERIVED),
            max_readers=READERS_MAX,
            lib_version=0,
        )
        try:
            if not create:
                self._fit_file()
            self.rows = self.env.open_db(b"rows", create=create)
            self.meta = self.env.open_db(b"meta", create=create)
            self.derived = self._open_derived(derives)
        except BaseException:
            self.env.close()
            raise

    def _open_derived(self, create: bool) -> tuple[Any, ...]:
        """The databases of `DERIVED`; none in a shard without them."""
        try:
            return tuple(self.env.open_db(name, create=create) for name in DERIVED)
        except lmdb.NotFoundError:
            return ()

    def _reopen(self, map_size_bytes: int) -> lmdb.Environment:
        """Raises DirectoryLost for another file than the one that was opened first; CorruptData, and as LMDB."""
        data = self.path / FOLDER / DATA
        refuse_another(data, self._identity, "open shard")
        refuse_cut(data)
        self._open(map_size_bytes, create=False)
        return self.env

    def is_lost(self) -> bool:
        """Is it closed, and another file at its path, or none? A new file may have got the number of the old one."""
        try:
            return not self.map.is_open and identity(self.path / FOLDER / DATA) != self._identity
        except OSError:
            return True

    def _fit_file(self) -> None:
        """Make the file as long as its header says. The gap reads as zeros, which LMDB refuses with an error.

        Without this, a file that a power cut left too short would end the whole process with SIGBUS.
        """
        data = self.path / FOLDER / DATA
        size_bytes = (self.env.info()["last_pgno"] + 1) * self.env.stat()["psize"]
        if data.stat().st_size < size_bytes:
            os.truncate(data, size_bytes)

    def read_meta(self, transaction: lmdb.Transaction) -> Meta:
        """The state as of a transaction; raises `CorruptData`."""
        data = transaction.get(_STATE, db=self.meta)
        try:
            if data is not None:
                return msgspec.msgpack.decode(data, type=Meta)
        except msgspec.DecodeError:
            pass
        raise CorruptData("the state of the shard is damaged", object=str(self.path), hint="build the index again")

    def write_meta(self, transaction: lmdb.Transaction, meta: Meta) -> None:
        """Store the state."""
        transaction.put(_STATE, msgspec.msgpack.encode(meta), db=self.meta)


_guard = threading.Lock()
_open: dict[tuple[int, int, int], Environment] = {}


def open_environment(path: Path, options: Mapping[str, Any]) -> Environment:
    """A reference to the environment of an existing shard, for `release` at the end. Any thread.

    Raises `CorruptData` when there is none, or when it is of another format or other options.
    """
    with translated("open shard", path), _guard:
        data = path / FOLDER / DATA
        status = data.stat()
        opened = (os.getpid(), status.st_dev, status.st_ino)
        environment = _open.get(opened)
        if environment is None or environment.is_lost():
            refuse_cut(data)
            environment = Environment(path, options["map_size_mib"], create=False)
            try:
                environment.env.reader_check()
                _verify(environment, options)
            except BaseException:
                environment.map.close()
                raise
            _open[opened] = environment
        else:
            _verify(environment, options)
        environment.references += 1
        return environment


def share(environment: Environment) -> Environment:
    """One more reference to an open environment, for `release` at the end; also when its path leads elsewhere now."""
    with _guard:
        environment.references += 1
    return environment


def release(environment: Environment) -> None:
    """Give back a reference; the last one closes the environment."""
    with _guard:
        environment.references -= 1
        if environment.references == 0:
            for opened in [key for key, value in _open.items() if value is environment]:
                del _open[opened]
            environment.map.close()


def _verify(environment: Environment, options: Mapping[str, Any]) -> None:
    with environment.map.transaction() as transaction:
        meta = environment.read_meta(transaction)
    if meta.format != FORMAT or meta.options != options_text(options):
        raise CorruptData(
            "the shard was built with other options or another format",
            object=str(environment.path),
            hint="build the index again",
        )


def create(path: Path, options: Mapping[str, Any], derives: bool = False) -> None:
    """An empty, durable shard in `path`; removes its content first. `derives`: with the databases of `DERIVED`."""
    with translated("create shard", path):
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(mode=0o700)
        (path / FOLDER).mkdir(mode=0o700)
        environment = Environment(path, options["map_size_mib"], True, derives)
        try:
            empty = Meta(FORMAT, options_text(options), 0, b"", False, Digest().encode())
            environment.map.write(lambda txn: environment.write_meta(txn, empty))
            with environment.map.used():
                environment.env.sync(True)
        finally:
            environment.map.close()
        for folder in (path / FOLDER, path, path.parent):
            sync_directory(folder)


def options_text(options: Mapping[str, Any]) -> str:
    """The options that shape the stored rows, in their canonical form, for comparison."""
    shaping = {name: value for name, value in options.items() if name != "map_size_mib"}
    return msgspec.json.encode(shaping, order="sorted").decode()


def state_of(meta: Meta) -> ShardState:
    """The state in the form of the protocol."""
    return ShardState(meta.applied_lsn, meta.cursor, meta.loaded, Digest.decode(meta.digest))


def full_key(resource_type: str, id: str) -> bytes:
    """The key of a record, of any length."""
    return f"{resource_type}\0{id}".encode()


def stored_key(full: bytes) -> bytes:
    """The key under which LMDB holds a record."""
    if len(full) <= KEY_BYTES_MAX:
        return full
    return full[:HEAD_BYTES] + b"\xff" + blake2b(full, digest_size=32).digest()


def is_shortened(key: bytes) -> bool:
    """True if the value holds the full key."""
    return key[HEAD_BYTES : HEAD_BYTES + 1] == b"\xff"


def encode_row(key: bytes, lsn: int, resource_type: str, id: str, fields: dict[str, Any]) -> bytes:
    """The value of a row."""
    content: Any = [resource_type, id, fields] if is_shortened(key) else fields
    return lsn.to_bytes(8, "big") + msgspec.msgpack.encode(content)


def decode_row(key: bytes, value: bytes) -> tuple[str, str, int, dict[str, Any]]:
    """(resource_type, id, lsn, fields) of a row; raises `CorruptData`."""
    try:
        content = msgspec.msgpack.decode(value[8:])
        if is_shortened(key):
            resource_type, id, fields = content
        else:
            (resource_type, id), fields = key.decode().split("\0", 1), content
        if not isinstance(fields, dict):
            raise ValueError("fields is not an object")
        return resource_type, id, int.from_bytes(value[:8], "big"), fields
    except (ValueError, TypeError) as error:
        raise CorruptData(f"the row {key[:80]!r} is damaged", hint="build the index again", cause=error) from error


def version_of(key: bytes, value: bytes) -> tuple[str, str, int]:
    """(resource_type, id, lsn) of a row; decodes the fields only if they hold the key."""
    if is_shortened(key):
        return decode_row(key, value)[:3]
    return *split_key(key), int.from_bytes(value[:8], "big")


def split_key(full: bytes) -> tuple[str, str]:
    """(resource_type, id) of a full key; raises `CorruptData`."""
    try:
        resource_type, id = full.decode().split("\0", 1)
    except ValueError as error:
        raise CorruptData(f"the row {full[:80]!r} is damaged", hint="build the index again", cause=error) from error
    return resource_type, id


def map_full(path: Path, operation: str, why: str) -> StorageFull:
    """The error of a change that does not fit into the map, which cannot grow now, and why."""
    return StorageFull(
        f"the map of the index is full and cannot grow now: {why}",
        operation=operation,
        object=str(path),
        hint="end the scans and copies of the index in this process; earlier changes are intact, this one is retried",
    )


@contextmanager
def translated(operation: str, path: Path) -> Iterator[None]:
    """Turn the errors of LMDB and of the operating system into errors of this library."""
    try:
        yield
    except (lmdb.Error, OSError, MemoryError) as error:
        if isinstance(error, ShadowSwitchError):
            raise
        raise _translate(error, operation, path) from error


def _translate(error: Exception, operation: str, path: Path) -> ShadowSwitchError:
    at: dict[str, Any] = {"operation": operation, "object": str(path)}
    text = str(error)
    if isinstance(error, lmdb.MapFullError):
        return map_full(path, operation, "it is being made")
    lack = shortage(error, operation, str(path))
    if lack is not None:
        return lack
    cause = no_room(path / FOLDER, 0) if _CUT_SHORT in text else None
    if cause is not None:
        return full(cause, operation, str(path))
    if "closed" in text or "deleted" in text:
        return EngineClosed("the shard was closed", hint="open it again", **at)
    return CorruptData(f"the shard cannot be used: {text}", hint="check the disk, build the index again", **at)
