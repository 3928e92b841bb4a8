"""Real engine processes: they outlive their parent, handle commands and signals, and their death is detected."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.core.paths import Workspace
from engine.runs import launch, runner
from engine.runs.control import send_sync, socket_path
from engine.runs.events import CommandHandled, JournalRecord, RunStatus
from engine.runs.kinds import ImportParams
from engine.runs.rundir import RunDir, follow, load_view, summarise, training_run_id
from engine.runs.spec import make_spec
from engine.runs.view import RunView
from tests import run_kinds

PATIENCE_S = 20.0


def wait_for(condition: Callable[[], object], description: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"timed out waiting for {description}"
        time.sleep(0.02)


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "KINDS", run_kinds.use_here())


@pytest.fixture
def start(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], RunDir]]:
    """Launches a detached engine with the named behaviour; kills those still alive afterwards."""
    monkeypatch.setattr(launch, "_engine_command", run_kinds.engine_command)
    started: list[RunDir] = []

    def begin(behaviour: str) -> RunDir:
        run = launch.launch(ws, run_kinds.spec(ws.root, behaviour))
        started.append(run)
        return run

    yield begin
    for run in started:
        pid = load_view(run).pid
        if run.alive() and pid is not None:
            os.kill(pid, signal.SIGKILL)
        ended(run)


def stepping(run: RunDir) -> int:
    wait_for(lambda: load_view(run).step > 3, "steps")
    pid = load_view(run).pid
    assert pid is not None
    return pid


def ended(run: RunDir) -> RunView:
    wait_for(lambda: not run.alive(), "the end of the run")
    return load_view(run)


def test_a_run_is_alive_from_its_launch_and_records_its_end(start: Callable[[str], RunDir]) -> None:
    run = start("quick")
    assert run.alive()
    view = RunView(run.spec)
    for records in follow(run):
        for record in records:
            view.apply(record)
    assert view.status is RunStatus.DONE
    assert view.finished is not None
    assert json.loads(bytes(view.finished.result)) == {"answer": 42}
    assert view.step == 10
    assert view.peak_memory_mb
    assert view.peak_memory_mb > 5
    wait_for(lambda: not run.alive(), "the lock to be freed")
    assert summarise(run).status is RunStatus.DONE
    assert not socket_path(run).exists()
    assert not (run.path / ".reserve").exists()


def test_the_engine_has_its_own_session_and_ignores_sighup(
    start: Callable[[str], RunDir],
) -> None:
    run = start("until_stopped")
    pid = stepping(run)
    assert os.getsid(pid) == pid
    assert os.getsid(pid) != os.getsid(0)
    before = load_view(run).step
    os.kill(pid, signal.SIGHUP)
    wait_for(lambda: load_view(run).step > before, "more steps after a hang-up")


def test_the_engine_has_a_lower_priority() -> None:
    code = (
        "import os; from engine.runs.runner import lower_priority as f; f(); f(); print(os.getpriority(0, 0))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=run_kinds.ROOT)
    assert int(done.stdout) >= 10


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="needs Linux with autogroup")
@pytest.mark.parametrize("own_session", [True, False])
def test_a_session_of_its_own_is_nice_as_a_whole_and_that_of_a_terminal_is_not(own_session: bool) -> None:
    shown = "print(open('/proc/self/autogroup').read().split()[-1])"
    before = subprocess.run([sys.executable, "-c", shown], capture_output=True, text=True)
    done = subprocess.run(
        [sys.executable, "-c", f"from engine.runs.runner import lower_priority as f; f(); {shown}"],
        capture_output=True, text=True, cwd=run_kinds.ROOT, start_new_session=own_session,
    )  # fmt: skip
    assert done.stdout == ("10\n" if own_session else before.stdout)


def test_a_killed_engine_is_dead_and_keeps_its_history(start: Callable[[str], RunDir]) -> None:
    run = start("until_stopped")
    os.kill(stepping(run), signal.SIGKILL)
    view = ended(run)
    assert summarise(run).status is RunStatus.DEAD
    assert view.step > 3
    assert [records for records in follow(run) if records]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_writes_a_checkpoint_and_stops(start: Callable[[str], RunDir], number: int) -> None:
    run = start("until_stopped")
    os.kill(stepping(run), number)
    view = ended(run)
    assert view.status is RunStatus.STOPPED
    assert view.finished is not None
    assert view.finished.exit_code == 130
    assert view.last_checkpoint is not None
    assert [command.name for command in view.commands] == ["stop"]


def test_a_second_signal_ends_an_engine_that_does_not_poll(start: Callable[[str], RunDir]) -> None:
    run = start("deaf")
    wait_for(lambda: load_view(run).stage, "the stage")
    pid = load_view(run).pid
    assert pid is not None
    os.kill(pid, signal.SIGTERM)
    os.kill(pid, signal.SIGINT)
    assert ended(run).status is RunStatus.STOPPED


def test_commands_are_answered_and_journalled(
    start: Callable[[str], RunDir],
) -> None:
    run = start("until_stopped")
    stepping(run)
    assert send_sync(run, "pause").accepted
    wait_for(lambda: load_view(run).status is RunStatus.PAUSED, "the pause")
    step = load_view(run).step
    assert send_sync(run, "set", "lr=0.01").text.startswith("lr=0.01 from step")
    assert send_sync(run, "checkpoint").accepted
    assert load_view(run).step == step
    assert send_sync(run, "resume").accepted
    wait_for(lambda: load_view(run).step > step, "steps after the pause")
    assert send_sync(run, "stop").accepted
    view = ended(run)
    assert view.status is RunStatus.STOPPED
    assert [c.name for c in view.commands] == ["pause", "set", "checkpoint", "resume", "stop"]
    assert [mark.text for mark in view.annotations] == ["paused", "lr=0.01"]


def test_a_second_training_is_queued_until_the_first_ends(
    start: Callable[[str], RunDir], ws: Workspace
) -> None:
    first = start("until_stopped")
    stepping(first)
    assert training_run_id(ws) == first.run_id
    second = start("until_stopped")
    wait_for(lambda: load_view(second).status is RunStatus.QUEUED and load_view(second).reason, "the queue")
    assert first.run_id in load_view(second).reason
    refused = start("impatient")
    view = ended(refused)
    assert view.finished is not None
    assert view.finished.exit_code == 5
    assert first.run_id in view.finished.error
    send_sync(first, "stop")
    stepping(second)
    assert training_run_id(ws) == second.run_id


def test_a_queued_run_can_be_stopped(start: Callable[[str], RunDir]) -> None:
    first = start("until_stopped")
    stepping(first)
    second = start("until_stopped")
    wait_for(lambda: load_view(second).reason, "the queue")
    send_sync(second, "stop")
    assert ended(second).status is RunStatus.STOPPED
    assert first.alive()


@pytest.mark.parametrize(
    ("behaviour", "status", "code", "words"),
    [
        ("bad_input", RunStatus.FAILED, 2, "the file is empty: a.json, line 3 → h2q-tui sample"),
        ("too_little", RunStatus.SKIPPED, 3, "49 of 50 pairs"),
        ("no_memory", RunStatus.FAILED, 5, "out of memory"),
        ("disk_full", RunStatus.FAILED, 5, "the disk is full: model.safetensors"),
        ("crash", RunStatus.FAILED, 5, "ZeroDivisionError: the secret of line one"),
        ("call_home", RunStatus.FAILED, 5, "work offline"),
    ],
)
@pytest.mark.usefixtures("here")
def test_every_failure_is_one_sentence_and_an_exit_code(
    ws: Workspace, behaviour: str, status: RunStatus, code: int, words: str
) -> None:
    assert launch.run_in_foreground(ws, run_kinds.spec(ws.root, behaviour)) == code
    summary = summarise(RunDir(next(ws.runs.glob("[0-9]*"))))
    assert summary.status is status
    assert words in summary.error
    assert "\n" not in summary.error
    assert "Traceback" not in summary.error


@pytest.mark.usefixtures("here")
def test_a_traceback_goes_to_the_engine_log_only(ws: Workspace, capfd: pytest.CaptureFixture[str]) -> None:
    launch.run_in_foreground(ws, run_kinds.spec(ws.root, "crash"))
    run = RunDir(next(ws.runs.glob("[0-9]*")))
    assert "Traceback" in run.log_path.read_text()
    assert "and a second line" in run.log_path.read_text()
    assert b"Traceback" not in run.events_path.read_bytes()
    out, err = capfd.readouterr()
    assert out == err == ""


@pytest.mark.usefixtures("here")
def test_output_of_libraries_in_the_foreground_goes_to_the_log(
    ws: Workspace, capfd: pytest.CaptureFixture[str]
) -> None:
    assert launch.run_in_foreground(ws, run_kinds.spec(ws.root, "noisy")) == 0
    run = RunDir(next(ws.runs.glob("[0-9]*")))
    assert "printed by a library" in run.log_path.read_text()
    assert capfd.readouterr().out == ""


@pytest.mark.usefixtures("here")
def test_the_foreground_shows_every_record_and_survives_a_closed_terminal(ws: Workspace) -> None:
    seen: list[JournalRecord] = []

    def show(record: JournalRecord) -> None:
        seen.append(record)
        if len(seen) == 3:
            raise BrokenPipeError

    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    assert launch.run_in_foreground(ws, run_kinds.spec(ws.root, "quick"), show) == 0
    assert len(seen) == 3
    assert load_view(RunDir(next(ws.runs.glob("[0-9]*")))).step == 10
    assert handlers == [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]


def test_a_running_run_is_not_executed_twice(start: Callable[[str], RunDir]) -> None:
    run = start("until_stopped")
    stepping(run)
    from engine.core.errors import Busy

    with pytest.raises(Busy, match=run.run_id):
        runner.main(run.path)


def test_commands_and_followers_do_not_disturb_the_journal(start: Callable[[str], RunDir]) -> None:
    run = start("until_stopped")
    stepping(run)
    first, second = follow(run), follow(run)
    one = [record for _n in range(5) for record in next(first)]
    other = [record for _n in range(5) for record in next(second)]
    shorter = min(len(one), len(other))
    assert shorter > 3
    assert one[:shorter] == other[:shorter]
    send_sync(run, "stop")
    view = ended(run)
    assert view.dropped_records == 0
    assert isinstance(view.commands[-1], CommandHandled)


def test_the_real_engine_command_starts_detached_and_fails_in_one_sentence(ws: Workspace) -> None:
    missing = ws.root / "nothing.json"
    run = launch.launch(ws, make_spec(ws.root, ImportParams(paths=[str(missing)])))
    view = ended(run)
    assert view.finished is not None, run.log_path.read_text()
    assert view.finished.exit_code == 2
    assert "nothing.json" in view.finished.error


def test_a_broken_spec_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "spec.json").write_text("{}")
    done = subprocess.run(
        [sys.executable, "-m", "engine", "run", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=run_kinds.ROOT,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "specification is invalid" in done.stderr


_SYSTEMD_RUN = """#!{python}
import os, sys
if {close}:
    os.closerange(3, 100)
command = sys.argv[sys.argv.index("--") + 1:]
os.execvp(command[0], command)
"""


@pytest.mark.parametrize("close", [False, True], ids=["kept", "closed"])
@pytest.mark.skipif(sys.platform != "linux", reason="systemd is for Linux")
def test_in_a_systemd_scope_the_lock_is_inherited_or_acquired_again(
    ws: Workspace, start: Callable[[str], RunDir], monkeypatch: pytest.MonkeyPatch, close: bool
) -> None:
    """With a stand-in for `systemd-run` that, as the real one does with --scope, becomes the command."""
    tools = ws.root / "tools"
    (tools / "systemd").mkdir(parents=True)
    (tools / "systemd" / "private").touch()
    stand_in = tools / "systemd-run"
    stand_in.write_text(_SYSTEMD_RUN.format(python=sys.executable, close=close))
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", str(tools), prepend=os.pathsep)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tools))
    launch._scope_works.cache_clear()
    try:
        run = start("until_stopped")
        stepping(run)
        assert load_view(run).scope == launch.SYSTEMD_SCOPE
        assert run.alive()
        assert send_sync(run, "stop").accepted
        assert ended(run).status is RunStatus.STOPPED
    finally:
        launch._scope_works.cache_clear()
