"""Names: a class name has one meaning in the whole repository."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]


def classes() -> dict[str, list[str]]:
    """The modules in which a class of each name is defined; a leading underscore makes no other name."""
    modules: dict[str, list[str]] = defaultdict(list)
    for folder in ("engine", "tui"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            tree = ast.parse(file.read_text(encoding="utf-8"))
            for node in ast.walk(tree):
                if isinstance(node, ast.ClassDef):
                    modules[node.name.lstrip("_")].append(str(file.relative_to(ROOT)))
    return modules


def test_a_class_name_has_one_meaning() -> None:
    assert {name: files for name, files in classes().items() if len(files) > 1} == {}
