"""What the preflight looks at in the workspace: its schema, conversations, text, models and runs."""

from __future__ import annotations

import os
import sqlite3

from engine.core.i18n import _
from engine.core.paths import Workspace
from engine.health.check_result import Grade
from engine.health.preflight_machine import nearest_folder
from engine.runs.events import RunStatus


def workspace(ws: Workspace) -> tuple[Grade, str, str]:
    from engine.workspace.open import open_workspace

    open_workspace(ws, create=False)
    nearest = nearest_folder(ws.root)
    if not os.access(nearest, os.W_OK | os.X_OK):
        return (
            Grade.FAIL,
            _("{path} cannot be written").format(path=nearest),
            "h2q-tui --data-dir ~/h2q check",
        )
    if not ws.root.exists():
        return Grade.PASS, _("{path} is made when it is first used").format(path=ws.root), ""
    return Grade.PASS, str(ws.root), ""


def store(ws: Workspace) -> tuple[Grade, str, str]:
    if not ws.memory_db.exists():
        return Grade.PASS, _("empty"), "h2q-tui sample"
    connection = sqlite3.connect(f"{ws.memory_db.resolve().as_uri()}?mode=ro", uri=True, timeout=2)
    try:
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        (count,) = connection.execute("SELECT COUNT(*) FROM current_conversations").fetchone()
    finally:
        connection.close()
    if found != "ok":
        return (
            Grade.FAIL,
            _("{path} is damaged: {why}").format(path=ws.memory_db, why=found),
            "h2q-tui backup list",
        )
    return Grade.PASS, _("{n} conversations").format(n=count), "" if count else "h2q-tui sample"


def embedder(ws: Workspace) -> tuple[Grade, str, str]:
    """What says which conversations mean the same. It is not loaded: that takes seconds."""
    from engine.core.config import load_settings
    from engine.core.errors import BadInput
    from engine.corpus.embedding.load import described

    try:
        return Grade.PASS, described(load_settings(ws).embedder, ws.root), ""
    except BadInput as problem:
        return Grade.WARN, problem.message, problem.hint


def text(ws: Workspace) -> tuple[Grade, str, str]:
    files = (
        [path for path in ws.training_data.rglob("*.txt") if path.is_file()]
        if ws.training_data.is_dir()
        else []
    )
    if not files:
        return Grade.PASS, _("none of your own; a base learns the sample text"), ""
    size = sum(path.stat().st_size for path in files)
    return Grade.PASS, _("{n} files, {mb:.1f} MB").format(n=len(files), mb=size / 1e6), ""


def models(ws: Workspace) -> tuple[Grade, str, str]:
    from engine.models.registry import find_model, in_use, list_models

    cards = list_models(ws)
    used = in_use(ws)
    if used is None:
        return Grade.PASS, _("{n} in the workspace, none in use").format(n=len(cards)), ""
    find_model(ws, used)
    return Grade.PASS, _("{n} in the workspace, {name} in use").format(n=len(cards), name=used), ""


def runs(ws: Workspace) -> tuple[Grade, str, str]:
    from engine.runs.history import summarise
    from engine.runs.rundir import list_runs

    newest = list_runs(ws)[:50]
    alive = [run.run_id for run in newest if run.alive()]
    dead = [run.run_id for run in newest if summarise(run).status is RunStatus.DEAD]
    if dead:
        detail = _("{id} ended without saying how").format(id=", ".join(dead[:3]))
        return Grade.WARN, detail, f"h2q-tui runs show {dead[0]}"
    if alive:
        return (
            Grade.PASS,
            _("{id} is running").format(id=", ".join(alive[:3])),
            f"h2q-tui runs attach {alive[0]}",
        )
    return Grade.PASS, _("nothing is running"), ""
