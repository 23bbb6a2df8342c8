"""The wheel of a user: built from a copy of the tree, installed into an empty environment."""

from __future__ import annotations

import csv
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("engine", "actors", "storage", "model", "service")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME"}}
    return subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )


def run_well(*command: str | Path, cwd: Path) -> str:
    result = run(*command, cwd=cwd)
    assert result.returncode == 0, f"{' '.join(map(str, command))}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def installed_name(source: Path) -> str:
    """The path of a file of the repository in site-packages."""
    parts = source.relative_to(ROOT).parts
    inside = parts[2:] if parts[:2] == ("engine", "public") else parts
    return "/".join(("shadowswitch", *inside))


def source_files() -> dict[str, Path]:
    """The files of the library. The README of a folder is for readers of the repository, and is not installed."""
    found = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file())
    library = (path for path in found if path.suffix not in (".pyc", ".md") and not path.name.startswith("."))
    return {installed_name(path): path for path in library}


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build in a copy: setuptools leaves `build/` and an egg-info behind, and ships the files of an old build."""
    tree = tmp_path_factory.mktemp("tree")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, tree / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree / name)
    run_well(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tree / "dist", tree, cwd=tree)
    (built,) = (tree / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def user(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of an environment that has only the wheel and its requirements."""
    place = tmp_path_factory.mktemp("user")
    venv.create(place / "env", with_pip=False, symlinks=True)
    python = place / "env" / "bin" / "python"
    run_well(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-input", wheel, cwd=place)
    return python.parent


def test_every_package_folder_is_listed_in_pyproject(project: dict[str, Any]) -> None:
    packages = {
        path.parent.relative_to(ROOT).as_posix(): installed_name(path).rpartition("/")[0].replace("/", ".")
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("__init__.py")
    }
    setuptools = project["tool"]["setuptools"]
    mapped = {folder: name for name, folder in setuptools["package-dir"].items()}
    assert mapped == packages, "an unlisted subpackage works in an editable install and is missing from the wheel"
    assert sorted(setuptools["packages"]) == sorted(packages.values()), "list the same packages as in package-dir"


def test_every_python_file_is_in_a_package() -> None:
    lost = [
        name
        for name, path in source_files().items()
        if path.suffix == ".py" and not (path.parent / "__init__.py").exists()
    ]
    assert not lost, "a folder without __init__.py is not a package, so its modules are not in the wheel"


def test_every_requirement_is_pinned_below_its_next_breaking_version(project: dict[str, Any]) -> None:
    extras = project["project"]["optional-dependencies"]
    required = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    required += [line for lines in extras.values() for line in lines]
    loose = [
        line for line in required if not line.startswith("shadowswitch[") and (">=" not in line or "<" not in line)
    ]
    assert not loose, "with an unbounded requirement a later release can break an install that worked"
    assert {"cli", "test", "dev"} <= extras.keys()


def test_the_wheel_holds_exactly_the_source_tree(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        shipped = {name for name in archive.namelist() if ".dist-info/" not in name}
    sources = set(source_files())
    assert sources - shipped == set(), "missing from the wheel: list its package, or its kind of file in package-data"
    assert shipped - sources == set(), "in the wheel, but not in the tree"
    assert "shadowswitch/py.typed" in shipped, "without py.typed users get no types"


def test_the_wheel_installs_no_other_top_level_name(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (record,) = (name for name in archive.namelist() if name.endswith(".dist-info/RECORD"))
        rows = list(csv.reader(archive.read(record).decode().splitlines()))
    top = {row[0].partition("/")[0] for row in rows}
    assert top == {"shadowswitch", record.partition("/")[0]}, (
        "a folder of the library must not be in site-packages by its own name"
    )


def test_an_empty_environment_imports_the_library_but_no_bare_folder(user: Path, tmp_path: Path) -> None:
    run_well(user / "python", "-I", "-c", "import shadowswitch", cwd=tmp_path)
    for folder in FOLDERS:
        assert run(user / "python", "-I", "-c", f"import {folder}", cwd=tmp_path).returncode != 0


def test_every_module_but_the_command_line_imports_without_the_extras(user: Path, tmp_path: Path) -> None:
    outside = (
        "shadowswitch/service/",
        "shadowswitch/storage/backup/",
        "shadowswitch/storage/objects/bucket",
        "shadowswitch/storage/conformance/",
        "shadowswitch/storage/backends/tantivy/",
        "shadowswitch/storage/backends/validation/",
        "shadowswitch/storage/backends/vector/",
    )
    modules = [
        name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for name in source_files()
        if name.endswith(".py") and not name.startswith(outside) and not name.endswith("__main__.py")
    ]
    script = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)"
    run_well(user / "python", "-I", "-c", script, *sorted(modules), cwd=tmp_path)


@pytest.mark.parametrize("url", ["store", "s3://bucket/path"])
def test_without_the_extra_a_backup_names_the_package_to_install(user: Path, tmp_path: Path, url: str) -> None:
    script = f"""import shadowswitch
with shadowswitch.Engine.open("data") as engine:
    for call in (engine.backup, shadowswitch.backups, lambda url: shadowswitch.restore(url, "restored")):
        try:
            call({url!r})
        except shadowswitch.InvalidConfig as error:
            print(error.hint)"""
    hints = run_well(user / "python", "-I", "-c", script, cwd=tmp_path).splitlines()
    assert hints == ["pip install 'shadowswitch[replication]'"] * 3


@pytest.mark.parametrize("command", [("shadowswitch",), ("python", "-I", "-m", "shadowswitch")], ids=" ".join)
def test_without_the_extra_the_command_names_the_package_to_install(
    user: Path, tmp_path: Path, command: tuple[str, ...]
) -> None:
    result = run(user / command[0], *command[1:], "--help", cwd=tmp_path)
    assert "pip install 'shadowswitch[cli]'" in result.stderr
    assert result.returncode == 2
    assert "Traceback" not in result.stderr


def test_the_tests_run_against_the_code_in_this_tree() -> None:
    found = importlib.metadata.distributions(
        name="shadowswitch"
    )  # includes the egg-info of an editable install in the tree
    distribution = next(one for one in found if one.read_text("RECORD") is not None)
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    if origin.get("dir_info", {}).get("editable"):
        pytest.skip("an editable install: links to the tree, nothing to compare")
    files = {str(file): Path(str(file.locate())) for file in distribution.files or ()}
    installed = {
        name: path for name, path in files.items() if name.startswith("shadowswitch/") and path.suffix != ".pyc"
    }
    sources = source_files()
    assert installed.keys() == sources.keys(), "a stale or incomplete install: rm -rf .venv build/lib, then make test"
    stale = [name for name, path in installed.items() if path.read_bytes() != sources[name].read_bytes()]
    assert not stale, "the installed copy is older than the tree: run the tests by make test"
