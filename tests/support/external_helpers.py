"""An external builder, as another program would be one: it only writes files and a manifest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shadowswitch import Engine, ShadowIndex
from shadowswitch.model.digest import key_hash
from shadowswitch.model.records import Item
from shadowswitch.storage.backends import registry
from tests.support.engine_helpers import KIND, TYPES

CONTENT = {"shard-000/terms.bin": b"terms", "shard-000/deep/er/docs.bin": b"docs" * 100}


def begin(engine: Engine, **config: Any) -> ShadowIndex:
    """Start an external build of `main`; in an unknown format unless `backend` says otherwise."""
    return engine.start_build("main", KIND, TYPES, config, external=True, service_name="other")


def write_files(path: Path, content: Mapping[str, bytes] = CONTENT) -> None:
    """Write files of an index in a format of our own."""
    for name, data in content.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)


def write_manifest(shadow: ShadowIndex, applied_lsn: int, record_count: int, **other: Any) -> dict[str, Any]:
    """Write the manifest of the files in the directory."""
    path = Path(shadow.shadow_index_path)
    files = {}
    for file in sorted(path.rglob("*")):
        name = file.relative_to(path).as_posix()
        if file.is_file() and name not in ("manifest.json", "PINS", "build-manifest.json"):
            data = file.read_bytes()
            files[name] = {"size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    manifest = {
        "format": 1,
        "shadow_index_id": shadow.shadow_index_id,
        "applied_lsn": applied_lsn,
        "record_count": record_count,
        "files": files,
        **other,
    }
    (path / "build-manifest.json").write_text(json.dumps(manifest))
    return manifest


def delivered(engine: Engine, shadow: ShadowIndex, content: Mapping[str, bytes] = CONTENT) -> int:
    """Write files and manifest as of the head; returns the size of the files in bytes."""
    write_files(Path(shadow.shadow_index_path), content)
    write_manifest(shadow, engine.head("main"), engine.count("main", TYPES[0]))
    return sum(map(len, content.values()))


def complete(engine: Engine, shadow: ShadowIndex, **claim: Any) -> ShadowIndex:
    """Complete the shadow, with these claims and no others."""
    return engine.complete_build(
        shadow.shadow_index_id, **{"index_size_bytes": None, "record_count": None, "applied_lsn": None, **claim}
    )


def fts5(engine: Engine, shadow: ShadowIndex, skip: str = "", upto: int | None = None) -> None:
    """Build a `fts5` index through the backend, from records and changes that the engine gives."""
    backend = registry.backend("fts5")
    writer = backend.open_writer(Path(shadow.shadow_index_path) / "shard-000", backend.configure({}))
    items = [
        Item(record.lsn, record.resource_type, record.id, key_hash(record.resource_type, record.id), record.fields)
        for record in engine.scan("main", "object_type")
        if record.id != skip
    ]
    writer.load(items, b"done")
    writer.finish_load(upto if upto is not None else shadow.start_lsn)
    writer.flush()
    writer.close()


def incoming(kind: str, id: str = "1", **data: Any) -> dict[str, Any]:
    """An event of another service."""
    return {
        "specversion": "1.0",
        "id": id,
        "source": "funnel-service",
        "type": kind,
        "data": {"branch_name": "main", **data},
    }
