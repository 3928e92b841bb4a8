"""The watcher: rounds over real run folders, a real process that outlives kill -9, and the table of injected faults."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from engine.alerts.alert_state import NoticeKind
from engine.alerts.collect import MachineCollector, oom_kills
from engine.alerts.cycle import run_cycle
from engine.alerts.delivery import deliver, open_channel
from engine.alerts.desk import acknowledge_alerts, mute_alerts, open_alerts
from engine.alerts.machine_rules import GB
from engine.alerts.message import MessagePlace
from engine.alerts.readings import AlertLevel, MachineReading
from engine.alerts.run_collect import RunCollector
from engine.alerts.store import AlertStore
from engine.alerts.watcher import Watcher
from engine.core.config import save_settings
from engine.core.credentials import save_secrets
from engine.core.paths import Workspace
from engine.core.settings import Settings
from engine.machine.history_file import HistoryFile
from engine.runs import events as e
from engine.runs import lock
from engine.runs.events import RunStatus
from engine.runs.journal import JournalWriter
from engine.runs.kinds import TrainParams
from engine.runs.launch import NO_WATCH, WATCH_LOCK, create_run, start_watcher
from engine.runs.own_process import engine_command, engine_environment
from engine.runs.rundir import RunDir
from engine.runs.spec import make_spec
from tests.alert_servers import smtp_server

START = 1_764_400_000.0
TICK = 5.0


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    ws = Workspace(tmp_path / "data")
    ws.runs.mkdir(parents=True)
    return ws


@dataclass
class TrainingRun:
    """A run folder that a test drives: a journal with a clock of its own, and the lock."""

    run: RunDir
    now: Callable[[], float]
    journal: JournalWriter = field(init=False)
    held: int | None = None

    def __post_init__(self) -> None:
        self.journal = JournalWriter(self.run.events_path, clock=self.now)
        self.begin()

    def begin(self) -> None:
        self.held = lock.acquire(self.run.lock_path)
        self.journal.write(e.Started(pid=os.getpid(), program="0"))
        self.journal.write(e.StageChanged(name="native", state="started"))

    def step(self, number: int, *, loss: float | None = 1.5, speed: float = 1000.0) -> None:
        self.journal.write(
            e.Step(
                phase="native", step=number, max_steps=5000, loss=loss, finite=loss is not None, lr=0.1,
                tokens=number, tokens_per_s=speed,
            )
        )  # fmt: skip

    def end(self) -> None:
        """Gives up the lock, as the kernel does for a process that is gone."""
        assert self.held is not None
        os.close(self.held)
        self.held = None

    def finish(self, status: RunStatus, error: str = "", log: str = "") -> None:
        self.run.log_path.write_text(log, encoding="utf-8")
        self.journal.write(e.Finished(status=status, exit_code=0, error=error))
        self.end()


CALM = MachineReading(
    t=START, cpu_percent=97.0, cpu_others_percent=5.0, memory_percent=60.0, memory_available=6 * GB, swap_grown=0,
    oom_kills=0, disk_free=80 * GB, temperature_c=70.0, ollama=True,
)  # fmt: skip
Bench = tuple["Simulated", TrainingRun]


class Simulated:
    """A watch with a clock that the test turns: rounds of the real cycle over real folders and a real database."""

    def __init__(self, workspace: Workspace, settings: Settings | None = None) -> None:
        self.workspace, self.now = workspace, START
        self.settings = settings or Settings(alert_channels={"mail": {"kind": "mail"}})
        self.machine: dict[str, object] = {}
        self.run = TrainingRun(
            create_run(
                workspace, msgspec.structs.replace(make_spec(workspace.root, TrainParams()), created_at=START)
            ),
            self.clock,
        )
        self.collector = RunCollector(workspace, clock=self.clock)
        self.store = AlertStore(workspace)
        self.hidden: tuple[str, ...] = ()
        self.steps = 0
        self.speed, self.loss, self.stepping, self.beating = 1000.0, 1.5, True, True

    def clock(self) -> float:
        return self.now

    def restart(self) -> None:
        """A new watcher that knows only what is in the database."""
        self.collector = RunCollector(self.workspace, before=[self.run.run.run_id], clock=self.clock)

    def round(self) -> None:
        self.now += TICK
        if self.run.held is not None:
            if self.beating:
                self.run.journal.write(e.MemoryUsage(used_mb=900.0, peak_mb=900.0, budget_mb=4096.0))
            if self.stepping:
                self.steps += 1
                self.run.step(self.steps, loss=self.loss, speed=self.speed)
        machine = msgspec.structs.replace(CALM, t=self.now, **self.machine)
        keep = {state.subject for state in self.store.states().values() if state.firing}
        runs = self.collector.read(keep=keep)
        place = MessagePlace(
            host="mini", folder=self.workspace.root, machine=machine, runs={run.run_id: run for run in runs}
        )
        run_cycle(self.store, machine, runs, self.settings, place, secrets=self.hidden)

    def rounds(self, seconds: float, tick: float = TICK) -> None:
        for _round in range(int(seconds / tick)):
            self.now += tick - TICK
            self.round()

    def told(self) -> list[tuple[str, str]]:
        """Kind and rule of every notice, oldest first."""
        notices = self.store.notices(500)
        return [(one.kind, one.fingerprints[0].partition(":")[0]) for one in reversed(notices)]


OOM = 'Traceback (most recent call last):\n  File "/x/loop.py", line 3, in step\nRuntimeError: can\'t allocate memory\n'


@dataclass(frozen=True)
class InjectedFault:
    """How to break something, how to repair it, and what must be sent."""

    rule: str
    breaks: Callable[[Simulated], object]
    repairs: Callable[[Simulated], object]
    begins_after: float = 0.0
    """Seconds that the fault itself takes to be one, as a silence of a minute."""


def machine(**values: object) -> Callable[[Simulated], object]:
    return lambda bench: bench.machine.update(values)


def well(bench: Simulated) -> None:
    bench.machine.clear()


def set_run(**values: object) -> Callable[[Simulated], object]:
    return lambda bench: vars(bench).update(values)


def fails(log: str) -> Callable[[Simulated], object]:
    return lambda bench: bench.run.finish(RunStatus.FAILED, "it failed", log)


def resumes(bench: Simulated) -> None:
    bench.run.begin()


def emits(event: e.Event) -> Callable[[Simulated], object]:
    return lambda bench: bench.run.journal.write(event)


def well_past(bench: Simulated) -> None:
    bench.steps += 300


def slows_down(bench: Simulated) -> None:
    bench.machine["cpu_percent"], bench.speed = 60.0, 300.0


def speeds_up(bench: Simulated) -> None:
    bench.machine.clear()
    bench.speed = 1000.0


INJECTED = {
    "CPU by others": InjectedFault("machine.cpu", machine(cpu_others_percent=97.0), well),
    "CPU, training slower": InjectedFault("machine.cpu", set_run(speed=700.0), set_run(speed=1000.0)),
    "memory": InjectedFault("machine.memory", machine(memory_percent=91.0), well),
    "memory nearly gone": InjectedFault("machine.memory", machine(memory_percent=98.0), well),
    "swap": InjectedFault("machine.swap", machine(swap_grown=2 * GB), well),
    "killed by the kernel": InjectedFault("machine.oom", machine(oom_kills=1), well),
    "disk": InjectedFault("machine.disk", machine(disk_free=3 * GB), well),
    "disk full soon": InjectedFault("machine.disk_soon", machine(disk_full_in_s=3600.0), well),
    "heat": InjectedFault("machine.heat", machine(temperature_c=97.0), well),
    "battery": InjectedFault("machine.battery", machine(battery_percent=12.0), well),
    "Ollama": InjectedFault("machine.ollama", machine(ollama=False), well),
    "out of memory": InjectedFault("run.failed", fails(OOM), resumes),
    "no module": InjectedFault("run.failed", fails(OOM.replace("RuntimeError: can't allocate memory", "ModuleNotFoundError: No module named 'x'")), resumes),
    "disk full": InjectedFault("run.failed", fails(OOM.replace("RuntimeError: can't allocate memory", "OSError: [Errno 28] No space left")), resumes),
    "killed": InjectedFault("run.died", lambda bench: bench.run.end(), resumes),
    "silent": InjectedFault("run.silent", set_run(beating=False, stepping=False), set_run(beating=True, stepping=True), 60.0),
    "stalled": InjectedFault("run.stalled", set_run(stepping=False), set_run(stepping=True), 1800.0),
    "diverged": InjectedFault("run.diverged", emits(e.RecoveryAction(phase="native", step=9, cause="divergence", action="returned", back_to=5)), well_past),
    "not finite": InjectedFault("run.not_finite", set_run(loss=None), set_run(loss=1.5)),
    "loss rises": InjectedFault("run.loss_rises", set_run(loss=9.0), set_run(loss=1.5)),
    "no checkpoint": InjectedFault("run.checkpoint", emits(e.CheckpointFailed(phase="native", step=9, reason="full")), emits(e.CheckpointWritten(phase="native", step=10, path="c", seconds=0.1, bytes=9))),
    "too hot to train": InjectedFault("run.paused", emits(e.StatusChanged(status=RunStatus.PAUSED, reason="too hot")), emits(e.StatusChanged(status=RunStatus.RUNNING))),
    "slow": InjectedFault("run.slow", slows_down, speeds_up),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(INJECTED))
def test_a_fault_is_told_within_a_minute_once_and_so_is_its_end(name: str, workspace: Workspace) -> None:
    fault, bench = INJECTED[name], Simulated(workspace)
    bench.rounds(200)
    assert bench.told() == []
    fault.breaks(bench)
    bench.rounds(fault.begins_after + 65)
    assert bench.told() == [("alert", fault.rule)]
    bench.restart()
    bench.rounds(400)
    assert bench.told() == [("alert", fault.rule)]
    fault.repairs(bench)
    bench.rounds(120)
    assert bench.told() == [("alert", fault.rule), ("recovery", fault.rule)]


def test_a_server_that_is_down_during_the_whole_fault_gets_both_messages_afterwards(
    workspace: Workspace,
) -> None:
    with smtp_server("plain") as gone:
        port = gone.port
    fields = {
        "kind": "mail",
        "host": "127.0.0.1",
        "port": str(port),
        "mode": "insecure",
        "from": "me@example.com",
        "to": "you@example.com",
    }
    settings = Settings(alert_channels={"mail": fields})
    save_settings(workspace, settings)
    bench = Simulated(workspace, settings)
    INJECTED["disk"].breaks(bench)
    for _attempt in range(8):
        bench.rounds(60)
        bench.restart()
        assert deliver(workspace, clock=bench.clock) == 0
    INJECTED["disk"].repairs(bench)
    bench.rounds(60)
    with smtp_server("plain", port=port) as box:
        bench.rounds(1800, tick=60)
        assert deliver(workspace, clock=bench.clock) == 2
    assert [mail["Subject"].partition("] ")[0] for mail in box.mails] == ["[error", "[over"]


def test_no_file_but_that_of_the_secrets_holds_one(
    workspace: Workspace, capfd: pytest.CaptureFixture[str]
) -> None:
    """A channel with a secret fails, a run's log and error quote it, and its run is reported: nothing shows it."""
    secret = "QWERTYUIOPASDFGH"
    fields = {"kind": "webhook", "private": "yes"}
    settings = Settings(alert_channels={"hook": fields})
    save_settings(workspace, settings)
    save_secrets(workspace, "hook", {"password": f"http://127.0.0.1:9/{secret}", "token": secret})
    bench = Simulated(workspace, settings)
    bench.collector.hide(open_channel(workspace, settings, "hook").secrets)
    bench.hidden = (secret,)
    bench.rounds(30)
    bench.run.finish(RunStatus.FAILED, f"login with {secret} failed", OOM + f"RuntimeError: token={secret}\n")
    own = {workspace.config / "secrets.json", bench.run.run.log_path, bench.run.run.events_path}
    bench.rounds(30)
    assert bench.told() == [("alert", "run.failed")]
    process = subprocess.run([*engine_command(), "deliver", str(workspace.root)], env=engine_environment())
    assert process.returncode == 0
    with AlertStore(workspace) as store:
        assert store.outbox(unsent=True)[0].error
    found = [
        path for path in workspace.root.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()
    ]
    assert set(found) == own
    assert secret not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("name", "title"),
    [("out of memory", "out of memory"), ("no module", "library"), ("disk full", "disk is full")],
)
def test_a_failed_training_is_told_with_its_kind_and_the_last_lines_of_its_log(
    name: str, title: str, workspace: Workspace
) -> None:
    bench = Simulated(workspace)
    bench.rounds(60)
    INJECTED[name].breaks(bench)
    bench.rounds(30)
    with AlertStore(workspace) as store:
        (notice,) = store.notices()
    assert title in notice.title and "loop.py" in notice.text and f"run {bench.run.run.run_id}" in notice.text


def test_a_busy_processor_that_slows_a_run_down_is_one_alert(workspace: Workspace) -> None:
    bench = Simulated(workspace)
    bench.rounds(300)
    bench.speed = 300.0
    bench.rounds(300)
    assert bench.told() == [("alert", "machine.cpu")]


def test_the_end_of_a_training_is_told_once(workspace: Workspace) -> None:
    bench = Simulated(workspace)
    bench.rounds(60)
    bench.run.journal.write(
        e.VerdictGiven(base="a", new="b", decision="keep", sentence="it stays", verdict=msgspec.Raw(b"null"))
    )
    bench.run.finish(RunStatus.DONE)
    bench.rounds(300)
    bench.restart()
    bench.rounds(300)
    assert sorted(bench.told()) == [("event", "run.finished"), ("event", "run.verdict")]


def test_a_run_that_was_stopped_by_its_person_is_no_news(workspace: Workspace) -> None:
    bench = Simulated(workspace)
    bench.rounds(60)
    bench.run.finish(RunStatus.STOPPED)
    bench.rounds(600)
    assert bench.told() == []


def test_a_run_that_died_while_no_watcher_was_there_is_told_by_the_next(workspace: Workspace) -> None:
    bench = Simulated(workspace)
    bench.rounds(60)
    bench.run.end()
    bench.now += 5000
    bench.restart()
    bench.rounds(30)
    assert bench.told() == [("alert", "run.died")]


def test_old_runs_of_the_workspace_are_not_brought_up_again(workspace: Workspace) -> None:
    bench = Simulated(workspace)
    bench.run.finish(RunStatus.FAILED, "it failed", OOM)
    bench.now += 5000
    bench.collector = RunCollector(workspace, clock=bench.clock)
    bench.rounds(60)
    assert bench.told() == []


def test_a_failure_is_over_when_another_training_has_taken_its_place(workspace: Workspace) -> None:
    bench = Simulated(workspace)
    bench.rounds(60)
    bench.run.finish(RunStatus.FAILED, "it failed", OOM)
    bench.rounds(400)
    again = msgspec.structs.replace(make_spec(workspace.root, TrainParams()), created_at=bench.now)
    bench.run = TrainingRun(create_run(workspace, again), bench.clock)
    bench.rounds(60)
    assert bench.told() == [("alert", "run.failed"), ("recovery", "run.failed")]


def test_no_channel_gets_what_is_below_the_level_of_the_settings(workspace: Workspace) -> None:
    channels = {"mail": {"kind": "mail"}, "robot": {"kind": "wecom"}}
    bench = Simulated(workspace, Settings(alert_channels=channels, alert_level="error"))
    bench.machine = {"memory_percent": 90.0, "disk_free": 3 * GB}
    bench.rounds(60)
    with AlertStore(workspace) as store:
        assert sorted((row.channel, row.level) for row in store.outbox()) == [
            ("mail", AlertLevel.ERROR), ("robot", AlertLevel.ERROR),
        ]  # fmt: skip
        assert len(store.notices()) == 2


def test_acknowledging_and_muting_reach_a_watcher_at_work(workspace: Workspace) -> None:
    bench = Simulated(workspace)
    bench.machine = {"disk_free": 3 * GB}
    mute_alerts(workspace, "machine.memory", 3600, now=START)
    bench.rounds(60)
    assert [state.rule for state in open_alerts(workspace)] == ["machine.disk"]
    assert [state.rule for state in acknowledge_alerts(workspace, "all", bench.now)] == ["machine.disk"]
    bench.machine["memory_percent"] = 90.0
    bench.rounds(5 * 3600, tick=60)
    told = bench.told()
    assert told[0] == ("alert", "machine.disk") and ("repeat", "machine.disk") not in told
    assert ("alert", "machine.memory") in told
    with AlertStore(workspace) as store:
        notice = next(one for one in store.notices() if "machine.memory" in one.fingerprints)
    assert notice.at >= START + 3600 and notice.kind == NoticeKind.ALERT


def test_the_counter_of_the_kernel_is_read_and_an_earlier_value_counts(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/vmstat").write_text("nr_free_pages 5\noom_kill 3\n", encoding="ascii")
    assert oom_kills(tmp_path) == 3
    reading = MachineCollector(tmp_path, oom_before=None).read()
    if reading.oom_kills is not None:
        assert reading.oom_kills == 0
        counter = MachineCollector(tmp_path, oom_before=-1)
        assert (counter.read().oom_kills or 0) >= 1


# The process


def watcher(workspace: Workspace) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*engine_command(), "watch", str(workspace.root), "--tick", "0.2"], env=engine_environment()
    )


def wait_for(condition: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def test_a_watcher_keeps_the_day_of_the_machine_and_of_the_run_on_it(workspace: Workspace) -> None:
    run = TrainingRun(create_run(workspace, make_spec(workspace.root, TrainParams())), time.time)
    run.step(3)
    (workspace.alerts).mkdir(parents=True, exist_ok=True)
    (workspace.alerts / WATCH_LOCK).touch()
    workspace.status.mkdir(parents=True, exist_ok=True)
    watching = Watcher(workspace)
    assert watching.round()
    (point,) = HistoryFile(workspace.machine_history).read(time.time())
    assert point.value("memory_used") and point.value("disk_free")
    assert point.value("tokens_per_s") == 1000.0
    run.end()
    watching.store.close()


def test_a_watcher_is_alone_outlives_kill_nine_and_ends_on_request(workspace: Workspace) -> None:
    with smtp_server("plain") as box:
        fields = {
            "kind": "mail",
            "host": "127.0.0.1",
            "port": str(box.port),
            "mode": "insecure",
            "from": "me@example.com",
            "to": "you@example.com",
        }
        save_settings(workspace, Settings(alert_channels={"mail": fields}, alert_level="critical"))
        run = TrainingRun(create_run(workspace, make_spec(workspace.root, TrainParams())), time.time)
        first = watcher(workspace)
        wait_for(lambda: lock.is_locked(workspace.alerts / WATCH_LOCK))
        assert watcher(workspace).wait(30) == 0
        with AlertStore(workspace) as store:
            wait_for(lambda: run.run.run_id in store.meta("watched"))
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        run.end()
        second = watcher(workspace)
        wait_for(lambda: any(state.rule == "run.died" for state in open_alerts(workspace)))

        def died() -> list[str]:
            # The watcher reads this machine too, whose disk may be full.
            subjects = [mail["Subject"].partition(": ")[2] for mail in box.mails]
            return [subject for subject in subjects if subject == "the run died"]

        wait_for(lambda: bool(died()))
        second.terminate()
        assert second.wait(30) == 0
        assert len(died()) == 1


def test_a_run_starts_a_watcher_unless_the_settings_or_the_environment_forbid_it(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []

    class Recorded:
        pid = 0

        def __init__(self, command: list[str], **_named: object) -> None:
            started.append(command)

        def wait(self) -> int:
            return 0

    monkeypatch.setattr("engine.runs.launch.subprocess.Popen", Recorded)
    spec = make_spec(workspace.root, TrainParams())
    start_watcher(workspace, spec)
    monkeypatch.delenv(NO_WATCH)
    save_settings(workspace, Settings(watch=False))
    start_watcher(workspace, spec)
    assert started == []
    save_settings(workspace, Settings(watch=True))
    start_watcher(workspace, spec)
    assert [command[-2:] for command in started] == [["watch", str(workspace.root)]]
    held = lock.acquire(workspace.alerts / WATCH_LOCK)
    start_watcher(workspace, spec)
    assert len(started) == 1 and held is not None
    os.close(held)
