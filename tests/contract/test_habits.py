"""Rules of the code that no linter checks."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILES = sorted(file for folder in ("tui", "engine") for file in (ROOT / folder).rglob("*.py"))
UNPICKLING = {"pickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}


def name(file: Path) -> str:
    return str(file.relative_to(ROOT))


def test_every_module_has_a_docstring() -> None:
    without = [
        name(file)
        for file in FILES
        if (text := file.read_text(encoding="utf-8")) and not ast.get_docstring(ast.parse(text))
    ]
    assert without == []


def test_the_init_modules_of_the_engine_are_empty() -> None:
    assert [
        name(file)
        for file in FILES
        if file.name == "__init__.py" and file.parts[-3:-2] == ("engine",) and file.stat().st_size
    ] == []


def trees() -> Iterator[tuple[str, ast.AST]]:
    """Every node of every module, with its file and line."""
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            yield f"{name(file)}:{getattr(node, 'lineno', 0)}", node


def test_no_module_unpickles() -> None:
    violations = []
    for place, node in trees():
        if (
            isinstance(node, ast.Import)
            and {alias.name.partition(".")[0] for alias in node.names} & UNPICKLING
        ):
            violations.append(place)
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in UNPICKLING:
            violations.append(place)
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "load"
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id == "torch"
        ):
            violations.append(place)
    assert violations == []


def test_messages_are_translated_before_their_fields_are_filled() -> None:
    violations = []
    for place, node in trees():
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
            continue
        messages = {"_": node.args[:1], "N_": node.args[:1], "n_": node.args[:2], "p_": node.args[1:2]}
        for argument in messages.get(node.func.id, []):
            called = argument.func if isinstance(argument, ast.Call) else None
            if isinstance(argument, ast.JoinedStr) or (
                isinstance(called, ast.Attribute) and called.attr == "format"
            ):
                violations.append(place)
    assert violations == []


def test_the_engine_imports_no_user_interface() -> None:
    violations = []
    for file in (ROOT / "engine").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            modules = (
                [alias.name for alias in node.names] if isinstance(node, ast.Import)
                else [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            )  # fmt: skip
            violations += [
                f"{name(file)}: {module}"
                for module in modules
                if module.partition(".")[0] in ("tui", "textual", "rich")
            ]
    assert violations == []
