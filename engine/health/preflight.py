"""What `h2q-tui check` looks at before anything is started: the machine, the programs, the workspace.

Reads only: nothing is made, repaired or downloaded.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import psutil

from engine.core.errors import H2QError
from engine.core.i18n import N_, _
from engine.core.paths import Workspace
from engine.health import preflight_machine as machine
from engine.health import preflight_workspace as contents
from engine.health.check_result import Grade, Item, Look

LOOKS: tuple[tuple[str, str, Look], ...] = (
    ("python", N_("Python"), machine.python),
    ("platform", N_("system"), machine.system),
    ("cores", N_("processor"), machine.cores),
    ("memory", N_("memory"), machine.memory),
    ("disk", N_("disk"), machine.disk),
    ("torch", N_("torch"), machine.torch),
    ("mps", N_("MPS memory"), machine.mps),
    ("accelerate", N_("accelerate"), machine.accelerate),
    ("sqlite", N_("SQLite"), machine.sqlite),
    ("terminal", N_("terminal"), machine.terminal),
    ("logout", N_("logging out"), machine.logout),
    ("workspace", N_("workspace"), contents.workspace),
    ("store", N_("conversations"), contents.store),
    ("embedder", N_("embedder"), contents.embedder),
    ("text", N_("text"), contents.text),
    ("models", N_("models"), contents.models),
    ("runs", N_("runs"), contents.runs),
)


def examine(ws: Workspace, looks: tuple[tuple[str, str, Look], ...] = LOOKS) -> Iterator[Item]:
    """The items one by one, as they are found. A look that breaks is itself a failed item."""
    for id_, name, look in looks:
        try:
            grade, detail, hint = look(ws)
        except H2QError as problem:
            grade, detail, hint = Grade.FAIL, problem.message, problem.hint
        except (OSError, sqlite3.Error, ValueError, psutil.Error) as problem:
            grade, detail, hint = Grade.FAIL, f"{type(problem).__name__}: {problem}", ""
        yield Item(id=id_, name=_(name), grade=grade, detail=detail, hint=hint)
