"""A build whose command was cut off: recovery goes on with it, and the next equal `build` joins it.

A command that is killed leaves its shadow BUILDING. The next process that opens the directory goes on with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shadowswitch.engine.engine import Engine
from shadowswitch.engine.views import RUNNING
from shadowswitch.model.errors import DuplicateBuild
from shadowswitch.model.views import ShadowIndex
from shadowswitch.service import host_file
from shadowswitch.service.remote import RemoteEngine
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.generations.build_spec import make_spec

SERVICE = "cli"
"""The service name of a build of the command line."""


def cut_off_build(catalog: Catalog, data: Path, branch: str, index_type: str) -> str:
    """The id of a build of the index that a `build` may join; "" without one.

    Where a server has the directory open, that is a build of the command line only.
    """
    served = host_file.read(data) is not None
    for row in catalog.shadows():
        same = row.branch_name == branch and row.index_type == index_type
        if same and row.state in RUNNING and not row.external and (not served or row.service_name == SERVICE):
            return row.id
    return ""


def start_or_join(
    engine: Engine | RemoteEngine,
    cut_off: str,
    branch: str,
    index_type: str,
    resource_types: Sequence[str],
    build_config: dict[str, Any],
    by: str = "",
    reason: str = "",
) -> tuple[ShadowIndex, bool]:
    """Start a build, or join the equal one that was cut off; True if it was joined.

    Raises DuplicateBuild while another build of the index is under way, or one with other options.
    """
    try:
        shadow = engine.start_build(
            branch, index_type, resource_types, build_config, service_name=SERVICE, by=by, reason=reason
        )
        return shadow, False
    except DuplicateBuild as error:
        if not cut_off or error.shadow_index_id != cut_off:
            raise
        shadow = engine.shadow(cut_off)
        begun = make_spec(index_type, shadow.resource_types, shadow.build_config)
        if begun.fingerprint != make_spec(index_type, resource_types, build_config).fingerprint:
            error.message += f"; it was begun with other options: {shadow.build_config}, {shadow.resource_types}"
            raise
        return shadow, True
