"""What a process loads: what the app imports of the engine is light, and every command starts without Textual."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "transformers", "sentence_transformers", "sklearn", "scipy", "peft", "numpy")
TERMINAL = ("textual", "rich")
LIGHT_PACKAGES = ("core", "machine", "runs", "memory", "workspace", "health", "scheduler", "compat")
"""Packages of the engine with light modules only."""


def modules_of(package: str) -> list[str]:
    path = importlib.import_module(package).__path__
    return [module.name for module in pkgutil.walk_packages(path, f"{package}.")]


def imported_by_app() -> set[str]:
    """The engine modules that the app's process imports; a type alone is no import."""
    imported = set()
    for folder in ("app", "tabs", "screens", "widgets"):
        for file in sorted((ROOT / "tui" / folder).rglob("*.py")):
            tree = ast.parse(file.read_text(encoding="utf-8"))
            for node in tree.body:
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("engine."):
                    submodules = {f"{node.module}.{alias.name}" for alias in node.names}
                    imported |= {name for name in submodules if is_module(name)} or {str(node.module)}
    return imported


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or path.is_dir()


def loaded(modules: list[str], watched: tuple[str, ...]) -> list[str]:
    """Which of `watched` a fresh process has loaded after importing `modules`."""
    code = f"import importlib, sys\nfor name in {modules!r}: importlib.import_module(name)\n"
    code += f"print(*[name for name in {watched!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.parametrize("package", LIGHT_PACKAGES)
def test_a_light_package_loads_nothing_heavy_and_no_terminal(package: str) -> None:
    assert loaded(modules_of(f"engine.{package}"), (*HEAVY, *TERMINAL)) == []


def test_what_the_app_imports_of_the_engine_loads_nothing_heavy_and_no_terminal() -> None:
    modules = sorted(imported_by_app())
    assert len(modules) > 20
    assert loaded(modules, (*HEAVY, *TERMINAL)) == []


@pytest.mark.parametrize(
    "module",
    ["tui.terminal.text", "engine.core.i18n", "engine.core.errors", "engine.core.paths", "tui.cli.session"],
)
def test_what_every_command_loads_is_without_textual(module: str) -> None:
    assert loaded([module], (*HEAVY, *TERMINAL, "msgspec")) == []
