"""`h2q-tui monitor`: the Health tab alone, or snapshots of the machine as lines or JSON."""

from __future__ import annotations

import typer

from engine.core.i18n import _
from tui.cli.output import echo, echo_json
from tui.cli.session import options, output_path, workspace

FIRST_INTERVAL_S = 0.5
"""Between the first two samples; CPU shares need two."""


def register(app: typer.Typer) -> None:
    """Add `monitor`."""

    @app.command(help=_("Watch the machine: the Health tab; --plain and --json print snapshots."))
    def monitor(
        interval: float = typer.Option(
            2.0, "--interval", min=0.2, max=3600.0, help=_("Refresh interval in seconds.")
        ),
        count: int = typer.Option(0, "--count", min=0, help=_("Lines of --plain; 0: until Ctrl+C.")),
        export_port: int = typer.Option(
            None,
            "--export-port",
            min=0,
            max=65535,
            help=_("Figures for Prometheus on this port of 127.0.0.1; 0 for any."),
        ),
        jsonl: str = typer.Option(None, "--jsonl", help=_("Append figures to this file, one JSON per line.")),
        tensorboard: str = typer.Option(
            None, "--tensorboard", help=_("Write the curves of all trainings into this new folder.")
        ),
    ) -> None:
        from tui.cli.monitor_sinks import Sinks, run_sinks

        sinks = Sinks(
            export_port,
            output_path(jsonl) if jsonl else None,
            output_path(tensorboard) if tensorboard else None,
        )
        if sinks:
            run_sinks(workspace(create=False), sinks, interval, count)
            return
        if options.json or options.plain:
            _print(interval, count)
            return
        from tui.cli.commands.app import open_app

        raise typer.Exit(open_app("health", interval=interval))


def _print(interval: float, count: int) -> None:
    """Print one JSON document, or a line for each sample."""
    import time

    from tui.cli.monitor_lines import Monitor, line

    watched = Monitor(workspace(create=False))
    time.sleep(min(interval, FIRST_INTERVAL_S))
    if options.json:
        echo_json(watched.document())
        return
    done = 0
    while True:
        echo(line(watched.sample(), watched.runs()))
        done += 1
        if done == count:
            return
        time.sleep(interval)
