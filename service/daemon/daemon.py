"""What a host keeps going beside its API: mirrors, indexes, inbox and webhooks, as folders and the settings file say.

The settings file is watched. When it changes, what is new is started, what is no longer described is stopped, and an
index with another description is rebuilt in the shadow and switched. A file that is wrong changes nothing; why is
logged, told as an event, and shown in the status, until it is mended.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from shadowswitch.engine.engine import Engine
from shadowswitch.model.config import Config
from shadowswitch.model.errors import EngineClosed, InvalidConfig, ShadowSwitchError
from shadowswitch.service.daemon.delivery import Endpoint
from shadowswitch.service.daemon.importer import RESOURCE_TYPE
from shadowswitch.service.daemon.inbox import Inbox
from shadowswitch.service.daemon.index_reconciler import IndexReconciler, IndexStatus
from shadowswitch.service.daemon.mirror import Mirror, MirrorStatus
from shadowswitch.service.daemon.settings import (
    FILE_NAME,
    InboxSettings,
    IndexSettings,
    MirrorSettings,
    Settings,
    WebhookSettings,
    check_settings,
    load_settings,
)
from shadowswitch.service.daemon.webhooks import Webhook, WebhookStatus

logger = logging.getLogger("shadowswitch")

RETRY_S = 5.0
"""How often a part that could not be started is tried again."""
STOP_TIMEOUT_S = 120.0
Description = MirrorSettings | InboxSettings | WebhookSettings


class _Part(Protocol):
    def start(self) -> None: ...
    def stop(self) -> None: ...


class InboxStatus(msgspec.Struct, frozen=True):
    """How many event files were taken and rejected since the start."""

    folder: str
    taken: int
    rejected: int


class UpkeepStatus(msgspec.Struct, frozen=True):
    """Everything that is kept going. `error` says why the settings file as it is now is not used."""

    settings_file: str
    error: str | None
    mirrors: list[MirrorStatus]
    indexes: list[IndexStatus]
    webhooks: list[WebhookStatus]
    inbox: InboxStatus | None
    restart_needed: bool
    """The rules for incoming events are described otherwise than the engine was opened with."""
    not_started: dict[str, str]
    """What could not be started, and why; it is tried again."""

    def of_branches(self, reaches: Callable[[str], bool]) -> UpkeepStatus:
        """What belongs to some branches, for whoever may see only these."""
        mirrors = [one for one in self.mirrors if reaches(one.branch)]
        return msgspec.structs.replace(
            NOTHING, mirrors=mirrors, indexes=[one for one in self.indexes if reaches(one.branch)]
        )


NOTHING = UpkeepStatus("", None, [], [], [], None, False, {})
"""Of a host that keeps nothing going, or not yet."""
Ready = Callable[[Engine, str], Callable[[], UpkeepStatus]]


def settings_path(folders: Sequence[Path], settings_file: Path | None, data: Path) -> Path:
    """Where the settings are: as given, else in the first folder, else in the data directory."""
    home = folders[0] if folders else data
    return (settings_file or home / FILE_NAME).absolute()


def read_settings(folders: Sequence[Path], settings_file: Path) -> Settings:
    """The settings file, if there is one, and what follows from the folders. Raises InvalidConfig."""
    for folder in folders:
        if not folder.is_dir():
            raise InvalidConfig(f"{folder} is not a folder", hint="name a folder that is there for `main` to follow")
    try:
        settings = load_settings(settings_file)
    except FileNotFoundError:
        settings = Settings()
    except OSError as error:
        raise InvalidConfig(f"{settings_file} cannot be read: {error.strerror}") from error
    described = {mirror.folder for mirror in settings.mirror}
    mirrors = [
        MirrorSettings(str(folder), prefix=f"{folder.name}/" if len(folders) > 1 else "")
        for folder in (folder.absolute() for folder in folders)
        if str(folder) not in described
    ]
    twice = {one.prefix for one in mirrors if [other.prefix for other in mirrors].count(one.prefix) > 1}
    if twice:
        raise InvalidConfig(
            f"two of the folders are called {min(twice).rstrip('/')!r}, so the ids of their files would be the same",
            hint=f"describe them as [[mirror]] with a prefix each in {settings_file.name}",
        )
    usual = IndexSettings()
    searched = any(
        (index.branch, index.index_type) == (usual.branch, usual.index_type) or RESOURCE_TYPE in index.resource_types
        for index in settings.index
    )
    indexes = [usual] if folders and not searched else []
    joined = msgspec.structs.replace(settings, mirror=(*settings.mirror, *mirrors), index=(*settings.index, *indexes))
    return check_settings(joined, settings_file.parent, settings_file.name)


class Daemon:
    """Start it once, after the engine is open; stop it before the engine closes. Any thread."""

    def __init__(self, engine: Engine, folders: Sequence[Path] = (), settings_file: Path | None = None) -> None:
        """`folders` are mirrored to branch `main`, each below a prefix of its name if there are several, and searched.

        The settings file is `shadowswitch.toml` in the first folder, or in the data directory, unless given.
        """
        self._engine = engine
        self._folders = list(folders)
        self.settings_file = settings_path(folders, settings_file, engine.path)
        self._settings = self._at_start = Settings()
        self._error: str | None = None
        self._seen: object = None
        self._parts: dict[Description, _Part] = {}
        self._not_started: dict[str, str] = {}
        self._keeper = IndexReconciler(engine)
        self._wake = threading.Event()
        self._stopping = False
        self._leave: Callable[[], None] = lambda: None
        self._thread = threading.Thread(target=self._run, name="shadowswitch-upkeep", daemon=True)

    def start(self) -> None:
        """Read the settings and begin. Raises InvalidConfig when they are wrong: nothing was started."""
        self._seen = self._look()
        self._settings = self._at_start = read_settings(self._folders, self.settings_file)
        self._leave = self._engine.watch_folder(
            self.settings_file.parent, lambda _: self._wake.set(), recursive=False, quiet_s=0.1
        )
        self._keeper.start()
        self._keeper.want(self._settings.index)
        self._apply()
        self._thread.start()

    def stop(self) -> None:
        """Stop all of it, in the order in which one needs the other. Idempotent."""
        self._stopping = True
        self._wake.set()
        self._leave()
        if self._thread.is_alive():
            self._thread.join(STOP_TIMEOUT_S)
        self._keeper.stop()
        for part in list(self._parts.values()):
            part.stop()
        self._parts.clear()

    def status(self) -> UpkeepStatus:
        """As of now."""
        parts = list(self._parts.values())
        inboxes = [part for part in parts if isinstance(part, Inbox)]
        return UpkeepStatus(
            str(self.settings_file),
            self._error,
            [part.status() for part in parts if isinstance(part, Mirror)],
            self._keeper.status(),
            [part.status() for part in parts if isinstance(part, Webhook)],
            InboxStatus(str(inboxes[0].folder), inboxes[0].taken, inboxes[0].rejected) if inboxes else None,
            self._restart_needed(),
            dict(self._not_started),
        )

    def _restart_needed(self) -> bool:
        """A host of its own may have opened the engine otherwise; what it has not described is its own affair."""
        described = self._settings.incoming
        return described not in (self._at_start.incoming, self._engine.config.incoming)

    # -- settings --------------------------------------------------------------------------------------------------

    def _look(self) -> object:
        """Equal as long as the settings file is the same."""
        try:
            found = os.stat(self.settings_file)
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _run(self) -> None:
        while not self._stopping:
            self._wake.wait(RETRY_S)
            self._wake.clear()
            if self._stopping:
                return
            try:
                self._follow()
            except EngineClosed:
                return
            except Exception:
                logger.exception("the settings could not be followed")

    def _follow(self) -> None:
        seen = self._look()
        if seen != self._seen:
            self._seen = seen
            try:
                self._settings = read_settings(self._folders, self.settings_file)
            except InvalidConfig as error:
                logger.error("the settings stay as they were: %s", error)
                try:
                    self._engine.tell_settings(str(self.settings_file), str(error))
                finally:
                    self._error = str(error)  # after the event, so that whoever sees one finds the other
                return
            self._error = None
            if self._restart_needed():
                logger.warning("%s: the rules for incoming events are used from the next start on", self.settings_file)
            self._keeper.want(self._settings.index)
            self._engine.tell_settings(str(self.settings_file), None)
        self._apply()

    # -- parts -----------------------------------------------------------------------------------------------------

    def _apply(self) -> None:
        """Stop what is no longer described, start what is not running."""
        settings = self._settings
        wanted: list[Description] = [*settings.mirror, *settings.webhook]
        if settings.inbox.enabled:
            wanted.append(settings.inbox)
        for description in [running for running in self._parts if running not in wanted]:
            self._parts.pop(description).stop()
        self._not_started.clear()
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
            self._not_started[_name(description)] = str(error)
            logger.error("%s cannot be started: %s", _name(description), error)
        else:
            self._parts[description] = part

    def _make(self, description: Description) -> _Part:
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


def _name(description: Description) -> str:
    if isinstance(description, MirrorSettings):
        return f"mirror {description.folder}"
    if isinstance(description, WebhookSettings):
        return f"webhook {Endpoint(description.url, description.name).label}"
    return f"inbox {description.folder}".strip()


@contextlib.contextmanager
def keeping(
    folders: Sequence[Path], settings_file: Path | None, data: Path, tell: Callable[[Engine, str], None]
) -> Iterator[tuple[Config, Ready]]:
    """Gives how to open the engine, and what to call with it and its URL once the server answers: it gives back how to
    ask for the status, and calls `tell` once all is going. At the end what that began is stopped.

    Raises InvalidConfig when the settings are wrong, before anything begins.
    """
    config = read_settings(folders, settings_path(folders, settings_file, data)).config()
    kept: list[Daemon] = []

    def ready(engine: Engine, url: str) -> Callable[[], UpkeepStatus]:
        kept.append(Daemon(engine, folders, settings_file))
        kept[0].start()
        tell(engine, url)
        return kept[0].status

    try:
        yield config, ready
    finally:
        for upkeep in kept:
            upkeep.stop()
