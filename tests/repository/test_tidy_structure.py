"""The shape of the source, as tests: folders, imports, and prose that names existing modules. See `test_tidy`."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import PurePosixPath

import pytest

from shadowswitch import Engine
from tests.repository.test_tidy import FACADE, LAYERS, ROOT, files, imports, none_of, python_files, text_of, tree_of

FILES_MAX = 13
"""Python files in a folder, without `__init__.py`: about a dozen, so that a reader sees them at one look."""
HISTORY = ("docs/decisions/", "CHANGELOG.md", "benchmarks/RESULTS.md", "tests/test_tidy")
"""Texts about the past, or about words. They may name modules that are gone."""


def module_of(name: str) -> str:
    """`storage/clock.py` is installed as `shadowswitch.storage.clock`."""
    return "shadowswitch." + name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def product_files() -> list[str]:
    return [name for name in python_files(*LAYERS) if not name.startswith(FACADE)]


def test_a_folder_is_taken_in_at_one_look() -> None:
    folders: dict[str, int] = defaultdict(int)
    for name in product_files():
        folders[str(PurePosixPath(name).parent)] += not name.endswith("__init__.py")
    offenders = [f"{folder}: {count} files" for folder, count in folders.items() if count > FILES_MAX]
    none_of(offenders, f"a folder of more than {FILES_MAX} files is usually two; draw its parts and split it:")


def _graph() -> dict[str, set[str]]:
    """The files that each file imports, also for types only."""
    modules = {module_of(name): name for name in product_files()}
    graph: dict[str, set[str]] = {name: set() for name in modules.values()}
    for name in modules.values():
        for _, target in imports(name):
            found = modules.get(target) or modules.get(target.rpartition(".")[0])
            if found is not None and found != name:
                graph[name].add(found)
    return graph


def _circles(graph: dict[str, set[str]]) -> Iterator[list[str]]:
    """Strongly connected components of more than one file (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []

    def visit(node: str) -> Iterator[list[str]]:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in graph[node]:
            if other not in index:
                yield from visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            circle = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(circle) > 1:
                yield sorted(circle)

    for node in graph:
        if node not in index:
            yield from visit(node)


def test_no_two_files_import_each_other_directly_or_by_others() -> None:
    offenders = [" <-> ".join(circle) for circle in _circles(_graph())]
    none_of(offenders, "files in a circle can only be read together; pass a callable, or move the shared part:")


def _prose(name: str) -> Iterator[tuple[int, str]]:
    """Lines of a document, and of the docstrings and comments of a module."""
    lines = text_of(name).splitlines()
    if name.endswith(".md"):
        yield from enumerate(lines, 1)
        return
    for node in ast.walk(tree_of(name)):
        value = node.value if isinstance(node, ast.Expr) else None
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            yield from ((number, lines[number - 1]) for number in range(value.lineno, (value.end_lineno or 0) + 1))
    yield from ((number, line) for number, line in enumerate(lines, 1) if line.lstrip().startswith("#"))


def _with_prose() -> list[str]:
    return [n for n in files() if n.endswith((".py", ".md")) and not n.startswith(HISTORY)]


def _names_something(mentioned: str) -> bool:
    """Is a dotted name a module, a package, or a name within one?"""
    parts = mentioned.split(".")
    for length in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:length])
        if path.with_suffix(".py").is_file():
            defined = text_of("/".join(parts[:length]) + ".py")
            return all(re.search(rf"\b{re.escape(part)}\b", defined) for part in parts[length:])
        if path.is_dir() and length == len(parts):
            return True
    return False


def _is_call(mentioned: str) -> bool:
    """`engine.write` is a call of an object `engine`."""
    return mentioned.startswith("engine.") and hasattr(Engine, mentioned.split(".")[1])


def test_prose_names_modules_that_are_there() -> None:
    layers = "|".join(LAYERS)
    dotted = re.compile(rf"`((?:{layers})\.[a-z_0-9]+(?:\.[A-Za-z_0-9]+)*)`")
    path = re.compile(rf"\b((?:{layers}|tests|benchmarks)/[\w/]+\.(?:py|md))\b")
    offenders = []
    for name in _with_prose():
        for number, line in _prose(name):
            gone = [found for found in dotted.findall(line) if not _names_something(found) and not _is_call(found)]
            gone += [found for found in path.findall(line) if not (ROOT / found).is_file()]
            offenders += [f"{name}:{number}: {found}" for found in gone]
    none_of(offenders, "a reader follows the name and finds no module:")


LINE_CHARS = 78
"""A line of prose that has room for the next word below this width was broken by an edit."""
NOT_PROSE = re.compile(r"[-*+]\s|---|[#|>!<]|\[+[\w.]+\]+$|\d+\.\s|\w+ = |\"{3}$|\S.*(   |\||-->)")
"""The beginning of an item of a list, a heading, a row of a table, a setting, the end of a docstring; a drawing."""

Line = tuple[int, str]


def _runs(lines: Iterable[Line], indent: int) -> Iterator[list[Line]]:
    """Paragraphs: adjacent lines at exactly this indentation, without lists, tables and lines indented below them."""
    run: list[Line] = []
    for number, line in lines:
        text = line[indent:]
        own = bool(text.strip()) and not line[:indent].strip() and not text[0].isspace()
        listed = own and NOT_PROSE.match(text) is not None
        if own and not listed and (not run or run[-1][0] == number - 1):
            run.append((number, line))
            continue
        yield run
        run = [(number, line)] if own and not listed else []
    yield run


def _unfenced(lines: Iterable[Line]) -> Iterator[Line]:
    """The lines of a document outside its fenced blocks."""
    fenced = False
    for number, line in lines:
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced:
            yield number, line


def _paragraphs(name: str) -> Iterator[list[Line]]:
    """Paragraphs of a document; those of docstrings at the indentation of the docstring; adjacent comments."""
    lines = text_of(name).splitlines()
    if name.endswith(".md"):
        yield from _runs(_unfenced(enumerate(lines, 1)), 0)
        return
    for node in ast.walk(tree_of(name)):
        value = node.value if isinstance(node, ast.Expr) else None
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            last = value.end_lineno or value.lineno
            numbered = [(number, lines[number - 1]) for number in range(value.lineno, last + 1)]
            indent = value.col_offset
            yield from _runs(numbered, indent)
    comments = [(number, line) for number, line in enumerate(lines, 1) if line.lstrip().startswith("# ")]
    for indent in {line.index("#") for _, line in comments}:
        yield from _runs(((n, line.replace("# ", "  ", 1)) for n, line in comments), indent + 2)


def _broken_early(run: list[Line]) -> Iterator[Line]:
    """The lines of a paragraph that had room for the first word of the next line, and end no sentence."""
    for (number, line), (_, following) in pairwise(run):
        text = line.rstrip()
        if (
            not text.endswith((".", ":", ";", "?", "!", ".)"))
            and len(text) + 1 + len(following.split()[0]) <= LINE_CHARS
        ):
            yield number, text


def test_a_line_is_not_broken_before_it_is_full() -> None:
    """A short line in the middle of a paragraph is the trace of an edit."""
    offenders = [
        f"{name}:{number}: {text.strip()[:80]}"
        for name in _with_prose()
        for run in _paragraphs(name)
        for number, text in _broken_early(run)
    ]
    none_of(offenders, "fill the line, or end the sentence there:")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A sentence that was\nbroken in its middle.", 1),
        ("A sentence.\nAnother sentence, at a line of its own.", 0),
        ("- an item\nof a list", 0),
        ("    indented\n    code", 0),
        ("| a table\n| of rows", 0),
        ("```\nfenced\ncode\n```", 0),
    ],
)
def test_a_broken_line_is_seen_in_paragraphs_only(text: str, found: int) -> None:
    runs = _runs(_unfenced(enumerate(text.splitlines(), 1)), 0)
    assert sum(len(list(_broken_early(run))) for run in runs) == found
