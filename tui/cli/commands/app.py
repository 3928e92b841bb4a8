"""Opens the app on the workspace of the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.core.errors import RunFailed
    from engine.core.paths import Workspace

FAULT_FILE = "app.log"
"""Where the traceback of a fault of the app stands, in the workspace."""
DEMO_REQUESTED = -1
"""Answer of `open_app` when the person chose the demo, which has a workspace of its own."""


def open_app(tab: str | None = None, *, interval: float = 2.0) -> int:
    """Runs the app until the person leaves; runs go on without it. Returns the exit code,
    or DEMO_REQUESTED.

    Raises BadInput for a workspace that cannot be opened, UsageProblem without a terminal.
    """
    import sys

    from engine.core.errors import UsageProblem
    from engine.core.i18n import _
    from tui.cli.session import workspace

    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageProblem(_("The app needs a terminal"), hint="h2q-tui --help")
    from tui.app import shutdown, terminal

    terminal.prepare_terminal()
    ws = workspace()
    from engine.core.config import load_settings

    settings = load_settings(ws)
    asked = terminal.WidthProbe(wide=False, typed="")
    if settings.ambiguous_width == "auto" and settings.signs == "auto":
        asked = terminal.probe_ambiguous_width()
    from tui.app.app import H2QApp

    app = H2QApp(
        ws,
        tab,
        settings,
        welcome=tab is None,
        interval=interval,
        ambiguous_wide=asked.wide,
        typed=asked.typed,
    )
    shutdown.run(app)
    if app.fault is not None:
        raise explain_fault(ws, app.fault)
    return DEMO_REQUESTED if app.demo_requested else app.return_code or 0


def explain_fault(ws: Workspace, fault: Exception) -> RunFailed:
    """A fault of the app as one sentence; its traceback is written to a file that only the person may read."""
    import traceback

    from engine.core import files
    from engine.core.errors import RunFailed
    from engine.core.i18n import _

    path = ws.root / FAULT_FILE
    try:
        files.write_text(path, "".join(traceback.format_exception(fault)), mode=0o600)
    except OSError:
        return RunFailed(
            _("the app ended by a fault of its own ({kind}); runs go on").format(kind=type(fault).__name__),
            hint="h2q-tui",
        )
    return RunFailed(
        _(
            "the app ended by a fault of its own ({kind}); runs go on, and where it happened stands in {path}"
        ).format(kind=type(fault).__name__, path=path),
        hint="h2q-tui",
    )
