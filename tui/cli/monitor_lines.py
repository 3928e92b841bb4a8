"""The readings of `h2q-tui monitor --plain` and `--json`: the same as on the Health tab."""

from __future__ import annotations

import sqlite3
import time
from typing import Any

import msgspec

from engine.alerts.desk import open_alerts
from engine.core.config import load_settings
from engine.core.errors import H2QError, UsageProblem
from engine.core.i18n import _, colon, with_percent
from engine.core.local_time import local_time
from engine.core.paths import Workspace
from engine.machine.probes import MachineProbes, MachineSample
from engine.machine.processes import ProcessTable
from engine.machine.recording import group_shares
from engine.runs.event_text import format_figure, format_rate
from engine.runs.rundir import list_runs, summarise
from engine.runs.view import RunSummary
from engine.sinks.peers import PeerReading, parse_peer, read_peer

GB = 1024**3
PROCESSES = 15
"""Processes in a document."""


class Monitor:
    """Reads the machine, the runs in progress, processes and the other machines of the settings."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._probes = MachineProbes(workspace.root, devices=True)
        self._table = ProcessTable()
        self._table.read()

    def sample(self) -> MachineSample:
        """The machine alone."""
        return self._probes.sample()

    def runs(self) -> list[RunSummary]:
        """The runs in progress, newest first."""
        found = []
        for run in list_runs(self._workspace):
            try:
                summary = summarise(run) if run.alive() else None
            except (H2QError, OSError):
                continue
            if summary is not None and not summary.status.over:
                found.append(summary)
        return found

    def document(self) -> dict[str, Any]:
        """Everything, for one JSON document."""
        sample = self.sample()
        try:
            alerts = open_alerts(self._workspace)
        except (sqlite3.Error, OSError):
            alerts = []
        return {
            **msgspec.structs.asdict(sample),
            "core_group_percent": [round(share, 1) for share in group_shares(sample)],
            "runs": self.runs(),
            "processes": self._table.read(limit=PROCESSES),
            "peers": self._peers(),
            "alerts": alerts,
        }

    def _peers(self) -> list[PeerReading]:
        found = []
        for text in load_settings(self._workspace).peers:
            try:
                found.append(read_peer(parse_peer(text)))
            except UsageProblem:
                found.append(PeerReading(name=text, t=time.time(), error="unknown"))
        return found


def line(snapshot: MachineSample, runs: list[RunSummary] | None = None) -> str:
    """`14:02:10  cpu 97 95 %  load 2.1  memory 9.1 of 16.0 GB  swap 0.0 GB  disk 81.0 GB free  62 °C  15 W  …`."""
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
                used=f"{snapshot.memory_used / GB:.1f}", total=f"{snapshot.memory_total / GB:.1f}"
            )
        )
    if snapshot.swap_used is not None:
        parts.append(_("swap {used} GB").format(used=f"{snapshot.swap_used / GB:.1f}"))
    if snapshot.memory_stalled_percent is not None:
        share = with_percent(f"{snapshot.memory_stalled_percent:.0f}")
        parts.append(_("waiting for memory {share}").format(share=share))
    if snapshot.disk_free is not None:
        parts.append(_("disk {free} GB free").format(free=f"{snapshot.disk_free / GB:.1f}"))
    if snapshot.temperature_c is not None:
        parts.append(_("{heat:.0f} °C").format(heat=snapshot.temperature_c))
    if snapshot.power_w is not None:
        parts.append(_("{power} W").format(power=f"{snapshot.power_w:.0f}"))
    parts += [
        f"{gpu.name} {with_percent(f'{gpu.busy_percent:.0f}')}"
        for gpu in snapshot.gpus
        if gpu.busy_percent is not None
    ]
    parts += [_run_part(run) for run in runs or []]
    return "  ".join(parts)


def _run_part(run: RunSummary) -> str:
    """`1129-1535: step 12 of 1187, loss 1.902 (best 1.850), 3.1k tok/s`."""
    words = [str(run.status)]
    if run.max_steps:
        words = [_("step {step} of {steps}").format(step=run.step, steps=run.max_steps)]
    if run.loss is not None:
        best = " " + _("(best {loss})").format(loss=format_figure(run.best_loss))
        words.append(_("loss {loss}").format(loss=format_figure(run.loss)) + best)
    if run.tokens_per_s is not None:
        words.append(_("{speed} tok/s").format(speed=format_rate(run.tokens_per_s)))
    return colon(run.id[:9], _(", ").join(words))
