"""A night in short or in full: training, kills, corpus builds and the app opened and closed, over and over.

`python -m bench soak --minutes 480` runs as long as it is told (half a minute in the short form, 20 in the full
one). One app stays open all the time and watches every run.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import psutil

from bench.engine_run import EngineRun, start
from bench.result import Benchmark, BenchResult, compare
from bench.terminal import PtyProcess
from engine.core.errors import H2QError
from engine.core.paths import Workspace, shipped
from engine.runs import control, events
from engine.runs.kinds import CorpusParams, TrainMode, TrainParams

MB = 1 << 20
APP = [sys.executable, "-m", "tui.cli.main", "--lang", "en"]
APP_GROWTH_MB, RUN_GROWTH_MB, DESCRIPTORS, JOURNAL = 64.0, 20.0, 2.0, 8192.0
"""Limits: growth of the app and of a run, descriptors that a process gains, bytes of journal a second."""
KEPT = 6.0
"""Checkpoints of a phase: two newest, the best, the one to return to, and one of an hour, before one is removed."""
TICK_S = 0.5
STUCK_S = 300.0
"""Without a step of a run, on a machine that may be busy with other things."""
LEAVES_S = 20.0
"""From `q` to the end of the app's process; that machine makes it slower than the second it should take."""


@dataclass
class Watched:
    """A process over time."""

    pid: int
    mb: list[float] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)

    def look(self) -> None:
        try:
            process = psutil.Process(self.pid)
            self.mb.append(process.memory_info().rss / MB)
            self.descriptors.append(process.num_fds())
        except psutil.Error:
            return

    def gained(self) -> tuple[float, float]:
        """MB and descriptors by which the end lies above the first fifth; 0 when there is too little to say."""
        part = len(self.mb) // 5
        if part < 3:
            return 0.0, 0.0
        # A file that is open for a moment is no leak: the fewest of each part count.
        fewest = min(self.descriptors[-part:]) - min(self.descriptors[part : 2 * part])
        return median(self.mb[-part:]) - median(self.mb[part : 2 * part]), float(max(0, fewest))


@dataclass
class Tally:
    """What happened."""

    runs: int = 0
    killed: int = 0
    stopped: int = 0
    paused: int = 0
    builds: int = 0
    opened: int = 0
    slowest_exit_s: float = 0.0
    failures: list[str] = field(default_factory=list)
    growth: float = 0.0
    descriptors: float = 0.0
    journal: float = 0.0
    checkpoints: int = 0


class Soak:
    """One workspace that is used without a rest."""

    def __init__(self, ws: Workspace, seed: int = 1) -> None:
        self.ws, self.chance, self.tally = ws, random.Random(seed), Tally()
        self.environment = {"H2Q_DATA_DIR": str(ws.root)}
        self.resume: str | None = None
        """A run that was killed or stopped, to be gone on with."""

    def prepare(self) -> None:
        """Conversations in memory and settings that need no answer."""
        ws = self.ws
        ws.settings_file.parent.mkdir(parents=True, exist_ok=True)
        ws.settings_file.write_text('language = "en"\nfirst_start_done = true\n', encoding="utf-8")
        environment = {**os.environ, **self.environment}
        sample = ws.root / "sample"
        for words in (["sample", str(sample)], ["memory", "import", str(sample)]):
            subprocess.run([*APP, *words], env=environment, check=True, capture_output=True)

    def go(self, seconds: float, app: Watched) -> None:
        """Training by turns with the rest until `seconds` have passed."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.train(app, min(end - time.monotonic(), 120.0))
            self.build(app)
            self.open_and_close(app)

    def train(self, app: Watched, seconds: float) -> None:
        """A run that ends by itself, or is killed, stopped or paused on the way."""
        self.tally.runs += 1
        first = shipped("data") / "sample" / "text" / "tinyshakespeare.txt"
        params = TrainParams(
            mode=TrainMode.SCRATCH,
            data=[str(first)],
            context=128,
            max_steps=400,
            checkpoint_every_s=1.0,
            promote=False,
            resume=self.resume,
        )
        resumed, self.resume = self.resume, None
        run = start(self.ws, params)
        watched, began, since = Watched(run.process.pid), time.monotonic(), time.time()
        fate = self.chance.choice(["end", "kill", "kill", "stop", "pause"])
        strikes = began + self.chance.uniform(0.3, 1.0) * seconds
        done = False
        while run.poll():
            time.sleep(TICK_S)
            app.look()
            if run.steps():
                watched.look()
            if not done and run.steps() and time.monotonic() > strikes:
                done = True
                self._strike(run, fate)
            last = run.steps()[-1][0] if run.steps() else since
            if time.time() - last > STUCK_S:
                self.tally.failures.append(f"{run.run.run_id} takes no step any more")
                run.process.kill()
                break
            if time.monotonic() - began > 2 * seconds and not done:
                # A busy machine: the others must have their turn.
                done = True
                self._strike(run, "stop")
        run.process.wait()
        run.poll()
        self._note(run, watched, time.monotonic() - began, resumed)

    def _strike(self, run: EngineRun, fate: str) -> None:
        if fate == "kill":
            os.kill(run.process.pid, signal.SIGKILL)
            self.tally.killed += 1
        elif fate == "stop":
            os.kill(run.process.pid, signal.SIGTERM)
            self.tally.stopped += 1
        elif fate == "pause":
            try:
                for command, value in (("pause", ""), ("resume", ""), ("set", "max_memory_gb=2.0")):
                    control.send_sync(run.run, command, value, timeout=60)
                    time.sleep(1.0)
                self.tally.paused += 1
            except H2QError:
                pass  # it ended meanwhile

    def _note(self, run: EngineRun, watched: Watched, seconds: float, resumed: str | None) -> None:
        tally = self.tally
        if run.process.returncode in (-signal.SIGKILL, 130):
            # Without a checkpoint there is nothing to go on from.
            made = any(isinstance(record.event, events.CheckpointWritten) for record in run.records)
            self.resume = run.run.run_id if made else resumed
        elif not run.done:
            tally.failures.append(f"{run.run.run_id}: {run.error}")
        mb, descriptors = watched.gained()
        tally.growth, tally.descriptors = max(tally.growth, mb), max(tally.descriptors, descriptors)
        size = run.run.events_path.stat().st_size
        tally.journal = max(tally.journal, size / max(seconds, 1.0))
        whole = [path for path in run.run.checkpoints.glob("scratch-*") if path.is_dir()]
        tally.checkpoints = max(tally.checkpoints, len(whole))

    def build(self, app: Watched) -> None:
        """The corpus anew."""
        run = start(self.ws, CorpusParams())
        run.wait(600)
        app.look()
        self.tally.builds += 1
        if not run.done:
            self.tally.failures.append(f"corpus: {run.error}")

    def open_and_close(self, app: Watched) -> None:
        """Another app beside the open one, left with `q`."""
        with PtyProcess(APP, self.environment) as terminal:
            terminal.read(120, until=b"Train")
            os.write(terminal.master, b"q")
            code, seconds = terminal.wait(LEAVES_S)
        self.tally.opened += 1
        self.tally.slowest_exit_s = max(self.tally.slowest_exit_s, seconds)
        app.look()
        if code is None:
            self.tally.failures.append(f"the app was still there {seconds:.0f} s after q")
        elif code != 0:
            self.tally.failures.append(f"the app left with {code}")


def soak(full: bool) -> list[BenchResult]:
    """Everything at once for the time given; what grew, what was left behind and what failed."""
    minutes = float(os.environ.get("H2Q_BENCH_MINUTES", "20" if full else "0.5"))
    # Benchmarks before this one may have left theirs running, such as a fork server.
    earlier = set(psutil.Process().children())
    with tempfile.TemporaryDirectory(prefix="soak-", dir=os.environ.get("H2Q_BENCH_DIR")) as folder:
        ws = Workspace(Path(folder) / "ws")
        one = Soak(ws)
        one.prepare()
        with PtyProcess(APP, one.environment, columns=120, rows=40) as terminal:
            terminal.read(120, until=b"Train")
            app = Watched(terminal.process.pid)
            drain = _Drain(terminal)
            try:
                one.go(minutes * 60, app)
            finally:
                drain.end()
        half = len(list(ws.runs.glob("*/checkpoints/.writing-*")))
        begun = set(psutil.Process().children()) - earlier
        alive = [process for process in begun if process.status() != psutil.STATUS_ZOMBIE]
        size = sum(file.stat().st_size for file in ws.root.rglob("*") if file.is_file()) / MB
    tally = one.tally
    mb, descriptors = app.gained()
    text = (
        f"{minutes:g} minutes: {tally.runs} trainings, {tally.killed} killed, {tally.stopped} stopped, "
        f"{tally.paused} paused, {tally.builds} corpus builds, {tally.opened} apps opened and closed, "
        f"the slowest gone {tally.slowest_exit_s:.1f} s after q"
    )
    left = len(alive) + max(0, half - tally.killed)
    failed = "; ".join(tally.failures[:5])

    def limit(name: str, value: float, most: float, unit: str, notes: str) -> BenchResult:
        return compare(
            f"soak.{name}",
            ours=max(value, 0.01),
            baseline=most,
            target=1.0,
            unit=unit,
            lower_is_better=True,
            notes=notes,
        )

    return [
        limit(
            "failures", len(tally.failures) + 0.01, 0.5, "failures", f"{text}{'; ' if failed else ''}{failed}"
        ),
        limit("app.growth", mb, APP_GROWTH_MB, "MB", "resident memory of the app that was open all the time"),
        limit(
            "app.descriptors", descriptors, DESCRIPTORS, "descriptors", f"{app.descriptors[-1]} at the end"
        ),
        limit(
            "run.growth", tally.growth, RUN_GROWTH_MB, "MB", "the most that a run grew after its first fifth"
        ),
        limit("run.descriptors", tally.descriptors, DESCRIPTORS, "descriptors", "the most that a run gained"),
        limit(
            "journal",
            tally.journal,
            JOURNAL,
            "bytes/s",
            f"the fastest journal; the workspace has {size:,.0f} MB",
        ),
        limit("checkpoints", tally.checkpoints, KEPT, "checkpoints", "the most that a run had at its end"),
        limit(
            "left",
            left + 0.01,
            0.5,
            "things",
            "processes, and half-written checkpoints beyond one for each kill",
        ),
    ]


class _Drain:
    """Reads what the open app draws: a terminal that nobody reads from would stop it."""

    def __init__(self, terminal: PtyProcess) -> None:
        import threading

        self._terminal, self._ended = terminal, threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while not self._ended.is_set():
            self._terminal.read(0.5, until=None)
            self._terminal.output = b""

    def end(self) -> None:
        self._ended.set()
        self._thread.join()


BENCHMARKS = (Benchmark("soak", "training, kills, corpus builds and the app, over and over", soak, 60),)
