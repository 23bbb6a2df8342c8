"""The daemon of a server: the mirrors, indexes, inbox and webhooks that the folders and the settings file describe.

The daemon watches the settings file. After a change it starts the new parts, stops the parts without a description, and
rebuilds the indexes with another description. A settings file with an error, or one that vanishes, changes nothing. The
log, an event and the status carry the error until the file is correct.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from shadowswitch.engine.engine import Engine
from shadowswitch.model.config import Config
from shadowswitch.model.errors import EngineClosed, InvalidConfig, ShadowSwitchError
from shadowswitch.service.daemon.delivery import Endpoint
from shadowswitch.service.daemon.inbox import Inbox
from shadowswitch.service.daemon.index_reconciler import IndexReconciler, IndexStatus
from shadowswitch.service.daemon.mirror import Mirror, MirrorStatus
from shadowswitch.service.daemon.part import AUTHOR, CHANGED, Part
from shadowswitch.service.daemon.settings import (
    FILE_NAME,
    InboxSettings,
    IndexSettings,
    MirrorSettings,
    Settings,
    WebhookSettings,
    check_settings,
    load_followed,
    load_settings,
)
from shadowswitch.service.daemon.text_files import RESOURCE_TYPE, stamp_of
from shadowswitch.service.daemon.webhooks import Webhook, WebhookStatus
from shadowswitch.storage.shortages import passing

logger = logging.getLogger("shadowswitch")

RETRY_S = 5.0
"""A part that could not be started is tried again this often."""
Description = MirrorSettings | InboxSettings | WebhookSettings


class InboxStatus(msgspec.Struct, frozen=True):
    """The number of event files taken and rejected since the start."""

    folder: str
    taken: int
    rejected: int


class UpkeepStatus(msgspec.Struct, frozen=True):
    """The status of the daemon. `error` is the error of the present settings file, which therefore has no effect."""

    settings_file: str
    error: str | None
    mirrors: list[MirrorStatus]
    indexes: list[IndexStatus]
    webhooks: list[WebhookStatus]
    inbox: InboxStatus | None
    restart_needed: bool
    """The settings have another [incoming] or [engine] than the open engine."""
    not_started: dict[str, str]
    """The parts that could not be started, each with its error. The daemon tries again."""

    def of_branches(self, reaches: Callable[[str], bool]) -> UpkeepStatus:
        """The part of the status that a token with access to some branches may see."""
        mirrors = [one for one in self.mirrors if reaches(one.branch)]
        indexes = [one for one in self.indexes if reaches(one.branch)]
        return msgspec.structs.replace(NOTHING, mirrors=mirrors, indexes=indexes)


NOTHING = UpkeepStatus("", None, [], [], [], None, False, {})
"""The status without a daemon, and before its start."""
Ready = Callable[[Engine, str], Callable[[], UpkeepStatus]]
"""Starts the daemon of an engine that serves at a URL. Returns the function that reads the status."""


def settings_path(folders: Sequence[Path], settings_file: Path | None, data: Path) -> Path:
    """The settings file: the given one, else the one in the first folder, else the one in the data directory."""
    home = folders[0] if folders else data
    return (settings_file or home / FILE_NAME).absolute()


class FoundSettings(NamedTuple):
    """The settings, the tables that do not count, each with the reason, and whether there is a file."""

    settings: Settings
    left_out: dict[str, str]
    from_file: bool


def read_settings(
    folders: Sequence[Path], settings_file: Path | None, data: Path, *, in_effect: bool = False
) -> FoundSettings:
    """Read the settings file, and add a mirror for each folder. Raises InvalidConfig.

    A file that is not there is no settings, unless the operator named it, or its settings are `in_effect`.
    """
    path = settings_path(folders, settings_file, data)
    left_out: dict[str, str] = {}
    from_file = True
    for folder in folders:
        if not folder.is_dir():
            raise InvalidConfig(f"{folder} is not a folder", hint="name an existing folder for `main` to follow")
    try:
        if settings_file is None and folders:
            settings, left_out = load_followed(path)
        else:
            settings = load_settings(path)
    except FileNotFoundError as error:
        if in_effect:
            raise InvalidConfig(
                f"{path} is gone, and what it described stays", hint="put it back; an empty file describes nothing"
            ) from error
        if settings_file is not None:
            raise InvalidConfig(f"{path} does not exist", hint="create it, or name no settings file") from error
        settings, from_file = Settings(), False
    except OSError as error:
        lack = passing(error, "read settings", str(path))
        if lack is not None:
            raise lack from error
        raise InvalidConfig(f"{path} cannot be read: {error.strerror}") from error
    described = {mirror.folder for mirror in settings.mirror}
    mirrors = [
        MirrorSettings(str(folder), prefix=f"{folder.name}/" if len(folders) > 1 else "")
        for folder in (folder.absolute() for folder in folders)
        if str(folder) not in described
    ]
    twice = {one.prefix for one in mirrors if [other.prefix for other in mirrors].count(one.prefix) > 1}
    if twice:
        raise InvalidConfig(
            f"two folders have the name {min(twice).rstrip('/')!r}, so their files would have the same ids",
            hint="describe each as a [[mirror]] with its own prefix in a file, and name the file with --settings",
        )
    default = IndexSettings()
    searched = any(index.key == default.key or RESOURCE_TYPE in index.resource_types for index in settings.index)
    indexes = [default] if folders and not searched else []
    joined = msgspec.structs.replace(settings, mirror=(*settings.mirror, *mirrors), index=(*settings.index, *indexes))
    return FoundSettings(check_settings(joined, path.parent, path.name), left_out, from_file)


class Daemon(Part):
    """Runs the parts; its own thread follows the settings file. Start it after the engine is open. Any thread."""

    first_wait_s = RETRY_S
    stop_timeout_s = 120.0

    def __init__(self, engine: Engine, folders: Sequence[Path] = (), settings_file: Path | None = None) -> None:
        """Branch `main` mirrors `folders`, and has an index of them. Several folders have their names as prefixes.

        The default settings file is `shadowswitch.toml` in the first folder, where only descriptions of indexes count,
        or in the data directory.
        """
        super().__init__(engine, "daemon")
        self._folders, self._named = list(folders), settings_file
        self.settings_file = settings_path(folders, settings_file, engine.path)
        self._settings = self._at_start = Settings()
        self._left_out: dict[str, str] = {}
        self._from_file = False
        """Whether the present settings are those of the file."""
        self._error: str | None = None
        self._stamp: object = None
        self._parts: dict[Description, Part] = {}
        self._not_started: dict[str, str] = {}
        self._indexes = IndexReconciler(engine)

    def start(self) -> None:
        """Read the settings and start the parts. Raises InvalidConfig before anything starts."""
        self._stamp = self._settings_stamp()
        self._read_settings()
        self._at_start = self._settings
        self._unsubscribe = self._engine.watch_folder(
            self.settings_file.parent, lambda _: self._wake.set(), recursive=False, quiet_s=0.1
        )
        self._indexes.start()
        self._indexes.want(self._settings.index)
        self._apply()
        super().start()

    def stop(self) -> None:
        """Stop the thread, then the reconciler, then the parts. Idempotent."""
        super().stop()
        self._indexes.stop()
        for part in list(self._parts.values()):
            part.stop()
        self._parts.clear()

    def status(self) -> UpkeepStatus:
        """The status now."""
        parts = list(self._parts.values())
        inboxes = [part for part in parts if isinstance(part, Inbox)]
        return UpkeepStatus(
            str(self.settings_file),
            self._error,
            [part.status() for part in parts if isinstance(part, Mirror)],
            self._indexes.status(),
            [part.status() for part in parts if isinstance(part, Webhook)],
            InboxStatus(str(inboxes[0].folder), inboxes[0].taken, inboxes[0].rejected) if inboxes else None,
            self._restart_needed(),
            dict(self._not_started),
        )

    def _restart_needed(self) -> bool:
        """Is the engine to start with other settings than at the start, and than a host gave it?"""
        return self._settings.restart_needed(self._at_start, self._engine.config)

    # -- settings --------------------------------------------------------------------------------------------------

    def _settings_stamp(self) -> object:
        """The stamp of the settings file; None for a missing file."""
        try:
            return stamp_of(os.stat(self.settings_file))
        except OSError:
            return None

    def _read_settings(self) -> None:
        """Take the settings of the file, and log what does not count. Raises InvalidConfig; then nothing changes."""
        found = read_settings(self._folders, self._named, self._engine.path, in_effect=self._from_file)
        self._settings, self._left_out, self._from_file = found
        for table, reason in self._left_out.items():
            logger.error("%s of %s has no effect: %s", table, self.settings_file, reason)

    def _round(self) -> float:
        """Apply a changed settings file, and start the parts that could not be started."""
        stamp = self._settings_stamp()
        if stamp != self._stamp:
            try:
                self._read_settings()
                self._stamp = stamp
            except InvalidConfig as error:
                self._stamp = stamp
                logger.error("the settings stay as they were: %s", error)
                try:
                    self._engine.tell_settings(str(self.settings_file), str(error), AUTHOR, CHANGED)
                finally:
                    self._error = str(error)  # set after the event: a reader of the error finds the event
                return RETRY_S
            self._error = None
            if self._restart_needed():
                logger.warning("%s: [incoming] and [engine] take effect at the next start", self.settings_file)
            self._indexes.want(self._settings.index)
            self._engine.tell_settings(str(self.settings_file), None, AUTHOR, CHANGED)
        self._apply()
        return RETRY_S

    # -- parts -----------------------------------------------------------------------------------------------------

    def _apply(self) -> None:
        """Stop the parts without a description, and start the described parts that do not run."""
        settings = self._settings
        wanted: list[Description] = [*settings.mirror, *settings.webhook]
        if settings.inbox.enabled:
            wanted.append(settings.inbox)
        for description in [running for running in self._parts if running not in wanted]:
            self._parts.pop(description).stop()
        self._not_started.clear()
        self._not_started |= {f"{table} of {self.settings_file}": why for table, why in self._left_out.items()}
        for description in wanted:
            if description not in self._parts:
                self._start(description)

    def _start(self, description: Description) -> None:
        part = self._make(description)
        try:
            part.start()
        except EngineClosed:
            raise
        except (ShadowSwitchError, OSError) as error:
            part.stop()
            self._not_started[part.name] = str(error)
            logger.error("%s cannot be started: %s", part.name, error)
        else:
            self._parts[description] = part

    def _make(self, description: Description) -> Part:
        engine = self._engine
        if isinstance(description, MirrorSettings):
            return Mirror(
                engine, description.branch, Path(description.folder), prefix=description.prefix,
                ignore=description.ignore, rescan_s=description.rescan_s,
            )  # fmt: skip
        if isinstance(description, InboxSettings):
            return Inbox(engine, Path(description.folder) if description.folder else None)
        secret = os.environ.get(description.secret_env, "") if description.secret_env else ""
        endpoint = Endpoint(description.url, description.name, secret, description.types, description.allow_private)
        return Webhook(engine, endpoint)


@contextlib.contextmanager
def daemon_of_server(
    folders: Sequence[Path], settings_file: Path | None, data: Path, announce: Callable[[Engine, str], None]
) -> Iterator[tuple[Config, Ready]]:
    """Yields the configuration of the engine, and the function that starts the daemon once the server answers.

    That function calls `announce` after the start. The exit stops the daemon. Raises InvalidConfig for wrong settings,
    before anything starts.
    """
    config = read_settings(folders, settings_file, data).settings.config()
    with contextlib.ExitStack() as started:

        def ready(engine: Engine, url: str) -> Callable[[], UpkeepStatus]:
            daemon = Daemon(engine, folders, settings_file)
            started.callback(daemon.stop)
            daemon.start()
            announce(engine, url)
            return daemon.status

        yield config, ready
