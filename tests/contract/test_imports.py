"""What a process loads: the half of the engine that the app imports, and what every command loads."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import engine.health
import engine.runs

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "transformers", "sentence_transformers", "sklearn", "scipy", "peft", "numpy")
LIGHT = [
    *(f"engine.runs.{module.name}" for module in pkgutil.iter_modules(engine.runs.__path__)),
    *(f"engine.health.{module.name}" for module in pkgutil.iter_modules(engine.health.__path__)),
    "engine.memory.store",
    "engine.memory.records",
    "engine.corpus.review.store",
    "engine.corpus.preview",
    "engine.models.registry",
    "engine.models.card",
    "engine.validation.report",
    "engine.inference.client",
    "engine.core.config",
    "engine.core.paths",
    "engine.workspace.open",
    "engine.core.errors",
    "engine.core.i18n",
    "engine.core.files",
]


def loaded(modules: list[str], watched: tuple[str, ...]) -> list[str]:
    """Which of `watched` a fresh process has loaded after importing `modules`."""
    code = f"import importlib, sys\nfor name in {modules!r}: importlib.import_module(name)\n"
    code += f"print(*[name for name in {watched!r} if name in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return told.stdout.split()


def test_the_light_half_of_the_engine_loads_nothing_heavy_and_no_terminal() -> None:
    assert loaded(LIGHT, (*HEAVY, "textual", "rich")) == []


@pytest.mark.parametrize(
    "module",
    ["tui.app.text", "engine.core.i18n", "engine.core.errors", "engine.core.paths", "tui.cli.session"],
)
def test_what_every_command_loads_knows_no_textual(module: str) -> None:
    assert loaded([module], (*HEAVY, "textual", "rich", "msgspec")) == []
