"""Stores of objects: a folder, and a bucket of a real S3 server in a process of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from shadowswitch import InvalidConfig, StoreUnavailable
from shadowswitch.storage.objects.folder import PARTS
from shadowswitch.storage.objects.opening import open_store
from shadowswitch.storage.objects.store import ObjectStore
from tests.support.moto_server import BUCKET, CREDENTIALS, moto


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, str]]:
    with moto() as environment:
        yield environment


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    if request.param == "folder":
        return open_store(f"file://{tmp_path}/of%20objects")
    for name, value in request.getfixturevalue("server").items():
        monkeypatch.setenv(name, value)
    return open_store(f"s3://{BUCKET}/{tmp_path.name}")


def test_what_was_put_is_got_listed_and_deleted(store: ObjectStore) -> None:
    assert store.get("a/1") is None
    assert list(store.listed("a")) == []
    store.put("a/1", b"one")
    store.put("a/2", b"")
    store.put("ab/3", bytes(3_000_000))
    assert store.get("a/1") == b"one"
    assert store.get("a/2") == b""
    assert store.get("a") is None
    assert sorted((one.path, one.size_bytes) for one in store.listed("a")) == [("a/1", 3), ("a/2", 0)]
    store.put("a/1", b"another")
    assert store.get("a/1") == b"another"
    store.delete("a/1")
    store.delete("a/1")
    assert [one.path for one in store.listed("a")] == ["a/2"]


def test_a_bucket_that_is_not_there_is_named_without_a_secret(
    server: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in server.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StoreUnavailable, match="NoSuchBucket") as refused:
        open_store("s3://nowhere/x").put("a", b"")
    assert CREDENTIALS["AWS_SECRET_ACCESS_KEY"] not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "no URL"),
        ("ftp://host/x", "ftp"),
        ("file://host/x", "no folder of this machine"),
        ("s3://key:secret@bucket/x", "credentials come from the environment"),
        ("s3://bucket/x?versionId=1", "a bucket and a path only"),
    ],
)
def test_a_url_of_no_store_is_refused(url: str, says: str) -> None:
    with pytest.raises(InvalidConfig, match=says) as refused:
        open_store(url)
    assert "secret" not in refused.value.message


def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    store = open_store(str(tmp_path / "taken"))
    with pytest.raises(StoreUnavailable, match="cannot be used"):
        store.put("a/b", b"")


def test_a_write_that_was_cut_off_leaves_no_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(str(tmp_path / "store"))
    store.put("a/b", b"before")
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", _fails)
        with pytest.raises(StoreUnavailable):
            store.put("a/b", b"after")
    assert store.get("a/b") == b"before"
    assert list((tmp_path / "store" / PARTS).iterdir()) == []


def _fails(descriptor: int) -> None:
    raise OSError(5, "Input/output error")
