"""Responsiveness of the program: first frame, settled tab, `--help`, and CPU use while idle.

The target of each ratio corresponds to the project's absolute limit.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from bench.result import Benchmark, BenchResult, compare
from bench.terminal import PtyProcess

FIRST_FRAME_S = 0.6
SETTLED_TAB_S = 0.1
QUIET_S = 0.25
"""Nothing is drawn for so long: the tab has settled."""
HELP_S = 0.4
IDLE_PERCENT = 2.0
TICK_S = 0.01
"""Resolution of CPU times: less than one tick is indistinguishable from zero."""

OURS = [sys.executable, "-m", "tui.cli.main", "--lang", "en"]
BARE = """
from textual.app import App
from textual.widgets import Static
class Bare(App):
    def compose(self):
        yield Static("Train")
Bare().run()
"""

SWITCHING = """
from textual.app import App
from textual.widgets import ContentSwitcher, Static
class Switching(App):
    BINDINGS = [("1", "show('a')"), ("2", "show('b')")]
    def compose(self):
        with ContentSwitcher(initial="a"):
            yield Static("Train", id="a")
            yield Static("Other", id="b")
    def action_show(self, which):
        self.query_one(ContentSwitcher).current = which
Switching().run()
"""


def _environment(folder: str) -> dict[str, str]:
    settings = Path(folder) / "config" / "h2q.toml"
    settings.parent.mkdir(exist_ok=True)
    settings.write_text('language = "en"\nfirst_start_done = true\n', encoding="utf-8")
    return {"H2Q_DATA_DIR": folder}


def first_frame(full: bool) -> list[BenchResult]:
    """From the start of the process to the first frame on a pty, alternating ours and a bare Textual app."""
    times: dict[str, list[float]] = {"ours": [], "bare": []}
    with tempfile.TemporaryDirectory() as folder:
        environment = _environment(folder)
        for turn in range(16 if full else 6):
            for name, command in (("ours", OURS), ("bare", [sys.executable, "-c", BARE])):
                with PtyProcess(command, environment) as terminal:
                    seconds = terminal.read(30, until=b"Train")
                if turn:  # the first turn warms the page cache
                    times[name].append(seconds)
    ours, bare = median(times["ours"]), median(times["bare"])
    return [
        compare(
            "app.first_frame",
            ours=ours,
            baseline=bare,
            target=bare / FIRST_FRAME_S,
            unit="s",
            lower_is_better=True,
            notes="the app on an empty workspace against a Textual app with one Static, 80×24, median; limit 0.6 s",
        )
    ]


def help_time(full: bool) -> list[BenchResult]:
    """`h2q-tui --help` against an interpreter that only imports typer."""
    times: dict[str, list[float]] = {"ours": [], "bare": []}
    for turn in range(31 if full else 11):
        for name, command in (("ours", [*OURS, "--help"]), ("bare", [sys.executable, "-c", "import typer"])):
            started = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
            if turn:
                times[name].append(time.perf_counter() - started)
    ours, bare = median(times["ours"]), median(times["bare"])
    return [
        compare(
            "app.help",
            ours=ours,
            baseline=bare,
            target=bare / HELP_S,
            unit="s",
            lower_is_better=True,
            notes="h2q-tui --help against python -c 'import typer', median; limit 0.4 s",
        )
    ]


def settled_tab(full: bool) -> list[BenchResult]:
    """From a digit to the last byte that its tab draws, for tabs that were shown before; against a bare switch."""
    rounds = 12 if full else 4
    times: dict[str, list[float]] = {"ours": [], "bare": []}
    with tempfile.TemporaryDirectory() as folder:
        environment = _environment(folder)
        programs = (("ours", OURS, b"1235"), ("bare", [sys.executable, "-c", SWITCHING], b"12"))
        for name, command, keys in programs:
            with PtyProcess(command, environment) as terminal:
                terminal.read(30, until=b"Train")
                terminal.read(2, until=None)
                for turn in range(rounds + 1):
                    for key in keys:
                        seconds = _until_settled(terminal, bytes([key]))
                        if turn and seconds:  # the first turn makes the tabs
                            times[name].append(seconds)
    ours, bare = median(times["ours"]), median(times["bare"])
    return [
        compare(
            "app.settled_tab",
            ours=ours,
            baseline=bare,
            target=bare / SETTLED_TAB_S,
            unit="s",
            lower_is_better=True,
            notes="a digit to the last byte of its tab, 80×24, median; a ContentSwitcher of two Statics; limit 0.1 s",
        )
    ]


def _until_settled(terminal: PtyProcess, key: bytes) -> float:
    """Seconds from a key to the last byte before a silence; 0 when nothing is drawn."""
    os.write(terminal.master, key)
    began = last = time.perf_counter()
    while time.perf_counter() - last < QUIET_S:
        drawn = len(terminal.output)
        terminal.read(0.01, until=None)
        if len(terminal.output) > drawn:
            last = time.perf_counter()
    return last - began


def idle(full: bool) -> list[BenchResult]:
    """CPU use of the idle app, measured together with a bare Textual app."""
    seconds = 30.0 if full else 8.0
    with tempfile.TemporaryDirectory() as folder:
        environment = _environment(folder)
        with (
            PtyProcess(OURS, environment) as ours,
            PtyProcess([sys.executable, "-c", BARE], environment) as bare,
        ):
            for terminal in (ours, bare):
                terminal.read(30, until=b"Train")
                terminal.read(2, until=None)
            before = ours.cpu_seconds(), bare.cpu_seconds()
            drawn = len(ours.output)
            started = time.perf_counter()
            while time.perf_counter() - started < seconds:
                ours.read(0.5, until=None)
                bare.read(0.5, until=None)
            elapsed = time.perf_counter() - started
            spent = ours.cpu_seconds() - before[0], bare.cpu_seconds() - before[1]
            drawn = len(ours.output) - drawn
    mine, theirs = (100 * max(TICK_S, value) / elapsed for value in spent)
    return [
        compare(
            "app.idle",
            ours=mine,
            baseline=theirs,
            target=theirs / IDLE_PERCENT,
            unit="% of a core",
            lower_is_better=True,
            notes=f"together with a Textual app with one Static, {elapsed:.0f} s, {drawn / elapsed:.0f} B/s drawn; limit 2 %",
        )
    ]


BENCHMARKS = (
    Benchmark("app.first_frame", "process start to first frame", first_frame, 15),
    Benchmark("app.settled_tab", "a digit to the settled tab", settled_tab, 20),
    Benchmark("app.help", "h2q-tui --help", help_time, 5),
    Benchmark("app.idle", "CPU use while idle", idle, 15),
)
