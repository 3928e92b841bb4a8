"""`h2q-tui check`: the preflight, read-only."""

from __future__ import annotations

import typer

from engine.core.i18n import N_, _
from tui.cli import output, session

GRADES = {"pass": N_("pass"), "warn": N_("warn"), "fail": N_("FAIL")}


def register(app: typer.Typer) -> None:
    """Add `check`."""

    @app.command(help=_("Check the machine and the workspace; changes nothing."))
    def check() -> None:
        from engine.health.preflight import Grade, run_checks

        items = []
        for item in run_checks(session.locate_workspace()):
            items.append(item)
            hint = f" → {item.hint}" if item.hint else ""
            output.echo(f"{_(GRADES[item.grade]):<5} {item.name}: {item.detail}{hint}")
        failed = [item.id for item in items if item.grade is Grade.FAIL]
        if session.options.json:
            output.echo_json({"ok": not failed, "items": items})
        raise typer.Exit(5 if failed else 0)
