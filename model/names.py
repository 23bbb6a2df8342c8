"""Names from users: the allowed ones, and the directory name of a branch.

A branch name is percent-encoded before it becomes part of a path. So no name leads out of the data directory, and two
different names never share a directory, not even names that differ only in case or Unicode normalisation.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Collection
from functools import lru_cache
from hashlib import blake2b

from shadowswitch.model.errors import InvalidName, UnknownBranch

BRANCH_CHARS_MAX = 200
RESOURCE_TYPE_CHARS_MAX = 100
ID_BYTES_MAX = 2000
"""The value of a record holds the whole id; the key holds a hash of an id that LMDB's 511 bytes cannot hold."""
LISTED_MAX = 5
"""Names in a message."""
COMPARED_MAX = 1000
"""Names that a mistyped one is compared with: a comparison takes 60 us, of the longest names 2 ms."""
_DIRECTORY_CHARS_MAX = 150
"""A directory name may have 255 bytes on every common file system; a longer encoding is cut and given a hash."""

_INDEX_TYPE = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
_SAFE = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-_")
_REFUSED_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})
_HIDDEN_CATEGORIES = _REFUSED_CATEGORIES | {"Cf"}
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""Letters, marks and symbols that show nothing: fillers, joiners, variation selectors."""
_VISIBLE = re.compile("[\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd]")
"""Signs that show something although Unicode counts them as format characters."""
_JOINERS = re.compile("(?<=[^\0-\x7f])[\u200c\u200d\ufe0e\ufe0f]|\ufe0f(?=\u20e3)")
"""Invisible parts of visible characters, such as emoji and Persian words: behind a character that is not ASCII."""


def is_hidden(character: str) -> bool:
    """Does a character show nothing, break a line, change the direction of a text, or command a terminal?"""
    if unicodedata.category(character) in _HIDDEN_CATEGORIES:
        return _VISIBLE.match(character) is None
    return _INVISIBLE.match(character) is not None


def escaped(text: str) -> str:
    r"""The text with each hidden character as `\uXXXX`, for a line of a terminal or a log. JSON stays equal JSON.

    A text from outside cannot end its line, forge another one, or command the terminal.
    """
    if text.isprintable() and _INVISIBLE.search(text) is None:
        return text
    return "".join(_escape(character) if is_hidden(character) else character for character in text)


def _escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def did_you_mean(name: str, present: Collection[str]) -> str:
    """The name among those that are there which was likely meant, for the end of a message; "" if none is near."""
    close = difflib.get_close_matches(name, sorted(set(present) - {name})[:COMPARED_MAX], n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def listed(names: Collection[str]) -> str:
    """The first few names in order, and how many more there are."""
    more = f" and {len(names) - LISTED_MAX} more" if len(names) > LISTED_MAX else ""
    return ", ".join(sorted(names)[:LISTED_MAX]) + more


def _refuse_unprintable(kind: str, name: str) -> None:
    for character in name:
        if unicodedata.category(character) in _REFUSED_CATEGORIES:
            raise InvalidName(
                f"{kind} {name!r} contains the unprintable character U+{ord(character):04X}",
                hint="use printable characters only",
            )


def check_branch(name: str) -> str:
    """Return the name if it may be a branch: 1 to 200 printable characters; else raise InvalidName."""
    if not isinstance(name, str):
        raise InvalidName(f"a branch name must be a string, not {type(name).__name__}")
    if not 1 <= len(name) <= BRANCH_CHARS_MAX:
        raise InvalidName(
            f"a branch name must have 1 to {BRANCH_CHARS_MAX} characters, this one has {len(name)}",
            hint="shorten the name" if name else "give the branch a name",
        )
    _refuse_unprintable("branch name", name)
    if name != name.strip():
        raise InvalidName(f"branch name {name!r} begins or ends with a space", hint="strip the name")
    return name


def check_named_branch(name: str) -> str:
    """Return the name if there may be a branch of it, else raise UnknownBranch, with what is wrong with the name."""
    try:
        return check_branch(name)
    except InvalidName as error:
        raise UnknownBranch(f"there is no branch {name!r}: {error.message}", hint=error.hint) from error


def check_new_branch(name: str) -> str:
    """Return the name if it may be a new branch, else raise InvalidName: `check_branch`, and nothing is hidden in it.

    Invisible characters would make two branches look alike. Branches of older versions with such names stay.
    """
    check_branch(name)
    hidden = next(filter(is_hidden, _JOINERS.sub("", name)), None)
    if hidden is not None:
        raise InvalidName(
            f"branch name '{escaped(name)}' contains the invisible character U+{ord(hidden):04X}",
            hint="leave it out: another name would look the same",
        )
    return name


def check_resource_type(name: str) -> str:
    """Return the name if it may be a resource type: 1 to 100 printable characters; else raise InvalidName."""
    if not isinstance(name, str):
        raise InvalidName(f"a resource type must be a string, not {type(name).__name__}")
    return _checked_type(name)


@lru_cache(maxsize=1024)
def _checked_type(name: str) -> str:
    """Cached: every change names its type, and there are few types."""
    if not 1 <= len(name) <= RESOURCE_TYPE_CHARS_MAX:
        raise InvalidName(f"a resource type must have 1 to {RESOURCE_TYPE_CHARS_MAX} characters, not {len(name)}")
    _refuse_unprintable("resource type", name)
    return name


def check_id(id: str) -> bytes:
    """Return the UTF-8 bytes of a record id of 1 to 2,000 bytes without NUL; else raise InvalidName."""
    if not isinstance(id, str):
        raise InvalidName(f"a record id must be a string, not {type(id).__name__}")
    try:
        data = id.encode()
    except UnicodeEncodeError as error:
        raise InvalidName(f"record id {id[:50]!r} is not valid Unicode", hint="remove lone surrogates") from error
    if not 1 <= len(data) <= ID_BYTES_MAX:
        raise InvalidName(
            f"a record id must have 1 to {ID_BYTES_MAX} bytes in UTF-8, this one has {len(data)}",
            hint="shorten the id, or keep the long form in a field",
        )
    if b"\0" in data:
        raise InvalidName(f"record id {id[:50]!r} contains a NUL character", hint="remove it")
    return data


def index_named(text: str, index_type: str = "SEARCH_INDEX") -> tuple[str, str]:
    """The branch and the index type of `branch:INDEX_TYPE`; without a type behind a colon, `index_type` of that branch.

    The name of a branch may have colons.
    """
    branch, colon, named = text.rpartition(":")
    return (branch, named) if colon and _INDEX_TYPE.fullmatch(named) else (text, index_type)


def check_index_type(name: str) -> str:
    """Return the name if it may be an index type (capital letters, digits, underscore); else raise InvalidName."""
    if not isinstance(name, str) or not _INDEX_TYPE.fullmatch(name):
        raise InvalidName(
            f"index type {name!r} is not 1 to 64 capital letters, digits or underscores",
            hint="for example SEARCH_INDEX",
        )
    return name


def directory_name(name: str) -> str:
    """The directory name: percent-encoded UTF-8; a long one is cut and ends with `~` and a 128-bit hash.

    Capital letters are encoded too: names that differ in case stay different on file systems that ignore case.
    """
    encoded = "".join(chr(byte) if byte in _SAFE else f"%{byte:02X}" for byte in name.encode())
    if len(encoded) <= _DIRECTORY_CHARS_MAX:
        return encoded
    cut = encoded[:100]
    if "%" in cut[-2:]:
        cut = cut[: cut.rindex("%")]
    return f"{cut}~{blake2b(name.encode(), digest_size=16).hexdigest()}"
