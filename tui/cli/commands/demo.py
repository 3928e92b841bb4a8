"""`h2q-tui demo`: the whole loop on the shipped sample, watched on the terminal or in the app."""

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
    """Adds `demo`."""

    @app.command(help=_("The whole loop on a shipped sample, in a workspace of its own: about four minutes."))
    def demo(
        steps: int = typer.Option(
            None, "--steps", min=1, help=_("Training steps of each phase; for a quick look.")
        ),
        in_app: bool = typer.Option(False, "--app", help=_("Watch it in the app.")),
    ) -> None:
        from engine.pipeline.demo import find_demo_workspace, running_demo
        from tui.cli.run_output import attach_in_terminal, conclude, follow_in_terminal

        ws = find_demo_workspace(session.options.data_dir)
        session.options.data_dir = str(ws.root)
        if in_app:
            raise typer.Exit(open_on_demo(ws, steps))
        going = running_demo(ws)
        if going is not None:
            output.echo(_("the demo is running already; this is it"))
            raise typer.Exit(conclude(attach_in_terminal(going)))
        spec = _prepare(ws, steps)
        output.echo(_("workspace of the demo: {path}").format(path=ws.root))
        followed = follow_in_terminal(ws, spec)
        if followed.exit_code == 0:
            for line in story(followed.view):
                output.echo(line)
        code = conclude(followed)
        if code == 0:
            output.echo(_("open the app on it: h2q-tui --data-dir {path}").format(path=ws.root))
        raise typer.Exit(code)


def open_on_demo(ws: Workspace, steps: int | None = None) -> int:
    """Starts the demo, unless it runs already, and opens the app on its workspace. Returns the exit code.

    Raises BadInput when the folder holds anything but an earlier demo.
    """
    from engine.pipeline.demo import running_demo
    from engine.runs.launch import launch
    from tui.cli.commands.app import open_app

    if running_demo(ws) is None:
        launch(ws, _prepare(ws, steps))
    session.options.data_dir = str(ws.root)
    return open_app("train")


def open_app_or_demo() -> int:
    """Opens the app, and on the demo's workspace when the person leaves it for the demo. Returns the exit code."""
    from tui.cli.commands.app import DEMO_REQUESTED, open_app

    code = open_app()
    while code == DEMO_REQUESTED:
        from engine.pipeline.demo import demo_workspace_of

        code = open_on_demo(demo_workspace_of(session.workspace()))
    return code


def _prepare(ws: Workspace, steps: int | None) -> RunSpec:
    """An empty workspace, and what the demo is asked to do in it."""
    from engine.core.i18n import language
    from engine.pipeline.demo import clear_demo_workspace
    from engine.runs.kinds import DemoParams
    from engine.runs.spec import make_spec
    from engine.workspace.open import open_workspace

    clear_demo_workspace(ws)
    open_workspace(ws)
    return make_spec(ws.root, DemoParams(steps=steps), language=language())


def story(view: RunView) -> list[str]:
    """What the demo showed, in plain words, and what it did not show."""
    lines = [""]
    if view.funnel is not None:
        lines.append(
            _(
                "corpus: {collected} conversations came in, {train} trained on, {test} kept back to judge"
            ).format(
                collected=view.funnel.collected,
                train=view.plan.train_conversations if view.plan else 0,
                test=view.plan.test_conversations if view.plan else 0,
            )
        )
    if view.verdict is not None:
        lines.append(
            _("verdict on conversations it never saw: {sentence}").format(sentence=view.verdict.sentence)
        )
        lines.append(
            _("the new model is better and is in use")
            if view.promoted is not None
            else _("the new model is not shown to be better: the base stays in use")
        )
    lines.append(
        _(
            "A model of this size shows the loop; it imitates the style of what it read and does not converse. "
            "For real use the loop is the same with a larger base: tune an existing model "
            "(h2q-tui train --mode lora --model DIR), or give native more of your text and time "
            "(h2q-tui train --mode scratch, then --mode native)."
        )
    )
    lines.append("")
    return lines
