"""The settings file `shadowswitch.toml`. A file with an error has no effect at all.

A file in a folder that is followed is content of any author: only descriptions of indexes count in it, see `harmless`.

[[mirror]]                         # a folder that a branch mirrors; the path is relative to this file
folder = "docs"
branch = "main"
ignore = ["*.log"]

[[index]]                          # an index; a change of this table rebuilds it
branch = "main"
index_type = "SEARCH_INDEX"
resource_types = ["file"]
switch = "quiet"                   # or "built": as soon as it is built
quiet_for_s = 900
within_s = 86400
[index.build_config]
tokenizer = "porter"

[inbox]
enabled = true

[engine]                           # fields of Config
disk_reserve_bytes = 1073741824

[[webhook]]
url = "https://example.org/hook"
secret_env = "HOOK_SECRET"         # the name of an environment variable, never the secret itself
types = ["com.shadowswitch.switch.*"]
"""

from __future__ import annotations

import difflib
import logging
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from shadowswitch.model.config import Config
from shadowswitch.model.errors import InvalidConfig, ShadowSwitchError
from shadowswitch.model.inbound_events import IncomingRules
from shadowswitch.model.names import check_branch
from shadowswitch.service.daemon.delivery import checked_url
from shadowswitch.service.daemon.ignore import IgnoreRules
from shadowswitch.service.daemon.text_files import RESOURCE_TYPE
from shadowswitch.storage import no_links
from shadowswitch.storage.backends.registry import foreign_code
from shadowswitch.storage.data_directory import written_by_others
from shadowswitch.storage.generations.build_spec import make_spec

logger = logging.getLogger("shadowswitch")

FILE_NAME = "shadowswitch.toml"
FILE_BYTES_MAX = 1 << 20
FOLLOWED_INDEXES_MAX = 16
FOLLOWED = (
    "the settings file lies in a folder that is followed, where only indexes of branch 'main' count, without a backend"
    f" of a module or force_switch, and {FOLLOWED_INDEXES_MAX} at most; name the file with --settings to use all of it"
)

OF_ENGINE = frozenset(Config.__struct_fields__) - {"incoming"}
"""The fields of Config that the table [engine] may have; `incoming` is a table of its own."""

Seconds = Annotated[float, msgspec.Meta(gt=0, le=86_400 * 365)]


class MirrorSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A folder, and the branch that mirrors it."""

    folder: str
    branch: str = "main"
    prefix: str = ""
    ignore: tuple[str, ...] = ()
    rescan_s: Seconds = 60.0


class IndexSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The description of an index."""

    branch: str = "main"
    index_type: str = "SEARCH_INDEX"
    resource_types: tuple[str, ...] = (RESOURCE_TYPE,)
    build_config: dict[str, Any] = {}
    allow_empty: bool = False
    """An index without records, or with a resource type that has none, is meant so."""
    force_switch: bool = False
    """What else the switch would be refused for is meant, too, see `SwitchRequest`: far fewer records, a new column."""
    switch: Literal["built", "quiet"] = "built"
    """When to switch: as soon as it is BUILT, or at the first quiet moment of the branch, see `schedule_switch`."""
    quiet_for_s: Seconds = 900.0
    within_s: Seconds = 86_400.0

    @property
    def key(self) -> tuple[str, str]:
        """Branch and index type: at most one description for each."""
        return self.branch, self.index_type

    @property
    def fingerprint(self) -> str:
        """Equal for the descriptions of equal indexes. Raises InvalidConfig, InvalidName."""
        return make_spec(self.index_type, self.resource_types, self.build_config).fingerprint


class InboxSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The folder for event files; "" is `inbox` in the data directory."""

    enabled: bool = True
    folder: str = ""


class WebhookSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An endpoint for events. `types` are event types, or prefixes with `*`; an empty list means every type."""

    url: str
    name: str = ""
    """The name of the durable position in the event log; "": the URL."""
    secret_env: str = ""
    types: tuple[str, ...] = ()
    allow_private: bool = False
    """Allow loopback, private and link-local addresses, and http without TLS."""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A settings file; the folders are absolute."""

    mirror: tuple[MirrorSettings, ...] = ()
    index: tuple[IndexSettings, ...] = ()
    inbox: InboxSettings = InboxSettings()
    webhook: tuple[WebhookSettings, ...] = ()
    incoming: IncomingRules = IncomingRules()
    """The rules for incoming events; a change takes effect at the next start."""
    engine: dict[str, Any] = {}
    """Fields of Config; a change takes effect at the next start."""

    def config(self) -> Config:
        """The configuration of the engine. Raises InvalidConfig."""
        for name in self.engine.keys() - OF_ENGINE:
            near = difflib.get_close_matches(name, OF_ENGINE, 1)
            hint = f"did you mean {near[0]}?" if near else "docs/settings.md lists them"
            raise InvalidConfig(f"the engine has no setting {name!r}", hint=hint)
        return Config(incoming=self.incoming, **self.engine)

    def restart_needed(self, earlier: Settings, running: Config) -> bool:
        """Has an engine that runs, or was started with earlier settings, another configuration than these settings?"""
        names = {"incoming", *earlier.engine, *self.engine}
        ours = [getattr(self.config(), name) for name in names]
        return all(ours != [getattr(config, name) for name in names] for config in (earlier.config(), running))


def load_settings(path: Path) -> Settings:
    """Read a settings file. Raises FileNotFoundError; InvalidConfig with the error and its place in the file."""
    settings = _decode(path, follow=True)
    exposed = written_by_others(path, "with that they can run code here")
    if exposed:
        logger.warning("%s", exposed)
    return check_settings(settings, path.parent.absolute(), path.name)


def engine_config(data: Path) -> Config:
    """The configuration of an engine without a daemon: [engine] and [incoming] of the file in its data directory.

    Raises InvalidConfig.
    """
    try:
        settings = _decode(data / FILE_NAME, follow=True)
    except FileNotFoundError:
        return Config()
    config: Config = _checked(FILE_NAME, settings.config)
    return config


def load_followed(path: Path) -> tuple[Settings, dict[str, str]]:
    """Read the settings file of a folder that is followed: what counts of it, and the rest with reasons.

    Raises as `load_settings`. No link is followed. No module is imported, no address is resolved.
    """
    settings, left_out = harmless(_decode(path, follow=False))
    return check_settings(settings, path.parent.absolute(), path.name), left_out


def harmless(settings: Settings) -> tuple[Settings, dict[str, str]]:
    """The part of the settings that may come from content, and the tables that are left out, each with the reason.

    An index of the branch that mirrors the folder counts, with a backend of this library or of the host. What names
    another folder, an address, a module, another branch, or a rule of the engine does not, and no check is overridden.
    """
    branch = IndexSettings().branch
    ours = [one for one in settings.index if one.branch == branch and not foreign_code(one.build_config)]
    checked = [msgspec.structs.replace(one, force_switch=False) for one in ours[:FOLLOWED_INDEXES_MAX]]
    kept = Settings(index=tuple(checked))
    left_out = {
        f"[[{table}]]" if isinstance(given, tuple) else f"[{table}]": FOLLOWED
        for table, given in msgspec.structs.asdict(settings).items()
        if table != "index" and given != getattr(kept, table)
    }
    if len(kept.index) < len(settings.index):
        left_out[f"{len(settings.index) - len(kept.index)} [[index]]"] = FOLLOWED
    if any(one.force_switch for one in ours):
        left_out["force_switch of [[index]]"] = FOLLOWED
    return kept, left_out


def _decode(path: Path, follow: bool) -> Settings:
    with no_links.opened(path, follow=follow) as descriptor:
        data = no_links.read(descriptor, FILE_BYTES_MAX + 1)
    if len(data) > FILE_BYTES_MAX:
        raise InvalidConfig(f"{path.name} has more than {FILE_BYTES_MAX} bytes")
    try:
        return msgspec.toml.decode(data, type=Settings)
    except msgspec.ValidationError as error:
        raise InvalidConfig(f"{path.name}: {_where(str(error))}", hint="see docs/settings.md") from error
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise InvalidConfig(f"{path.name} is not TOML: {error}") from error


def _where(message: str) -> str:
    """Translate msgspec's `$.index[0].branch` to the place in the file: `[[index]] number 1, branch`."""
    found = re.search(r" - at `\$\.?([a-z_]*)(?:\[(\d+)\])?(?:\.([^`]*))?`", message)
    if found is None:
        return message
    table, number, field = found.groups()
    what = f"[[{table}]] number {int(number) + 1}" if number is not None else (f"[{table}]" if table else "the file")
    return f"{what}{f', {field}' if field else ''}: {message[: found.start()]}"


def check_settings(settings: Settings, base: Path, name: str = FILE_NAME) -> Settings:
    """Check the rules beyond the types, and resolve folders against `base`. Raises InvalidConfig."""
    _checked(f"{name}: [engine]", settings.config)
    mirrors = tuple(
        _checked(f"{name}: [[mirror]] number {n}", _check_mirror, mirror, base)
        for n, mirror in enumerate(settings.mirror, 1)
    )
    for number, index in enumerate(settings.index, 1):
        _checked(f"{name}: [[index]] number {number}", _check_index, index)
    for number, webhook in enumerate(settings.webhook, 1):
        _checked(f"{name}: [[webhook]] number {number}", _check_webhook, webhook)
    _all_different(f"{name}: [[index]]", [f"{index.index_type} of {index.branch!r}" for index in settings.index])
    _all_different(f"{name}: [[webhook]]", [webhook.name or webhook.url for webhook in settings.webhook])
    for one in mirrors:
        for other in mirrors:
            if one is not other and one.branch == other.branch and other.prefix.startswith(one.prefix):
                raise InvalidConfig(
                    f"{name}: two mirrors of branch {one.branch!r} would delete each other's records",
                    hint="give each its own prefix, such as 'docs/' and 'notes/', or its own branch",
                )
    inbox = settings.inbox
    if inbox.folder:
        inbox = msgspec.structs.replace(inbox, folder=str(base / inbox.folder))
    return msgspec.structs.replace(settings, mirror=mirrors, inbox=inbox)


def _checked(where: str, check: Any, *arguments: Any) -> Any:
    try:
        return check(*arguments)
    except (ShadowSwitchError, ValueError) as error:
        raise InvalidConfig(f"{where}: {error}") from error


def _check_mirror(mirror: MirrorSettings, base: Path) -> MirrorSettings:
    check_branch(mirror.branch)
    folder = base / mirror.folder
    if not folder.is_dir():
        raise InvalidConfig(f"{folder} is not a folder")
    IgnoreRules(folder, mirror.ignore)
    return msgspec.structs.replace(mirror, folder=str(folder))


def _check_index(index: IndexSettings) -> None:
    check_branch(index.branch)
    if not index.fingerprint:
        raise InvalidConfig("the index cannot be built")
    if index.within_s < index.quiet_for_s:
        raise InvalidConfig("within_s is less than quiet_for_s", hint="no quiet could be long enough")


def _check_webhook(webhook: WebhookSettings) -> None:
    parts = checked_url(webhook.url)
    if parts.username is not None or parts.password is not None:
        raise InvalidConfig("a user or password in a URL would end up in logs", hint="use secret_env")
    if parts.scheme == "http" and not webhook.allow_private:
        raise InvalidConfig("events are sent by https only", hint="allow_private = true allows http")
    if webhook.secret_env and not os.environ.get(webhook.secret_env):
        raise InvalidConfig(f"the environment variable {webhook.secret_env!r} is not set")


def _all_different(where: str, names: Iterable[str]) -> None:
    listed = list(names)
    twice = sorted({name for name in listed if listed.count(name) > 1})
    if twice:
        raise InvalidConfig(f"{where}: {', '.join(twice)} is described twice")
