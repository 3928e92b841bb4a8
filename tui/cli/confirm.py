"""Asking before something is destroyed: one line that names the thing."""

from __future__ import annotations

import sys

import typer

from engine.core.i18n import _


def confirm(question: str, yes: bool, hint: str) -> None:
    """Asks on a terminal; elsewhere `--yes` is needed. Raises UsageProblem, `typer.Abort`."""
    from engine.core.errors import UsageProblem
    from tui.app.text import plain

    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageProblem(_("This needs a yes: {question}").format(question=question), hint=hint)
    typer.confirm(plain(question), abort=True, err=True)
