"""`h2q-tui check`: the preflight, read-only."""

from __future__ import annotations

import typer

from engine.core.i18n import N_, _
from tui.cli import common

GRADES = {"pass": N_("pass"), "warn": N_("warn"), "fail": N_("FAIL")}


def register(app: typer.Typer) -> None:
    """Adds `check`."""

    @app.command(help=_("Look at the machine and the workspace; changes nothing."))
    def check() -> None:
        from pathlib import Path

        from engine.core.paths import find_workspace
        from engine.health.check_result import Grade
        from engine.health.preflight import examine

        base = Path(common.options.workspace_dir) if common.options.workspace_dir else None
        # Not opened: opening makes and migrates folders, and this command only looks.
        workspace = find_workspace(common.options.data_dir, relative_to=base)
        items = []
        for item in examine(workspace):
            items.append(item)
            hint = f" → {item.hint}" if item.hint else ""
            common.say(f"{_(GRADES[item.grade]):<5} {item.name}: {item.detail}{hint}")
        failed = [item.id for item in items if item.grade is Grade.FAIL]
        if common.options.json:
            common.emit_json({"ok": not failed, "items": items})
        raise typer.Exit(5 if failed else 0)
