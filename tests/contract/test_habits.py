"""Habits of the code that no linter knows (the project's rules of style)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(file for folder in ("tui", "engine") for file in (ROOT / folder).rglob("*.py"))
UNPICKLING = {"pickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}


def name(file: Path) -> str:
    return str(file.relative_to(ROOT))


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        name(file)
        for file in FILES
        if (text := file.read_text(encoding="utf-8")) and not ast.get_docstring(ast.parse(text))
    ]
    assert silent == []


def test_the_packages_of_the_engine_are_empty() -> None:
    assert [
        name(file)
        for file in FILES
        if file.name == "__init__.py" and file.parts[-3:-2] == ("engine",) and file.stat().st_size
    ] == []


@pytest.mark.parametrize("file", FILES, ids=name)
def test_nothing_is_unpickled(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert not {alias.name.partition(".")[0] for alias in node.names} & UNPICKLING
        if isinstance(node, ast.ImportFrom):
            assert (node.module or "").partition(".")[0] not in UNPICKLING
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "load":
            assert not (isinstance(node.func.value, ast.Name) and node.func.value.id == "torch"), "torch.load"


@pytest.mark.parametrize("file", FILES, ids=name)
def test_words_are_translated_before_they_are_filled(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("_", "N_", "n_")
        ):
            for argument in node.args[: 2 if node.func.id == "n_" else 1]:
                filled = isinstance(argument, ast.JoinedStr) or (
                    isinstance(argument, ast.Call)
                    and isinstance(argument.func, ast.Attribute)
                    and argument.func.attr == "format"
                )
                assert not filled, f"line {node.lineno}"


def test_the_engine_knows_no_terminal() -> None:
    guilty = []
    for file in (ROOT / "engine").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            modules = (
                [alias.name for alias in node.names] if isinstance(node, ast.Import)
                else [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            )  # fmt: skip
            guilty += [
                f"{name(file)}: {module}"
                for module in modules
                if module.partition(".")[0] in ("tui", "textual", "rich")
            ]
    assert guilty == []
