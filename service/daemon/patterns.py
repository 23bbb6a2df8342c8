"""The patterns of `.gitignore`, read as git reads them. The time of a match is linear in the length of the path.

    *.log   !keep.log   build/   /top.txt   docs/**/draft-?.md   [Tt]humbs.db

A pattern becomes a regular expression without backtracking over stars: the part between two stars is an atomic group
that keeps its first match. That is enough, because the next star takes any rest. The length and the depth of a pattern
are bounded: a pattern is content of any author, and a match holds the interpreter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

CHARS_MAX = 1000
SLASHES_MAX = 40
"""A longer or deeper pattern is invalid."""
STAR, GLOBSTAR, SLASH = "*", "**", "/"
NAME = "[^/]"
FOLDERS = "(?:[^/]++/)"
_POSIX = {
    "alnum": "0-9A-Za-z", "alpha": "A-Za-z", "blank": r" \t", "cntrl": r"\x00-\x1f\x7f", "digit": "0-9",
    "graph": "!-~", "lower": "a-z", "print": " -~", "punct": r"!-/:-@\[-`{-~", "space": r"\t-\r ", "upper": "A-Z",
    "xdigit": "0-9A-Fa-f",
}  # fmt: skip


class Pattern:
    """One pattern. `includes` marks a pattern that begins with `!`: it includes again what an earlier one ignores."""

    def __init__(self, line: str) -> None:
        """Raises ValueError for an invalid pattern."""
        self.includes = line.startswith("!")
        text = line[self.includes :]
        self.folders_only = text.endswith("/")
        text = text.removesuffix("/")
        self._whole_path = "/" in text
        if not line[self.includes :]:
            raise ValueError(f"invalid pattern {line!r}: it is empty")
        if len(line) > CHARS_MAX or line.count("/") > SLASHES_MAX:
            raise ValueError(
                f"invalid pattern {line!r:.80}: it has more than {CHARS_MAX} characters or {SLASHES_MAX} names"
            )
        try:
            self._matches = re.compile(_expression(_tokens(text.removeprefix("/"))), re.DOTALL).match
        except LookupError:
            reason = "it ends after a backslash or within a [class], or names an unknown [:class:]"
            raise ValueError(f"invalid pattern {line!r:.80}: {reason}") from None

    def matches(self, path: str, is_folder: bool) -> bool:
        """Does the pattern match an entry with this relative path?"""
        if self.folders_only and not is_folder:
            return False
        return self._matches(f"{path if self._whole_path else path[path.rfind('/') + 1 :]}/") is not None


@lru_cache(maxsize=4096)
def pattern(line: str) -> Pattern | None:
    """The pattern of a line; None for a comment or an empty line. Raises ValueError for an invalid pattern."""
    text = line.removesuffix("\r")
    if text.startswith("#"):
        return None
    kept = text.rstrip(" ")
    escapes = len(kept) - len(kept.rstrip("\\"))
    if escapes % 2 and kept != text:  # an escaped space at the end belongs to the pattern
        kept += " "
    return Pattern(kept) if kept else None


def verdict(patterns: Iterable[Pattern], path: str, is_folder: bool) -> bool | None:
    """True: ignored; False: included again by a `!` pattern; None: no pattern matches. The last pattern comes first."""
    return next((not one.includes for one in patterns if one.matches(path, is_folder)), None)


def _tokens(text: str) -> Iterator[str]:
    """The pieces of a pattern as regular expressions, each for one character, and STAR, GLOBSTAR, SLASH."""
    position = 0
    while position < len(text):
        character = text[position]
        end = position + 1
        if character == "*":
            while text[end : end + 1] == "*":
                end += 1
            alone = text[position - 1 : position] in ("", "/") and text[end : end + 1] in ("", "/")
            yield GLOBSTAR if alone and end > position + 1 else STAR
        elif character == "?":
            yield NAME
        elif character == "[":
            expression, end = _class(text, end)
            yield expression
        elif character == "/":
            yield SLASH
        else:
            end += character == "\\"
            literal = text[end - 1]
            yield SLASH if literal == "/" else re.escape(literal)
        position = end


def _class(text: str, position: int) -> tuple[str, int]:
    """The expression of a class, and its end. No class matches a slash. Raises LookupError for an invalid class."""
    negated = text[position] in "!^"
    position += negated
    members: list[str] = []
    first = True
    while first or text[position] != "]":
        first = False
        named = re.compile(r"\[:(\w*):\]").match(text, position)
        if named:
            members.append(_POSIX[named[1]])
            position = named.end()
            continue
        position += text[position] == "\\"
        low = high = text[position]
        position += 1
        if text[position] == "-" and text[position + 1] != "]":
            position += 1 + (text[position + 1] == "\\")
            high = text[position]
            position += 1
        if low <= high:
            members.append(f"{re.escape(low)}-{re.escape(high)}")
    inner = "".join(members)
    if negated:
        return f"[^/{inner}]", position + 1
    return f"(?!/)[{inner}]" if inner else "(?!)", position + 1


def _expression(tokens: Iterable[str]) -> str:
    """The expression of a whole pattern. It matches a path with a slash behind each name."""
    groups: list[list[str]] = [[]]  # between two GLOBSTARs, the names in order
    name: list[str] = []
    previous = ""
    for token in (*tokens, SLASH):
        if token == GLOBSTAR:
            groups.append([])
        elif token != SLASH:
            name.append(token)
        elif previous != GLOBSTAR:
            groups[-1].append(_name(name) if name else "(?!)")  # no path has an empty name
            name = []
        previous = token
    inner = [group for group in groups[1:-1] if group]
    parts = [*groups[0], *(f"(?>{FOLDERS}*?{''.join(group)})" for group in inner)]
    if len(groups) > 1:
        parts += [f"{FOLDERS}*?", *groups[-1]] if groups[-1] else [f"{FOLDERS}+"]
    return "".join(parts) + r"\Z"


def _name(tokens: list[str]) -> str:
    """The expression of one name and its slash."""
    pieces: list[str] = [""]
    for token in tokens:
        if token == STAR:
            pieces.append("")
        else:
            pieces[-1] += token
    if len(pieces) == 1:
        return f"{pieces[0]}/"
    inner = "".join(f"(?>{NAME}*?{piece})" for piece in pieces[1:-1] if piece)
    return f"(?>{pieces[0]}{inner}{NAME}*{pieces[-1]}/)"
