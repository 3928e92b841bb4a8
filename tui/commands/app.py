"""Opens the app on the workspace of the command line."""

from __future__ import annotations

LEFT_FOR_DEMO = -1
"""Answer of `open_app` when the person chose the demo, which has a workspace of its own."""


def open_app(tab: str | None = None, *, interval: float = 2.0) -> int:
    """Runs the app until the person leaves; runs go on without it. Returns the exit code,
    or LEFT_FOR_DEMO.

    Raises BadInput for a workspace that cannot be opened, UsageProblem without a terminal.
    """
    import sys

    from engine.errors import UsageProblem
    from engine.i18n import _
    from tui.commands.common import workspace

    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageProblem(_("The app needs a terminal"), mend="h2q-tui --help")
    from tui import terminal

    terminal.prepare()
    ws = workspace()
    from engine.config import load_settings

    settings = load_settings(ws)
    wide = settings.ambiguous_width == "auto" and settings.signs == "auto" and terminal.ambiguous_is_wide()
    from tui.app import H2QApp

    app = H2QApp(ws, tab, settings, welcome=tab is None, interval=interval, ambiguous_wide=wide)
    app.run(mouse=True)
    return LEFT_FOR_DEMO if app.left_for_demo else app.return_code or 0
