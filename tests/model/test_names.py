"""Allowed names, and their directories; no name leads out of its directory."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowswitch import CorruptData, InvalidName
from shadowswitch.model.names import (
    BRANCH_CHARS_MAX,
    ID_BYTES_MAX,
    check_branch,
    check_id,
    check_index_type,
    check_resource_type,
    directory_name,
)
from shadowswitch.storage.catalog.keys import record_key, split_record
from shadowswitch.storage.generations.directory import generation_path

printable = st.text(
    st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1, max_size=BRANCH_CHARS_MAX
).filter(lambda name: name == name.strip())


@given(printable)
def test_every_printable_name_is_one_harmless_directory_name(name: str) -> None:
    folder = directory_name(check_branch(name))
    assert 1 <= len(folder.encode()) <= 255
    assert not set(folder) & set('/\0\\ :*?"<>|.')
    assert generation_path(name, "SEARCH_INDEX", 7).split("/") == ["generations", folder, "SEARCH_INDEX", "00000007"]


@given(printable, printable)
def test_different_names_have_different_directories_also_where_case_is_ignored(one: str, other: str) -> None:
    names = {one, other, one.swapcase(), unicodedata.normalize("NFD", one), unicodedata.normalize("NFC", one)}
    folders = {directory_name(name).lower() for name in names}
    assert len(folders) == len(names)


def test_long_names_with_the_same_beginning_have_different_directories() -> None:
    names = ["x" * 199 + end for end in "ab"] + ["한" * 199 + end for end in "ab"] + ["X" * 199 + end for end in "ab"]
    assert len({directory_name(name) for name in names}) == len(names)


@pytest.mark.parametrize("name", ["", " a", "a ", "a\nb", "a\0b", "\x7f", "x" * 201, "\ud800", "\u2028", None, 5, b"a"])
def test_a_name_that_cannot_be_a_branch_is_refused_with_a_reason(name: object) -> None:
    with pytest.raises(InvalidName) as caught:
        check_branch(name)  # type: ignore[arg-type]
    assert caught.value.message


@pytest.mark.parametrize("name", ["", "x" * 101, "a\nb", None])
def test_a_name_that_cannot_be_a_resource_type_is_refused(name: object) -> None:
    with pytest.raises(InvalidName):
        check_resource_type(name)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["", "search", "SEARCH INDEX", "A" * 65, "../X", "1X", "X\n", "É", None, 7])
def test_a_name_that_cannot_be_an_index_type_is_refused(name: object) -> None:
    with pytest.raises(InvalidName):
        check_index_type(name)  # type: ignore[arg-type]


def test_index_types_are_capitals_digits_and_underscores() -> None:
    for name in ("A", "SEARCH_INDEX", "X9_", "A" * 64):
        assert check_index_type(name) == name


@given(st.text(min_size=1, max_size=ID_BYTES_MAX // 4).filter(lambda id: "\0" not in id))
def test_every_id_has_a_key_that_lmdb_accepts(id: str) -> None:
    try:
        data = check_id(id)
    except InvalidName:
        assert any(unicodedata.category(character) == "Cs" for character in id)
        return
    assert data.decode() == id
    assert len(record_key(1, 1, 0, data)) <= 511


@given(st.lists(st.binary(min_size=1, max_size=600), min_size=2, max_size=5, unique=True))
def test_different_ids_have_different_keys(ids: list[bytes]) -> None:
    prefixed = [b"p" * 390 + id for id in ids]
    assert len({record_key(1, 1, 0, id) for id in prefixed}) == len(ids)


def test_a_record_of_an_unknown_format_is_corrupt_data() -> None:
    with pytest.raises(CorruptData, match="format 9"):
        split_record(bytes(9), b"\x09" + bytes(20))
