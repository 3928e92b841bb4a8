"""Open the app on the workspace of the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.core.errors import RunFailed
    from engine.core.paths import Workspace

FAULT_FILE = "app.log"
"""File in the workspace with the traceback of a crash of the app."""
DEMO_REQUESTED = -1
"""Returned by `open_app` if the user started the demo, which has a workspace of its own."""


def open_app(tab: str | None = None, *, interval: float = 2.0, read_only: bool = False) -> int:
    """Run the app until the user leaves it; runs continue without it. Returns the exit code or DEMO_REQUESTED.

    `read_only` offers only what changes nothing. Raises BadInput for a workspace that cannot be opened, UsageProblem
    without a terminal or a browser.
    """
    import sys

    from engine.core.errors import UsageProblem
    from engine.core.i18n import _
    from tui.cli.session import workspace
    from tui.terminal import capabilities

    if not (capabilities.in_browser() or (sys.stdin.isatty() and sys.stdout.isatty())):
        raise UsageProblem(_("The app needs a terminal"), hint="h2q-tui --help")
    from tui.host import shutdown

    capabilities.prepare_terminal()
    ws = workspace(create=not read_only)
    from engine.core.config import load_settings

    settings = load_settings(ws)
    probe = capabilities.WidthProbe(wide=False, typed="")
    if settings.ambiguous_width == "auto" and settings.signs == "auto":
        probe = capabilities.probe_ambiguous_width()
    from tui.app.app import H2QApp
    from tui.terminal import paste

    paste.install()
    app = H2QApp(
        ws,
        tab,
        settings,
        welcome=tab is None,
        interval=interval,
        ambiguous_wide=probe.wide,
        typed=probe.typed,
        read_only=read_only,
    )
    shutdown.run_app(app)
    if app.fault is not None:
        raise explain_fault(ws, app.fault)
    return DEMO_REQUESTED if app.demo_requested else app.return_code or 0


def explain_fault(ws: Workspace, fault: Exception) -> RunFailed:
    """A crash of the app as one sentence; its traceback is written to a file with mode 0600."""
    import traceback

    from engine.core import files
    from engine.core.errors import RunFailed
    from engine.core.i18n import _

    path = ws.root / FAULT_FILE
    try:
        files.write_text(path, "".join(traceback.format_exception(fault)), mode=0o600)
    except OSError:
        return RunFailed(
            _("the app crashed ({kind}); runs continue").format(kind=type(fault).__name__),
            hint="h2q-tui",
        )
    return RunFailed(
        _("the app crashed ({kind}); runs continue, and the traceback is in {path}").format(
            kind=type(fault).__name__, path=path
        ),
        hint="h2q-tui",
    )
