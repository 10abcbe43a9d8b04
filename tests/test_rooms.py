"""The rooms: charters, nothing that shadows a package, modules that stay small, a README that tells the truth."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("schemas", "sql", "stepwell", "assets", "jobs")
TOP = {"schemas", "sql", "stepwell", "assets", "jobs", "tests", "docs"}
SHADOWING = {"datasets", "evaluate", "adapters", "benchmarks", "data", "lake", "models", "trl", "vllm"}
MODULES = sorted(p for room in ROOMS for p in (ROOT / room).rglob("*.py") if "__pycache__" not in p.parts)


@pytest.mark.parametrize(
    "package", [p for p in MODULES if p.name == "__init__.py"], ids=lambda p: str(p.relative_to(ROOT))
)
def test_a_room_states_its_charter(package: Path) -> None:
    charter = ast.get_docstring(ast.parse(package.read_text())) or ""
    for word in ("Belongs here", "Does not belong here", "May import"):
        assert word in charter.replace("\n", " "), f"{package.relative_to(ROOT)} does not say what {word.lower()!r}"


@pytest.mark.parametrize("module", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_says_what_it_is_and_stays_small(module: Path) -> None:
    text = module.read_text()
    assert ast.get_docstring(ast.parse(text)), f"{module.relative_to(ROOT)} has no docstring"
    assert len(text.splitlines()) <= 400, f"{module.relative_to(ROOT)} is more than one room"


def test_no_folder_shadows_a_package() -> None:
    folders = {p.name for p in ROOT.iterdir() if p.is_dir() and (p / "__init__.py").exists()}
    assert not folders & SHADOWING
    assert folders <= TOP


def test_no_module_of_ours_has_the_name_of_a_dependency_at_the_root() -> None:
    assert not [p.name for p in ROOT.glob("*.py")], "modules live in rooms"


def test_readme_tree_names_what_is_there() -> None:
    tree = re.search(r"```text\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert tree, "README.md has no tree"
    named = {line.split()[0].rstrip("/") for line in tree.group(1).splitlines() if line and not line.startswith(" ")}
    there = {
        p.name for p in ROOT.iterdir() if p.name in TOP or p.name in ("pyproject.toml", "dagster.yaml", "Makefile")
    }
    assert there <= named, f"README tree leaves out {sorted(there - named)}"
    assert all((ROOT / name).exists() for name in named), (
        f"README tree names {sorted(n for n in named if not (ROOT / n).exists())}"
    )


def test_readme_commands_are_make_targets() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for command in re.findall(r"make ([a-z]+)", (ROOT / "README.md").read_text()):
        assert command in targets, f"README names `make {command}`"


def test_lock_names_no_host() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    assert "://" not in lock
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[^\s=]+", line) for line in lock.split())
