"""The public signatures are a promise: `signatures.txt` has each, with the first line of its docstring."""

from __future__ import annotations

import enum
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import shadowswitch

KEPT = Path(__file__).with_name("signatures.txt")
RENEW = "python -m tests.engine.test_signatures"


def signatures() -> str:
    """Every public name with its signature, its public methods and properties, and the first line of each docstring."""
    return "\n".join(line for name in shadowswitch.__all__ for line in _lines(name, getattr(shadowswitch, name))) + "\n"


def _lines(name: str, thing: Any) -> Iterator[str]:
    if inspect.isfunction(thing):
        yield f"{name}{_signature(thing)}"
        yield f"    # {_first_line(thing)}"
        return
    kind = next((base.__name__ for base in thing.__mro__[1:-1] if not base.__module__.startswith("shadowswitch")), "")
    if issubclass(thing, enum.Enum):
        yield f"{name}: {kind} of {', '.join(thing.__members__)}"
    else:
        yield f"{name}{_signature(thing)}" + (f": {kind}" if kind else "")
    yield f"    # {_first_line(thing)}"
    for member in sorted(set(dir(thing))):
        owner = next((base for base in thing.__mro__ if member in vars(base)), None)
        if member.startswith("_") or owner is None or not owner.__module__.startswith("shadowswitch"):
            continue
        static, value = inspect.getattr_static(thing, member), getattr(thing, member)
        if isinstance(static, property):
            yield f"  {name}.{member}: {inspect.signature(static.fget).return_annotation}"  # type: ignore[arg-type]
        elif inspect.isroutine(value):
            yield f"  {name}.{member}{_signature(value)}"
        else:
            continue
        yield f"    # {_first_line(static)}"


def _signature(thing: Any) -> str:
    """The signature, without the modules of the library's types and the memory addresses of defaults."""
    return re.sub(r"shadowswitch\.[a-z_.]+\.| at 0x[0-9a-f]+", "", str(inspect.signature(thing)))


def _first_line(thing: Any) -> str:
    return (inspect.getdoc(thing) or "").partition("\n")[0]


def test_the_public_signatures_equal_the_stored_ones() -> None:
    assert signatures() == KEPT.read_text(encoding="utf-8"), f"if the change is intended, renew the file: {RENEW}"


if __name__ == "__main__":
    KEPT.write_text(signatures(), encoding="utf-8")
