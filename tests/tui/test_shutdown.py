"""What the end of the app waits for."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from engine.core.paths import Workspace
from engine.runs.kinds import CorpusParams
from engine.runs.launch import create_run
from engine.runs.spec import make_spec
from engine.runs.view import RunView
from tui.app.app import H2QApp
from tui.host import shutdown
from tui.host.run_follower import RunsChanged, RunUpdated
from tui.host.shutdown import DaemonThreadExecutor, uninterruptible


def test_shutdown_does_not_wait_for_a_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutdown, "PATIENCE_S", 0.05)
    never = threading.Event()
    threads = DaemonThreadExecutor()
    reading = threads.submit(never.wait, 60.0)
    threads.shutdown()
    assert not reading.done()
    never.set()


def test_shutdown_waits_for_a_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutdown, "PATIENCE_S", 0.05)
    begun, slow, written = threading.Event(), threading.Event(), []

    def write() -> None:
        with uninterruptible():
            begun.set()
            slow.wait(0.5)
            written.append(1)

    threads = DaemonThreadExecutor()
    threads.submit(write)
    assert begun.wait(30)
    threads.shutdown()
    assert written == [1]


def test_shutdown_waits_for_the_end_of_the_outer_write(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shutdown, "PATIENCE_S", 0.05)
    inner_done, slow, written = threading.Event(), threading.Event(), []

    def write() -> None:
        with uninterruptible():
            with uninterruptible():
                pass
            inner_done.set()
            slow.wait(0.5)
            written.append(1)

    threads = DaemonThreadExecutor()
    threads.submit(write)
    assert inner_done.wait(30)
    threads.shutdown()
    assert written == [1]


def test_shutdown_waits_for_a_write_that_begins_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shutdown, "PATIENCE_S", 0.05)
    begun, over, written = threading.Event(), threading.Event(), []

    def first() -> None:
        with uninterruptible():
            begun.set()
            over.wait(0.4)

    def second() -> None:
        over.wait(0.2)
        with uninterruptible():
            over.wait(0.5)
            written.append(2)

    threads = DaemonThreadExecutor()
    threads.submit(first)
    threads.submit(second)
    assert begun.wait(30)
    threads.shutdown()
    assert written == [2]


def test_a_thread_that_waits_for_the_ended_app_does_not_block_shutdown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shutdown, "PATIENCE_S", 0.05)
    never, written = threading.Event(), []

    def write() -> None:
        with uninterruptible():
            never.wait(0.2)
            written.append(1)
        never.wait(60.0)

    threads = DaemonThreadExecutor()
    future = threads.submit(write)
    threads.shutdown()
    assert written == [1] and not future.done()
    never.set()


def test_results_and_exceptions_reach_the_caller() -> None:
    threads = DaemonThreadExecutor()
    assert threads.submit(divmod, 7, 2).result(30) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        threads.submit(divmod, 7, 0).result(30)
    threads.shutdown()
    with pytest.raises(RuntimeError):
        threads.submit(divmod, 7, 2)


def test_threads_are_daemons() -> None:
    threads = DaemonThreadExecutor()
    assert threads.submit(lambda: threading.current_thread().daemon).result(30)
    threads.shutdown()


async def test_messages_that_arrive_while_the_app_closes_change_nothing(tmp_path: Path) -> None:
    run = create_run(Workspace(tmp_path), make_spec(tmp_path, CorpusParams()))
    view = RunView(run.spec)
    app = H2QApp(Workspace(tmp_path))

    def deliver() -> None:
        app._runs_changed(RunsChanged([]))
        app._run_updated(RunUpdated(run.run_id, view, alive=False))
        app.show_message("too late")
        app.refresh_footer()
        for tab in app.open_tabs:
            tab.runs_changed()
            tab.run_updated(RunUpdated(run.run_id, view, alive=False))

    async with app.run_test() as pilot:
        for key in "12345":
            await pilot.press(key)
        app.exit()
        deliver()
        await pilot.pause()
    assert not app.is_running and app.return_code == 0
