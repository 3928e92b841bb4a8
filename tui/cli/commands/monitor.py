"""`h2q-tui monitor`: the Health tab alone, or snapshots of the machine as lines or JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from engine.core.i18n import _
from engine.core.local_time import local_time
from tui.cli.output import echo, echo_json
from tui.cli.session import options, output_path, workspace

if TYPE_CHECKING:
    from engine.machine.probes import MachineSample

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

    from engine.machine.probes import MachineProbes

    probes = MachineProbes(workspace(create=False).root)
    time.sleep(min(interval, FIRST_INTERVAL_S))
    if options.json:
        echo_json(probes.sample())
        return
    done = 0
    while True:
        echo(line(probes.sample()))
        done += 1
        if done == count:
            return
        time.sleep(interval)


def line(snapshot: MachineSample) -> str:
    """`14:02:10  cpu 97 95 %  load 2.1  memory 9.1 of 16.0 GB  swap 0.0 GB  disk 81.0 GB free  62 °C`."""

    gb = 1024**3
    parts = [local_time("%H:%M:%S", snapshot.time)]
    shares = snapshot.cpu_percent
    parts.append(
        _("cpu {shares} %").format(shares="–" if shares is None else " ".join(f"{x:.0f}" for x in shares))
    )
    if snapshot.load is not None:
        parts.append(_("load {load}").format(load=f"{snapshot.load[0]:.1f}"))
    if snapshot.memory_used is not None and snapshot.memory_total is not None:
        parts.append(
            _("memory {used} of {total} GB").format(
                used=f"{snapshot.memory_used / gb:.1f}", total=f"{snapshot.memory_total / gb:.1f}"
            )
        )
    if snapshot.swap_used is not None:
        parts.append(_("swap {used} GB").format(used=f"{snapshot.swap_used / gb:.1f}"))
    if snapshot.disk_free is not None:
        parts.append(_("disk {free} GB free").format(free=f"{snapshot.disk_free / gb:.1f}"))
    if snapshot.temperature_c is not None:
        parts.append(_("{heat:.0f} °C").format(heat=snapshot.temperature_c))
    return "  ".join(parts)
