"""The store of a URL.

s3://bucket/path   gs://bucket/path   az://account/container/path       see `bucket`
file:///path       a path without a scheme                              see `folder`
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from shadowswitch.model.errors import InvalidConfig
from shadowswitch.storage.objects.folder import FolderStore
from shadowswitch.storage.objects.store import ObjectStore

BUCKETS = ("s3", "gs", "az")
EXAMPLES = "s3://bucket/path, gs://bucket/path, az://account/container/path, file:///path, or the path of a folder"


def open_store(url: str) -> ObjectStore:
    """The store of a URL; nothing is made or asked yet. Raises InvalidConfig for another URL, or without the extra."""
    if not isinstance(url, str) or not url or not url.isprintable():
        raise InvalidConfig(f"{url!r:.80} is no URL of a store", hint=f"give {EXAMPLES}")
    scheme = url.partition("://")[0] if "://" in url else ""
    if scheme in BUCKETS:
        _refuse_credentials(url)
        from shadowswitch.storage.objects.bucket import BucketStore  # the extra `replication`

        return BucketStore(url)
    if scheme not in ("", "file"):
        raise InvalidConfig(f"a store of the kind {scheme!r:.20} is not known", hint=f"give {EXAMPLES}")
    return FolderStore(_folder(url) if scheme else Path(url).absolute())


def _folder(url: str) -> Path:
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        raise InvalidConfig(f"{url!r:.120} names no folder of this machine", hint="write file:///path")
    return Path(unquote(parts.path))


def _refuse_credentials(url: str) -> None:
    parts = urlsplit(url)
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise InvalidConfig(
            f"a URL of a store has a bucket and a path only: {parts.scheme}://{parts.netloc.rpartition('@')[2]}",
            hint="credentials come from the environment (AWS_ACCESS_KEY_ID, GOOGLE_APPLICATION_CREDENTIALS,"
            " AZURE_STORAGE_ACCOUNT_KEY, or the role of the machine)",
        )
