"""`h2q-tui demo`: the whole loop on the shipped sample, on the terminal or in the app."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from engine.core.i18n import _
from tui.cli import output, session

if TYPE_CHECKING:
    from engine.core.paths import Workspace
    from engine.runs.spec import RunSpec
    from engine.runs.view import RunView


def register(app: typer.Typer) -> None:
    """Add `demo`."""

    @app.command(help=_("The whole loop on a shipped sample, in a workspace of its own: about four minutes."))
    def demo(
        steps: int = typer.Option(
            None, "--steps", min=1, help=_("Training steps of each phase, for a quick try.")
        ),
        in_app: bool = typer.Option(False, "--app", help=_("Show it in the app.")),
    ) -> None:
        from engine.pipeline.demo import find_demo_workspace, running_demo
        from tui.cli.run_output import attach_in_terminal, conclude, follow_in_terminal

        ws = find_demo_workspace(session.options.data_dir)
        session.options.data_dir = str(ws.root)
        if in_app:
            raise typer.Exit(open_on_demo(ws, steps))
        run = running_demo(ws)
        if run is not None:
            output.echo(_("the demo is running already; following it"))
            raise typer.Exit(conclude(attach_in_terminal(run)))
        spec = _prepare(ws, steps)
        output.echo(_("workspace of the demo: {path}").format(path=ws.root))
        followed = follow_in_terminal(ws, spec)
        if followed.exit_code == 0:
            for line in summary(followed.view):
                output.echo(line)
        code = conclude(followed)
        if code == 0:
            output.echo(_("open the app on it: h2q-tui --data-dir {path}").format(path=ws.root))
        raise typer.Exit(code)


def open_on_demo(ws: Workspace, steps: int | None = None) -> int:
    """Start the demo unless it is running, and open the app on its workspace. Returns the exit code.

    Raises BadInput if the folder contains anything but an earlier demo.
    """
    from engine.pipeline.demo import running_demo
    from engine.runs.launch import launch
    from tui.cli.commands.app import open_app

    if running_demo(ws) is None:
        launch(ws, _prepare(ws, steps))
    session.options.data_dir = str(ws.root)
    return open_app("train")


def open_app_or_demo() -> int:
    """Open the app; if the user starts the demo there, open it again on the demo's workspace. Returns the exit code."""
    from tui.cli.commands.app import DEMO_REQUESTED, open_app

    code = open_app()
    while code == DEMO_REQUESTED:
        from engine.pipeline.demo import demo_workspace_of

        code = open_on_demo(demo_workspace_of(session.workspace()))
    return code


def _prepare(ws: Workspace, steps: int | None) -> RunSpec:
    """Clear the demo's workspace; returns the spec of the demo."""
    from engine.core.i18n import language
    from engine.pipeline.demo import clear_demo_workspace
    from engine.runs.kinds import DemoParams
    from engine.runs.spec import make_spec
    from engine.workspace.open import open_workspace

    clear_demo_workspace(ws)
    open_workspace(ws)
    return make_spec(ws.root, DemoParams(steps=steps), language=language())


def summary(view: RunView) -> list[str]:
    """A summary of the demo, and what it does not show."""
    lines = [""]
    if view.funnel is not None:
        lines.append(
            _(
                "corpus: {collected} conversations collected, {train} trained on, {test} held out for the test"
            ).format(
                collected=view.funnel.collected,
                train=view.plan.train_conversations if view.plan else 0,
                test=view.plan.test_conversations if view.plan else 0,
            )
        )
    if view.verdict is not None:
        lines.append(
            _("verdict on held-out conversations: {sentence}").format(sentence=view.verdict.sentence)
        )
        lines.append(
            _("the new model is better and is in use")
            if view.promoted is not None
            else _("the new model is not shown to be better: the base is kept")
        )
    lines.append(
        _(
            "A model of this size only shows the loop: it imitates the style of its text and does not converse. "
            "For real use run the same loop with a larger base: tune an existing model "
            "(h2q-tui train --mode lora --model DIR), or give native more text and more time "
            "(h2q-tui train --mode scratch, then --mode native)."
        )
    )
    lines.append("")
    return lines
