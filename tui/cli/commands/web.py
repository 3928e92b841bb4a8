"""`h2q-tui web`: the app in a browser on this machine."""

from __future__ import annotations

import sys

import typer

from engine.core.i18n import _
from tui.cli.output import echo, echo_json
from tui.cli.session import options, workspace


def register(app: typer.Typer) -> None:
    """Add `web`."""

    @app.command(help=_("The app in a browser on this machine; the printed address holds a secret token."))
    def web(
        port: int = typer.Option(
            5000,
            "--port",
            min=0,
            max=65535,
            help=_("Port on 127.0.0.1; the next free one of ten when it is taken, 0 for any."),
        ),
        read_only: bool = typer.Option(
            False, "--read-only", help=_("To look only: nothing can be changed or started.")
        ),
        sessions: int = typer.Option(4, "--sessions", min=1, max=64, help=_("Sessions at the same time.")),
    ) -> None:
        from tui.web.address import bind
        from tui.web.latest_data import LatestData
        from tui.web.server import WebServer

        ws = workspace(create=not read_only)
        address = bind(port)
        argv = app_command(str(ws.root), read_only=read_only)
        server = WebServer(address, argv, LatestData(ws), sessions=sessions)
        if options.json:
            echo_json(
                {"url": address.url, "port": address.port, "read_only": read_only, "sessions": sessions}
            )
        else:
            print(address.url, flush=True)
            echo(_("Keep this address to yourself: it lets anyone on this machine use the app. Ctrl+C ends."))
        server.serve()


def app_command(data_dir: str, *, read_only: bool) -> list[str]:
    """The words of the command that opens the app of a workspace."""
    words = [sys.executable, "-m", "tui.cli.main", "--data-dir", data_dir]
    if options.lang:
        words += ["--lang", options.lang]
    return [*words, "--read-only"] if read_only else words
