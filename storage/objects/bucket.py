"""Objects in a bucket of S3, Google Cloud Storage or Azure, by obstore. Credentials come from the environment."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any

from shadowswitch.model.errors import InvalidConfig, StoreUnavailable
from shadowswitch.storage.objects.store import Listed

try:
    import obstore
    from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError, UnknownConfigurationKeyError
    from obstore.store import from_url
except ImportError as error:
    raise InvalidConfig(
        "a bucket needs the package obstore, which is not installed", hint="pip install 'shadowswitch[replication]'"
    ) from error

REQUEST_S, RETRIES_S, RETRIES = 30, 90, 6
"""One request may take so long, and all tries of one call together."""
_SECRET = re.compile(r"(?i)((?:sig|signature|token|credential|x-amz-[a-z-]+|password|secret)[a-z-]*=)[^&\s\"']+")
_ANSWER = re.compile(r"<Code>(.*?)</Code>.*?<Message>(.*?)</Message>")
TEXT_MAX = 300
ENDPOINT = "AWS_ENDPOINT_URL"
"""The URL of an S3 server that is not that of AWS."""


class BucketStore:
    """A bucket, below a path. obstore retries what may be retried, with a growing wait."""

    def __init__(self, url: str) -> None:
        """Raises InvalidConfig for a URL without a bucket, or with settings of the environment that are wrong."""
        self.url = url
        retry: Any = {"max_retries": RETRIES, "retry_timeout": timedelta(seconds=RETRIES_S)}
        client: Any = {"timeout": timedelta(seconds=REQUEST_S)}
        if os.environ.get(ENDPOINT, "").startswith("http://"):
            client["allow_http"] = True  # a server of the operator
        try:
            self._store: Any = from_url(url, client_options=client, retry_config=retry)
        except (BaseError, UnknownConfigurationKeyError, ValueError) as error:
            raise InvalidConfig(
                f"{url} cannot be opened: {_shown(error)}", hint="check the URL and the variables of the environment"
            ) from error

    def put(self, path: str, data: bytes, settled: bool = True) -> None:
        """As `ObjectStore.put`; each is settled."""
        with self._errors("write", path):
            obstore.put(self._store, path, data, use_multipart=False)

    def settle(self, paths: Iterable[str]) -> None:
        """As `ObjectStore.settle`."""

    def create(self, path: str, data: bytes) -> bool:
        """As `ObjectStore.create`."""
        with self._errors("write", path):
            try:
                obstore.put(self._store, path, data, use_multipart=False, mode="create")
            except AlreadyExistsError:
                return False
            return True

    def get(self, path: str) -> bytes | None:
        """As `ObjectStore.get`."""
        with self._errors("read", path):
            try:
                return bytes(obstore.get(self._store, path).bytes())
            except (NotFoundError, FileNotFoundError):
                return None

    def listed(self, folder: str) -> Iterator[Listed]:
        """As `ObjectStore.listed`."""
        with self._errors("list", folder):
            for page in obstore.list(self._store, prefix=folder):
                for one in page:
                    yield Listed(one["path"], one["size"], one["last_modified"].timestamp())

    def delete(self, path: str) -> None:
        """As `ObjectStore.delete`."""
        with self._errors("delete", path), contextlib.suppress(NotFoundError, FileNotFoundError):
            obstore.delete(self._store, path)

    @contextlib.contextmanager
    def _errors(self, operation: str, path: str) -> Iterator[None]:
        try:
            yield
        except (BaseError, AlreadyExistsError, OSError) as error:
            raise StoreUnavailable(
                f"{self.url} does not answer to {operation} {path}: {_shown(error)}",
                operation=operation,
                object=path,
                hint="check the bucket, the network and the credentials in the environment, then try again",
            ) from None


def _shown(error: Exception) -> str:
    """The text of an error in one line, without secrets."""
    text = " ".join(str(error).split()).partition(" Debug source:")[0]
    answer = _ANSWER.search(text)
    if answer is not None:
        text = f"{answer[1]}: {answer[2]}"
    return _SECRET.sub(r"\1...", text)[:TEXT_MAX]
