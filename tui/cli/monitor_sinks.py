"""`h2q-tui monitor` for other programs: figures for Prometheus, as JSON lines, and as TensorBoard files."""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from engine.core.i18n import _
from engine.core.paths import Workspace
from tui.cli.output import echo, echo_json
from tui.cli.session import options


@dataclass(frozen=True)
class Sinks:
    """Where the figures go; None for what was not asked for."""

    export_port: int | None = None
    jsonl: Path | None = None
    tensorboard: Path | None = None

    def __bool__(self) -> bool:
        return (self.export_port, self.jsonl, self.tensorboard) != (None, None, None)


def run_sinks(ws: Workspace, sinks: Sinks, interval: float, count: int) -> None:
    """Export until ctrl+c, or `count` times. Raises H2QError and OSError."""
    from engine.machine.probes import MachineProbes

    said: dict[str, str] = {}
    with ExitStack() as stack:
        lines = curves = None
        if sinks.tensorboard is not None:
            from engine.sinks.tensorboard import TensorBoardWriter

            curves = stack.enter_context(closing(TensorBoardWriter(ws, sinks.tensorboard)))
            said["tensorboard"] = str(sinks.tensorboard)
        if sinks.jsonl is not None:
            from engine.sinks.figure_lines import LineWriter

            lines = stack.enter_context(closing(LineWriter(ws, sinks.jsonl, since=time.time())))
            said["jsonl"] = str(sinks.jsonl)
        if sinks.export_port is not None:
            from engine.sinks.prometheus import MetricsServer

            server = stack.enter_context(closing(MetricsServer(ws, sinks.export_port)))
            said["prometheus"] = server.url
        if options.json:
            echo_json(said)
        else:
            for name, place in said.items():
                echo(f"{name}: {place}")
            echo(_("Exporting figures; ctrl+c ends."))
        probes = MachineProbes(ws.root)
        done = 0
        while True:
            if curves is not None:
                curves.write()
            time.sleep(interval)
            if lines is not None:
                lines.write(probes.sample())
            done += 1
            if done == count:
                return
