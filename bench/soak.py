"""Soak test: training, kills, corpus builds, and the app opened and closed, repeatedly.

`python -m bench soak --minutes 480` sets the duration (default: half a minute in the short form, 20 minutes in the
full one). One app stays open throughout and follows every run.
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
"""Limits: growth of the app and of a run, additional file descriptors of a process, journal bytes per second."""
MAX_CHECKPOINTS = 6.0
"""Per phase: the two newest, the best, the rollback target, and an hourly one, before one is deleted."""
TICK_S = 0.5
STUCK_S = 300.0
"""Maximum time between two steps of a run, on a machine that may be busy."""
EXIT_S = 20.0
"""Maximum time from `q` to the end of the app's process; on an idle machine it takes less than a second."""


@dataclass
class ProcessSamples:
    """Memory and file descriptors of a process over time."""

    pid: int
    mb: list[float] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)

    def sample(self) -> None:
        try:
            process = psutil.Process(self.pid)
            self.mb.append(process.memory_info().rss / MB)
            self.descriptors.append(process.num_fds())
        except psutil.Error:
            return

    def growth(self) -> tuple[float, float]:
        """Increase in MB and descriptors from the second to the last fifth; 0 with too few samples."""
        part = len(self.mb) // 5
        if part < 3:
            return 0.0, 0.0
        # The minimum of each part: a briefly opened file is no leak.
        fewest = min(self.descriptors[-part:]) - min(self.descriptors[part : 2 * part])
        return median(self.mb[-part:]) - median(self.mb[part : 2 * part]), float(max(0, fewest))


@dataclass
class SoakTally:
    """Counts and peaks of the test."""

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
    """Uses one workspace without pause."""

    def __init__(self, ws: Workspace, seed: int = 1) -> None:
        self.ws, self.random, self.tally = ws, random.Random(seed), SoakTally()
        self.environment = {"H2Q_DATA_DIR": str(ws.root)}
        self.resume: str | None = None
        """Id of a killed or stopped run to resume."""

    def prepare(self) -> None:
        """Imports the sample and writes settings that skip the first-start dialog."""
        ws = self.ws
        ws.settings_file.parent.mkdir(parents=True, exist_ok=True)
        ws.settings_file.write_text('language = "en"\nfirst_start_done = true\n', encoding="utf-8")
        environment = {**os.environ, **self.environment}
        sample = ws.root / "sample"
        for words in (["sample", str(sample)], ["memory", "import", str(sample)]):
            subprocess.run([*APP, *words], env=environment, check=True, capture_output=True)

    def repeat(self, seconds: float, app: ProcessSamples) -> None:
        """Alternates training, corpus builds and app starts until `seconds` have passed."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.train(app, min(end - time.monotonic(), 120.0))
            self.build(app)
            self.open_and_close(app)

    def train(self, app: ProcessSamples, seconds: float) -> None:
        """A run that ends normally, or is killed, stopped or paused on the way."""
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
        watched, began, since = ProcessSamples(run.process.pid), time.monotonic(), time.time()
        action = self.random.choice(["end", "kill", "kill", "stop", "pause"])
        intervene_at = began + self.random.uniform(0.3, 1.0) * seconds
        done = False
        while run.poll():
            time.sleep(TICK_S)
            app.sample()
            if run.steps():
                watched.sample()
            if not done and run.steps() and time.monotonic() > intervene_at:
                done = True
                self._intervene(run, action)
            last = run.steps()[-1][0] if run.steps() else since
            if time.time() - last > STUCK_S:
                self.tally.failures.append(f"{run.run.run_id} takes no more steps")
                run.process.kill()
                break
            if time.monotonic() - began > 2 * seconds and not done:
                # On a busy machine: leave time for the other activities.
                done = True
                self._intervene(run, "stop")
        run.process.wait()
        run.poll()
        self._record(run, watched, time.monotonic() - began, resumed)

    def _intervene(self, run: EngineRun, action: str) -> None:
        if action == "kill":
            os.kill(run.process.pid, signal.SIGKILL)
            self.tally.killed += 1
        elif action == "stop":
            os.kill(run.process.pid, signal.SIGTERM)
            self.tally.stopped += 1
        elif action == "pause":
            try:
                for command, value in (("pause", ""), ("resume", ""), ("set", "max_memory_gb=2.0")):
                    control.send_sync(run.run, command, value, timeout=60)
                    time.sleep(1.0)
                self.tally.paused += 1
            except H2QError:
                pass  # the run has ended

    def _record(self, run: EngineRun, watched: ProcessSamples, seconds: float, resumed: str | None) -> None:
        tally = self.tally
        if run.process.returncode in (-signal.SIGKILL, 130):
            # Without a checkpoint there is nothing to resume from.
            has_checkpoint = any(isinstance(record.event, events.CheckpointWritten) for record in run.records)
            self.resume = run.run.run_id if has_checkpoint else resumed
        elif not run.done:
            tally.failures.append(f"{run.run.run_id}: {run.error}")
        mb, descriptors = watched.growth()
        tally.growth, tally.descriptors = max(tally.growth, mb), max(tally.descriptors, descriptors)
        size = run.run.events_path.stat().st_size
        tally.journal = max(tally.journal, size / max(seconds, 1.0))
        complete = [path for path in run.run.checkpoints.glob("scratch-*") if path.is_dir()]
        tally.checkpoints = max(tally.checkpoints, len(complete))

    def build(self, app: ProcessSamples) -> None:
        """Rebuilds the corpus."""
        run = start(self.ws, CorpusParams())
        run.wait(600)
        app.sample()
        self.tally.builds += 1
        if not run.done:
            self.tally.failures.append(f"corpus: {run.error}")

    def open_and_close(self, app: ProcessSamples) -> None:
        """Starts a second app and exits it with `q`."""
        with PtyProcess(APP, self.environment) as terminal:
            terminal.read(120, until=b"Train")
            os.write(terminal.master, b"q")
            code, seconds = terminal.wait(EXIT_S)
        self.tally.opened += 1
        self.tally.slowest_exit_s = max(self.tally.slowest_exit_s, seconds)
        app.sample()
        if code is None:
            self.tally.failures.append(f"the app was still running {seconds:.0f} s after q")
        elif code != 0:
            self.tally.failures.append(f"the app exited with {code}")


def soak(full: bool) -> list[BenchResult]:
    """Runs the soak test; reports growth, leftovers and failures."""
    minutes = float(os.environ.get("H2Q_BENCH_MINUTES", "20" if full else "0.5"))
    # Earlier benchmarks may have left processes, such as a fork server.
    earlier = set(psutil.Process().children())
    with tempfile.TemporaryDirectory(prefix="soak-", dir=os.environ.get("H2Q_BENCH_DIR")) as folder:
        ws = Workspace(Path(folder) / "ws")
        test = Soak(ws)
        test.prepare()
        with PtyProcess(APP, test.environment, columns=120, rows=40) as terminal:
            terminal.read(120, until=b"Train")
            app = ProcessSamples(terminal.process.pid)
            drain = _Drain(terminal)
            try:
                test.repeat(minutes * 60, app)
            finally:
                drain.end()
        partial = len(list(ws.runs.glob("*/checkpoints/.writing-*")))
        children = set(psutil.Process().children()) - earlier
        alive = [process for process in children if process.status() != psutil.STATUS_ZOMBIE]
        size = sum(file.stat().st_size for file in ws.root.rglob("*") if file.is_file()) / MB
    tally = test.tally
    mb, descriptors = app.growth()
    text = (
        f"{minutes:g} minutes: {tally.runs} trainings, {tally.killed} killed, {tally.stopped} stopped, "
        f"{tally.paused} paused, {tally.builds} corpus builds, {tally.opened} apps opened and closed, "
        f"slowest exit {tally.slowest_exit_s:.1f} s after q"
    )
    left = len(alive) + max(0, partial - tally.killed)
    failed = "; ".join(tally.failures[:5])

    def limit(name: str, value: float, maximum: float, unit: str, notes: str) -> BenchResult:
        return compare(
            f"soak.{name}",
            ours=max(value, 0.01),
            baseline=maximum,
            target=1.0,
            unit=unit,
            lower_is_better=True,
            notes=notes,
        )

    return [
        limit(
            "failures", len(tally.failures) + 0.01, 0.5, "failures", f"{text}{'; ' if failed else ''}{failed}"
        ),
        limit("app.growth", mb, APP_GROWTH_MB, "MB", "resident memory of the app that stayed open"),
        limit(
            "app.descriptors", descriptors, DESCRIPTORS, "descriptors", f"{app.descriptors[-1]} at the end"
        ),
        limit(
            "run.growth", tally.growth, RUN_GROWTH_MB, "MB", "largest growth of a run after its first fifth"
        ),
        limit("run.descriptors", tally.descriptors, DESCRIPTORS, "descriptors", "largest increase in a run"),
        limit(
            "journal",
            tally.journal,
            JOURNAL,
            "bytes/s",
            f"fastest-growing journal; workspace size {size:,.0f} MB",
        ),
        limit(
            "checkpoints",
            tally.checkpoints,
            MAX_CHECKPOINTS,
            "checkpoints",
            "most checkpoints at the end of a run",
        ),
        limit(
            "left",
            left + 0.01,
            0.5,
            "things",
            "processes, and partial checkpoints beyond one per kill",
        ),
    ]


class _Drain:
    """Reads the output of the open app, which would block on a full terminal buffer."""

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


BENCHMARKS = (
    Benchmark("soak", "training, kills, corpus builds and app starts, repeatedly", soak, 60, long=True),
)
