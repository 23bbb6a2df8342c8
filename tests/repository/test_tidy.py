"""The style of this project, as tests. Each failure says why the rule exists; a better idea may change the rule."""

from __future__ import annotations

import ast
import re
import socket
import subprocess
import warnings
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAYERS = ("model", "storage", "actors", "engine", "service")
"""From the lowest layer up: a layer imports itself and the layers before it."""

FACADE = "engine/public"
FOLDER_FILES_MAX = 13
FILE_LINES_SOFT, FILE_LINES_MAX, FUNCTION_LINES_MAX = 300, 400, 60
IMPURE = {"asyncio", "lmdb", "multiprocessing", "os", "pathlib", "random", "shutil", "socket", "sqlite3", "subprocess"}
IMPURE |= {"tempfile", "threading", "time"}
CLOCK_COMES = ("storage/generations/generation.py",)
"""Modules that do not use the clock of their catalog yet."""
Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def files() -> tuple[str, ...]:
    """Every file that is tracked or will be; in a tree without git, every file of the tree."""
    try:
        command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        everything = (path.relative_to(ROOT) for path in ROOT.rglob("*"))
        hidden = re.compile(r"\.venv|\.git$|\..*_cache|build|dist|__pycache__|.*\.egg-info")
        shown = (path for path in everything if not hidden.match(path.parts[0]) and "__pycache__" not in path.parts)
        listed = [str(path) for path in shown]  # `actors/build` is source, not a build
    return tuple(sorted(name for name in set(listed) if (ROOT / name).is_file()))


@cache
def text_of(name: str) -> str:
    try:
        return (ROOT / name).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


def python_files(*folders: str) -> list[str]:
    return [f for f in files() if f.endswith(".py") and (not folders or f.split("/")[0] in folders)]


@cache
def tree_of(name: str) -> ast.Module:
    return ast.parse(text_of(name), filename=name)


def functions(name: str) -> Iterator[Function]:
    return (node for node in ast.walk(tree_of(name)) if isinstance(node, Function))


def imports(name: str) -> Iterator[tuple[int, str]]:
    """Line and full name of everything that a file imports, also inside functions."""
    for node in ast.walk(tree_of(name)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{source}.{alias.name}") for alias in node.names)


def lines_matching(names: list[str] | tuple[str, ...], pattern: str) -> list[str]:
    found = re.compile(pattern)
    return [
        f"{name}:{number}: {line.strip()[:100]}"
        for name in names
        for number, line in enumerate(text_of(name).splitlines(), 1)
        if found.search(line)
    ]


def none_of(offenders: list[str], reason: str) -> None:
    assert not offenders, f"{reason}\n  " + "\n  ".join(offenders)


def test_a_file_can_be_read_in_one_sitting() -> None:
    sizes = {name: text_of(name).count("\n") for name in python_files()}
    for name, size in sizes.items():
        if FILE_LINES_SOFT < size <= FILE_LINES_MAX:
            warnings.warn(f"{name} has {size} lines; past {FILE_LINES_SOFT} look for a second noun in it", stacklevel=1)
    offenders = [f"{name}: {size} lines" for name, size in sizes.items() if size > FILE_LINES_MAX]
    none_of(offenders, "a file is one part of the machine; one this long is usually two parts. Split it by noun:")


def test_a_function_fits_on_a_screen() -> None:
    offenders = [
        f"{name}:{node.lineno}: {node.name} has {size} lines"
        for name in python_files()
        for node in functions(name)
        if (size := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LINES_MAX
    ]
    none_of(offenders, "a reader cannot check a function longer than a screen. Name its steps and make them functions:")


def test_a_folder_of_storage_or_model_is_seen_at_a_glance() -> None:
    folders = Counter(str(Path(name).parent) for name in python_files("storage", "model") if "__init__" not in name)
    offenders = [f"{folder}: {count} files" for folder, count in folders.items() if count > FOLDER_FILES_MAX]
    none_of(offenders, "a folder is one part; more files than these are usually two parts. Split it by noun:")


def test_imports_are_absolute_and_in_the_installed_form() -> None:
    offenders = [
        f"{name}:{line}: {target}"
        for name in python_files()
        for line, target in imports(name)
        if target.startswith(".") or target.split(".")[0] in LAYERS
    ]
    none_of(
        offenders, "only `shadowswitch.<folder>` exists once installed, and a search finds every use of one spelling:"
    )


def test_imports_only_go_down() -> None:
    offenders = []
    for name in python_files(*LAYERS):
        if name.startswith(FACADE):
            continue
        below = LAYERS[: LAYERS.index(name.split("/")[0]) + 1]
        for line, target in imports(name):
            parts = target.split(".")
            if parts[0] == "shadowswitch" and parts[1:2] and parts[1] in LAYERS and parts[1] not in below:
                offenders.append(f"{name}:{line}: {target}")
    order = " > ".join(reversed(LAYERS))
    none_of(offenders, f"imports go down {order}; one that goes up makes the lower part untestable on its own:")


def test_nothing_inside_imports_the_facade() -> None:
    offenders = [
        f"{name}:{line}: {target}"
        for name in python_files(*LAYERS)
        if not name.startswith(FACADE)
        for line, target in imports(name)
        if target == "shadowswitch" or (target.startswith("shadowswitch.") and target.split(".")[1] not in LAYERS)
    ]
    none_of(offenders, "the facade imports everything, so importing it from inside is a circle; name the module:")


def test_the_model_is_pure() -> None:
    offenders = [
        f"{n}:{line}: {t}" for n in python_files("model") for line, t in imports(n) if t.split(".")[0] in IMPURE
    ]
    offenders += lines_matching(python_files("model"), r"\.(utc)?now\(|\btoday\(")
    none_of(offenders, "the rules can be tested by calling functions only while they own no thread, file or clock:")


def test_actors_use_the_clock_that_they_are_given() -> None:
    found = lines_matching(python_files("actors"), r"\btime\.(monotonic|time|sleep)\(|\b(datetime|date)\.(now|today)\(")
    none_of(found, "a test moves the clock of the engine (storage/clock.py); it cannot move that of a module:")


def test_storage_takes_the_time_from_its_clock() -> None:
    names = [name for name in python_files("storage") if name not in ("storage/clock.py", *CLOCK_COMES)]
    offenders = [f"{n}:{line}: {t}" for n in names for line, t in imports(n) if t.split(".")[0] == "time"]
    none_of(offenders, "a test replaces the clock of a catalog; a module that asks the system for the time escapes it:")


def test_nothing_is_left_for_later() -> None:
    names = [name for name in files() if name != "tests/repository/test_tidy.py"]
    none_of(lines_matching(names, r"\b(TODO|FIXME)\b"), "finish it, or open an issue, where others see it:")


def test_tests_wait_for_events_and_do_not_sleep() -> None:
    names = [name for name in python_files("tests") if name != "tests/repository/test_tidy.py"]
    offenders = lines_matching(names, r"\btime\.sleep\(|from time import .*\bsleep\b")
    none_of(offenders, "a sleep is too short on a busy machine and too long on every other; wait for the event:")


DOOR = tuple(f"tests/support/{name}.py" for name in ("inside", "interventions", "places", "running"))
"""Of all tests only these files use the insides of the product, beside the simulation."""

SIMULATION = "tests/simulation/"
"""The simulation replaces threads and clocks in every module: its `seams` go inside as well."""


def _opens_an_engine(node: ast.AST | None) -> bool:
    """Is a node a call of `Engine.open`, or of a helper with such a name?"""
    return isinstance(node, ast.Call) and ast.unparse(node.func) in ("Engine.open", "open_engine", "start")


def _engines(tree: ast.Module) -> set[str]:
    """The names of engines in a file, found by annotation, by assignment, or by a usual name."""
    names = {"engine", "self.engine"}
    for node in ast.walk(tree):
        if isinstance(node, ast.arg) and node.annotation is not None and ast.unparse(node.annotation) == "Engine":
            names.add(node.arg)
        elif isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) == "Engine":
            names.add(ast.unparse(node.target))
        elif isinstance(node, ast.Assign) and _opens_an_engine(node.value):
            names |= {ast.unparse(target) for target in node.targets}
        elif isinstance(node, ast.withitem) and node.optional_vars and _opens_an_engine(node.context_expr):
            names.add(ast.unparse(node.optional_vars))
    return names


def _insides(tree: ast.Module) -> set[str]:
    """The names of a file that lead inside: imported from below the facade, or assigned from a call of `inside`."""
    names = {"inside"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            below = (node.module or "").startswith("shadowswitch.")
            of = node.names if below else [a for a in node.names if node.module == "shadowswitch" and a.name in LAYERS]
            names |= {alias.asname or alias.name for alias in of}
        elif isinstance(node, ast.Import) and any(alias.name.startswith("shadowswitch.") for alias in node.names):
            names |= {alias.asname or "shadowswitch" for alias in node.names if alias.name.startswith("shadowswitch.")}
        elif isinstance(node, ast.Assign) and ast.unparse(node.value).startswith("inside."):
            names |= {ast.unparse(target) for target in node.targets}
    return names


def _patches_inside(node: ast.AST, insides: set[str]) -> bool:
    """Is a node a `setattr` of monkeypatch that leads inside, also by a dotted name in a string?"""
    if not isinstance(node, ast.Call) or not node.args or not ast.unparse(node.func).endswith(".setattr"):
        return False
    if isinstance(node.args[0], ast.Constant):
        return str(node.args[0].value).startswith("shadowswitch.")
    return any(isinstance(part, ast.Name) and part.id in insides for part in ast.walk(node.args[0]))


def _beside_inside(tree: ast.Module) -> Iterator[ast.expr]:
    engines, insides = _engines(tree), _insides(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            private = node.attr.startswith("_") and not node.attr.startswith("__")
            if node.attr == "_lifecycle" or (private and ast.unparse(node.value) in engines):
                yield node
        elif isinstance(node, ast.Call) and _patches_inside(node, insides):
            yield node


def test_tests_go_inside_by_one_module() -> None:
    offenders = [
        f"{name}:{node.lineno}: {ast.unparse(node)[:100]}"
        for name in python_files("tests")
        if name not in DOOR and not name.startswith(SIMULATION)
        for node in _beside_inside(tree_of(name))
    ]
    none_of(offenders, "a test that knows the product's inside breaks when that moves; use tests.support.inside:")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("def f(some: Engine): some._room", 1),
        ("host = Engine.open(path)\nhost._readers.clear()", 1),
        ("parts = anything._lifecycle", 1),
        ("from shadowswitch.actors import context\nmonkeypatch.setattr(context, 'REST_S', 1)", 1),
        ("from shadowswitch.actors.context import EngineContext\npatched.setattr(EngineContext, 'head', None)", 1),
        ("monkeypatch.setattr('shadowswitch.actors.context.REST_S', 1)", 1),
        ("g = inside.live(engine)\npatched.setattr(g.writer, 'digest', None)", 1),
        ("from shadowswitch import Engine\nmonkeypatch.setattr(Engine, 'switch', None)", 0),
        ("import socket\nmonkeypatch.setattr(socket, 'getaddrinfo', None)", 0),
        ("def f(engine: Engine): engine.head('main')", 0),
    ],
)
def test_a_use_of_the_insides_beside_inside_is_seen(text: str, found: int) -> None:
    assert len(list(_beside_inside(ast.parse(text)))) == found


def _is_time_span(node: ast.expr) -> bool:
    words = (part.attr if isinstance(part, ast.Attribute) else getattr(part, "id", "") for part in ast.walk(node))
    return any(re.search(r"(^|_)(elapsed|duration|took|perf_counter)(_|$)|^sealed_ms$", word) for word in words)


def _bounds_a_duration(node: ast.AST) -> bool:
    """Does a node compare the order of a measured time? Against 0 it may: that says only that a time was measured."""
    if not isinstance(node, ast.Compare) or not any(
        isinstance(op, ast.Lt | ast.LtE | ast.Gt | ast.GtE) for op in node.ops
    ):
        return False
    sides = (node.left, *node.comparators)
    return any(map(_is_time_span, sides)) and not any(isinstance(s, ast.Constant) and s.value == 0 for s in sides)


def test_no_test_asserts_a_duration() -> None:
    offenders = [
        f"{name}:{node.lineno}: {ast.unparse(node)[:100]}"
        for name in python_files("tests")
        for node in ast.walk(tree_of(name))
        if isinstance(node, ast.Assert) and any(map(_bounds_a_duration, ast.walk(node.test)))
    ]
    none_of(offenders, "a bound on a duration fails on a slow machine and proves nothing; measure it in benchmarks/:")


def test_every_public_name_has_a_docstring() -> None:
    offenders = [
        f"{name}:{node.lineno}: {node.name}"
        for name in python_files("engine", "storage", "actors", "model")
        for node in tree_of(name).body
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_") and not ast.get_docstring(node)
    ]
    offenders += [f"{name}:1: the module" for name in python_files(*LAYERS) if not ast.get_docstring(tree_of(name))]
    none_of(
        offenders, "say what it promises, its limit, its thread; or begin the name with _ if no other module calls it:"
    )


def _ruff_order(name: str) -> tuple[int, str]:
    """The order that ruff's RUF022 demands: constants, classes, then the rest."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


def test_the_facade_lists_exactly_its_public_names_in_order() -> None:
    module = tree_of(f"{FACADE}/__init__.py")
    assigned = {
        target.id: node.value
        for node in module.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    if "__all__" not in assigned:
        pytest.skip("the facade does not exist yet")
    listed = ast.literal_eval(assigned["__all__"])
    imported = {
        alias.asname or alias.name
        for node in ast.walk(module)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("shadowswitch.")
        for alias in node.names
    }
    defined = {node.name for node in module.body if isinstance(node, Function | ast.ClassDef)} | assigned.keys()
    offered = {name for name in imported | defined if not name.startswith("_")}
    assert set(listed) - {"__version__"} == offered, "__all__ is the promise to users: every public name, and no other"
    assert list(listed) == sorted(listed, key=_ruff_order), "sorted, so that two branches that add names do not collide"


def test_no_file_knows_the_machine_it_was_written_on() -> None:
    names = [name for name in files() if name != "tests/repository/test_tidy.py"]
    offenders = lines_matching(names, r"(?<![\w.~$}])/(root|work|home)/\w|\b(extra-)?index-url\b")
    offenders += lines_matching(names, r"\b(10\.\d+|192\.168|172\.(1[6-9]|2\d|3[01]))\.\d+\.\d+\b")
    host = socket.gethostname()
    if len(host) >= 8 and re.search(r"\d", host):
        offenders += lines_matching(names, rf"\b{re.escape(host)}\b")
    none_of(offenders, "a path, a host or a package index of one machine is wrong on every other:")


def _invariants() -> dict[str, str]:
    """The registry, read without importing it: the mapping's literal keys and values."""
    name = "model/invariants.py"
    if not (ROOT / name).exists():
        pytest.skip("no registry of invariants yet")
    (table,) = (node for node in ast.walk(tree_of(name)) if isinstance(node, ast.Dict))
    return dict(ast.literal_eval(table))


def test_every_invariant_is_cited_where_it_is_kept_or_checked() -> None:
    everything = "\n".join(text_of(name) for name in python_files() if name != "model/invariants.py")
    offenders = [f"{id}: {says}" for id, says in _invariants().items() if not re.search(rf"\b{id}\b", everything)]
    none_of(offenders, "no code and no test names the invariant; cite it where it is kept or checked:")


def test_every_cited_invariant_exists() -> None:
    known = _invariants()
    prefixes = "|".join(sorted({id.partition("-")[0] for id in known}))
    names = [name for name in files() if name.endswith((".py", ".md"))]
    offenders = [
        f"{name}: {id}"
        for name in names
        for id in re.findall(rf"\b(?:{prefixes})-\d+\b", text_of(name))
        if id not in known
    ]
    none_of(offenders, "cited, but not in model/invariants.py:")


def test_the_readme_says_how_to_see_it_run_and_how_to_test_it() -> None:
    readme = text_of("README.md")
    missing = [f"README.md: no `{command}`" for command in ("make demo", "make test") if command not in readme]
    none_of(missing, "a newcomer tries the library first:")
