"""The app on a real terminal: what it draws, how many bytes it sends, and how it leaves. Times are in bench/app.py."""

from __future__ import annotations

import os
import re
import signal
import threading
from pathlib import Path

import pytest

from engine.core.paths import Workspace
from engine.runs.events import CheckpointWritten, Evaluated, Log
from engine.runs.kinds import TrainMode, TrainParams
from engine.runs.launch import create_run
from engine.runs.spec import make_spec
from engine.workspace.open import open_workspace
from tests.tui.live_run import LiveRun, live_run
from tests.tui.terminal import terminal

DRAWN = b"keys"
"""On the screen when the first frame is there."""
WATCHED_S = 9.0
STEPS_PER_S = 5
MAX_STEP_BYTES = 1000


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    workspace = open_workspace(Workspace(tmp_path))
    (workspace.config / "h2q.toml").write_text("first_start_done = true\n", encoding="utf-8")
    return workspace


def test_the_first_frame_needs_no_key(ws: Workspace) -> None:
    with terminal(ws.root) as opened:
        assert DRAWN in opened.read(60.0, until=DRAWN)


def test_watching_a_run_sends_less_than_a_kilobyte_for_each_step(ws: Workspace) -> None:
    with live_run(ws, steps=400, done=40) as run, terminal(ws.root) as opened:
        opened.read(5.0, until=b"tok/s")
        opened.read(3.0)
        over = threading.Event()
        steps: list[int] = []
        writer = threading.Thread(target=_train, args=(run, over, steps))
        writer.start()
        try:
            seen = opened.read(WATCHED_S)
        finally:
            over.set()
            writer.join()
    assert b"tok/s" in opened.output
    assert len(seen) > 1000, "nothing was drawn"
    assert len(seen) < MAX_STEP_BYTES * len(steps)


def _train(run: LiveRun, over: threading.Event, steps: list[int]) -> None:
    number = 40
    while not over.wait(1 / STEPS_PER_S):
        number += 1
        steps.append(number)
        run.step(number, speed=28_000 + 37.0 * (number % 11))
        if number % 10 == 0:
            run.memory(2000 + 10.0 * (number % 7))
        if number % 40 == 0:
            run.write(Evaluated(phase="native", step=number, name="held-out", loss=1.5))
            run.write(CheckpointWritten(phase="native", step=number, path="x", seconds=0.03, bytes=9))


def test_an_idle_app_draws_almost_nothing(ws: Workspace) -> None:
    with terminal(ws.root) as opened:
        opened.read(10.0, until=DRAWN)
        opened.read(3.0)
        assert len(opened.read(5.0)) < 100


@pytest.mark.parametrize("term", ["xterm-256color", "screen"])
def test_control_sequences_of_a_journal_never_reach_the_terminal(ws: Workspace, term: str) -> None:
    with live_run(ws) as run:
        run.write(Log(level="error", text="\x1b]52;c;aGk=\x07\x1b]0;pwned\x07\x1b[6n\x9b5n \u202eHOSTILE"))
        with terminal(ws.root, term=term) as opened:
            opened.read(6.0, until=b"HOSTILE")
            opened.read(0.5)
    assert b"HOSTILE" in opened.output
    # We ask for the width of a sign before the screen is taken; Textual sets the shape of the pointer.
    drawn = opened.output.partition(b"\x1b[?1049h")[2]
    output = re.sub(rb"\x1b\]22;[a-z-]+\x07", b"", drawn)
    for raw in (b"\x1b]", b"\x07", b"\x1b[6n", b"\x9b5n", "\x9b".encode(), "\u202e".encode()):
        assert raw not in output


@pytest.mark.parametrize("way", ["q", "SIGTERM"])
def test_leaving_restores_the_terminal(ws: Workspace, way: str) -> None:
    with terminal(ws.root) as opened:
        opened.read(10.0, until=DRAWN)
        opened.read(0.3)
        assert opened.attributes() != opened.before
        if way == "q":
            opened.press(b"q")
        else:
            opened.process.send_signal(signal.SIGTERM)
        opened.read(5.0)
        assert opened.process.wait(5) == 0
        assert opened.attributes() == opened.before
    tail = opened.output[-400:]
    assert b"\x1b[?1049l" in tail
    assert b"\x1b[?25h" in tail


def test_ctrl_z_gives_the_terminal_to_the_shell_until_fg(ws: Workspace) -> None:
    script = 'APP; echo "code $?"; read line; echo "shell read $line"; fg >/dev/null; echo "then $?"'
    with terminal(ws.root, script=script) as opened:
        opened.read(60.0, until=DRAWN)
        opened.read(0.3)
        opened.press(b"\x1a")
        opened.read(20.0, until=b"code 1")
        assert b"code 1" in opened.output
        assert b"\x1b[?1049l" in opened.output
        assert opened.attributes() == opened.before
        opened.press(b"5q\n")
        assert DRAWN in opened.read_after(b"shell read 5q", 20.0, until=DRAWN)
        opened.read(0.3)
        opened.press(b"q")
        opened.read(20.0, until=b"then 0")
        assert b"then 0" in opened.output
        assert opened.process.wait(10) == 0


@pytest.mark.parametrize("key", [b"\x1a", b"ab"])
def test_without_a_shell_to_return_to_the_app_goes_on(ws: Workspace, key: bytes) -> None:
    """A stopped process would leave a terminal window of its own dead."""
    with terminal(ws.root) as opened:
        opened.read(60.0, until=DRAWN)
        opened.read(0.3)
        opened.press(key)
        opened.read(1.0, until=b"not here")
        assert opened.shows(b"not here: suspend") == (key == b"\x1a")
        opened.press(b"q")
        opened.read(20.0)
        assert opened.process.wait(10) == 0


@pytest.mark.parametrize("answers", [True, False])
def test_a_key_pressed_before_the_first_frame_is_not_lost(ws: Workspace, answers: bool) -> None:
    with terminal(ws.root) as opened:
        opened.read(30.0, until=b"\x1b[6n")
        opened.press(b"q\x1b[1;2R" if answers else b"q")
        opened.read(60.0)
        assert opened.process.wait(30) == 0
    assert b"\x1b[?1049l" in opened.output


def test_a_blocked_read_does_not_keep_the_app_from_leaving(ws: Workspace) -> None:
    run = create_run(ws, make_spec(ws.root, TrainParams(mode=TrainMode.NATIVE)))
    run.events_path.unlink(missing_ok=True)
    # As from a disk on a network that does not answer: whoever opens it waits for a writer.
    os.mkfifo(run.events_path)
    with terminal(ws.root) as opened:
        opened.read(30.0, until=DRAWN)
        opened.read(1.0)
        opened.press(b"q")
        opened.read(30.0)
        assert opened.process.wait(30) == 0


def test_a_closed_terminal_ends_the_app_and_not_the_run(ws: Workspace) -> None:
    with live_run(ws) as run:
        with terminal(ws.root) as opened:
            opened.read(6.0, until=b"tok/s")
            opened.process.send_signal(signal.SIGHUP)
            assert opened.process.wait(5) == -signal.SIGHUP
        assert run.dir.alive()


def test_a_terminal_that_disappears_without_a_signal_ends_the_app(ws: Workspace) -> None:
    with terminal(ws.root) as opened:
        opened.read(10.0, until=DRAWN)
        opened.hang_up()
        assert opened.process.wait(15) == 0


@pytest.mark.parametrize(("column", "sign"), [(2, "●"), (3, "*")])
def test_a_terminal_that_draws_signs_two_cells_wide_gets_ascii(ws: Workspace, column: int, sign: str) -> None:
    with live_run(ws), terminal(ws.root) as opened:
        opened.read(5.0, until=b"\x1b[6n")
        opened.press(b"\x1b[1;%dR" % column)
        opened.read(6.0, until=b"2.1/4.0G")
        opened.read(0.5)
    drawn = opened.output.partition(b"\x1b[K")[2].decode()
    assert f"{sign} " in drawn
    assert ("●" in drawn) == (sign == "●")
