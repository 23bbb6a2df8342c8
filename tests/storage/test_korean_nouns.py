"""Korean words are found by their nouns, which kiwi finds in a process of its own."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from shadowswitch.model.digest import key_hash
from shadowswitch.model.errors import InvalidConfig, Timeout
from shadowswitch.model.records import Item
from shadowswitch.storage.backends import registry
from shadowswitch.storage.backends.fts5 import nouns
from shadowswitch.storage.backends.protocol import Marking
from tests.support import inside
from tests.support.engine_helpers import outside_environment

TEXTS = {
    "papers": "결재문서를 검색합니다",
    "access": "접근성이 좋다",
    "access_to": "접근을 막는다",
    "user": "사용자가 로그인하면 API서버는 권한을 확인한다",
    "use": "사용하는 방법",
    "none": "그리고 없다",
}
CASES = [
    ("문서", ["papers"]),
    ("문서를", ["papers"]),
    ("결재문서", ["papers"]),
    ("결재가", ["papers"]),
    ("접근성", ["access"]),
    ("접근", ["access_to"]),
    ("사용하세요", ["use"]),
    ("서버", ["user"]),
    ("API서버를", ["user"]),
    ("권한의 확인", ["user"]),
    ("그리고", ["none"]),
    ('"문서"', []),
    ("-문서 검색", []),
]
installed = pytest.mark.skipif(not nouns.is_installed(), reason="pip install kiwipiepy")


@pytest.fixture
def kiwi() -> Iterator[nouns.Kiwi]:
    with closing(nouns.Kiwi()) as kiwi:
        yield kiwi


@installed
@pytest.mark.parametrize("name", ["fts5", "tantivy"])
def test_a_word_finds_the_words_that_have_its_nouns(tmp_path: Path, name: str) -> None:
    backend = registry.backend(name)
    options = backend.configure({"tokenizer": "korean", "cjk": "word"})
    backend.create_shard(tmp_path / "shard-000", options)
    with closing(backend.open_writer(tmp_path / "shard-000", options)) as writer:
        items = [Item(n, "t", id, key_hash("t", id), {"title": text}) for n, (id, text) in enumerate(TEXTS.items(), 1)]
        writer.load(items[:2], b"c")
        writer.finish_load(2)
        writer.apply(items[2:], len(items))
        writer.flush()
    with closing(backend.open_reader([tmp_path / "shard-000"], options)) as reader:
        assert {query: sorted(hit.id for hit in reader.search(query, 10)) for query, _ in CASES} == dict(CASES)
        assert isinstance(reader, Marking)
        ((_, spans),) = reader.marks("문서", [{"title": TEXTS["papers"]}])[0].values()
        assert [TEXTS["papers"][begin:end] for begin, end in spans] == ["문서"]
    assert backend.check(tmp_path / "shard-000", options) == []


@installed
def test_a_process_that_was_killed_is_started_again(kiwi: nouns.Kiwi) -> None:
    assert kiwi.of(["문서를", "없다"]) == [("문서",), ()]
    os.kill(kiwi.pid, signal.SIGKILL)
    assert kiwi.of(["권한을"]) == [("권한",)]


@installed
def test_many_words_are_answered_at_once(kiwi: nouns.Kiwi) -> None:
    words = [f"문서{chr(0xAC00 + number)}{chr(0xAC00 + number // 100)}" for number in range(11_000)]
    found = kiwi.of(words)
    assert len(found) == len(words)
    assert kiwi.of(words[:3]) == found[:3]


@installed
def test_a_run_of_letters_that_is_no_word_has_no_nouns(kiwi: nouns.Kiwi) -> None:
    """A record may be large; one that no process can answer for would be indexed never."""
    assert kiwi.of(["문서" * 1_000_000, "문서"]) == [(), ("문서",)]


@installed
def test_a_process_that_stands_still_is_given_up_and_the_next_question_is_answered(
    kiwi: nouns.Kiwi, monkeypatch: pytest.MonkeyPatch
) -> None:
    kiwi.wait()
    with monkeypatch.context() as patch:
        inside.patch_limit(patch, inside.Limit.NOUNS_S, 0.2)
        os.kill(kiwi.pid, signal.SIGSTOP)
        with pytest.raises(Timeout):
            kiwi.of(["문서를"])
    assert kiwi.of(["문서를"]) == [("문서",)]


@installed
def test_the_process_ends_with_its_parent() -> None:
    code = (
        "from shadowswitch.storage.backends.fts5.nouns import KIWI; KIWI.wait(); print(KIWI.pid, flush=True); input()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=outside_environment()
    )
    with parent:
        assert parent.stdout
        end = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
    try:
        assert select.select([end], [], [], 30)[0], "it goes on without its parent"
    finally:
        os.close(end)


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kiwipiepy", None)
    with pytest.raises(InvalidConfig) as refused:
        registry.backend("fts5").configure({"tokenizer": "korean"})
    assert "pip install 'shadowswitch[korean]'" in str(refused.value.hint)
    with closing(nouns.Kiwi()) as kiwi, pytest.raises(InvalidConfig):
        kiwi.of(["문서"])
