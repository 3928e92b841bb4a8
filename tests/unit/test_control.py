"""Commands to a run: over the socket, and between the steps."""

from __future__ import annotations

import inspect
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.errors import Interrupted, ServiceUnreachable, UsageProblem
from engine.core.paths import Workspace
from engine.runs import lock
from engine.runs.command_queue import _WAKE_S, ACKNOWLEDGE_S, CommandQueue, RunCommand
from engine.runs.control import PATH_LIMIT, ControlServer, Reply, Request, send, send_sync, socket_path
from engine.runs.events import CommandHandled, Event, RunStatus, StatusChanged
from engine.runs.kinds import CorpusParams
from engine.runs.launch import create_run
from engine.runs.rundir import RunDir
from engine.runs.runtime_dirs import make_socket_dir, remove_stale_dirs
from engine.runs.spec import make_spec


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunDir]:
    """A run whose lock this process holds."""
    ws = Workspace(tmp_path)
    made = create_run(ws, make_spec(ws.root, CorpusParams()))
    fd = lock.acquire(made.lock_path)
    assert fd is not None
    yield made
    os.close(fd)


def echo(request: Request) -> Reply:
    return Reply(request.name != "stop", f"{request.name} {request.value}")


async def test_a_command_is_answered(run: RunDir) -> None:
    with closing(ControlServer(run, echo)):
        assert await send(run, "set", "lr=0.01") == Reply(True, "set lr=0.01")
        assert not (await send(run, "stop")).accepted


def test_the_socket_is_for_its_owner_only(run: RunDir) -> None:
    with closing(ControlServer(run, echo)):
        path = socket_path(run)
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700
    assert not path.exists()


def test_the_holder_of_the_lock_replaces_a_stale_socket(run: RunDir) -> None:
    path = socket_path(run)
    make_socket_dir(path.parent)
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    with closing(ControlServer(run, echo)):
        assert send_sync(run, "pause").accepted


def test_a_folder_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(ServiceUnreachable):
        make_socket_dir(tmp_path / "link")


def test_the_mode_of_an_open_folder_is_restricted(tmp_path: Path) -> None:
    (tmp_path / "sockets").mkdir(mode=0o755)
    make_socket_dir(tmp_path / "sockets")
    assert (tmp_path / "sockets").stat().st_mode & 0o777 == 0o700


def test_old_folders_without_a_listener_are_removed(tmp_path: Path) -> None:
    def folder(name: str, age: float, *files: str) -> Path:
        made = tmp_path / name
        made.mkdir()
        for file in files:
            with socket.socket(socket.AF_UNIX) as left_behind:
                left_behind.bind(str(made / file)) if file.endswith(".sock") else (made / file).touch()
        os.utime(made, (1e9 - age, 1e9 - age))
        return made

    dead = [folder("h2q-0-0123456789ab", 7200.0, "r.sock"), folder("h2q-0123456789ac", 7200.0)]
    kept = [
        folder("h2q-0123456789ad", 60.0),
        folder("h2q-other", 7200.0),
        folder("h2q-0123456789ae", 7200.0, "notes"),
    ]
    alive = folder("h2q-0123456789af", 7200.0)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(alive / "r.sock"))
        listening.listen()
        os.utime(alive, (1e9 - 7200, 1e9 - 7200))
        own = folder("h2q-0123456789aa", 7200.0)
        assert sorted(remove_stale_dirs(own, now=1e9)) == sorted(dead)
    assert all(path.exists() for path in (*kept, alive, own))
    assert remove_stale_dirs(tmp_path / "nowhere" / "own") == []


def test_a_closed_socket_leaves_no_folder(run: RunDir) -> None:
    with closing(ControlServer(run, echo)):
        assert socket_path(run).parent.is_dir()
    assert not socket_path(run).parent.exists()


def test_a_socket_path_that_is_too_long_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Workspace, "runtime", tmp_path / ("x" * PATH_LIMIT))
    with pytest.raises(UsageProblem, match="too long"):
        socket_path(RunDir(tmp_path / "runs" / "r"))


def test_a_dead_run_cannot_be_reached(tmp_path: Path) -> None:
    ws = Workspace(tmp_path)
    with pytest.raises(ServiceUnreachable, match="is not running"):
        send_sync(create_run(ws, make_spec(ws.root, CorpusParams())), "pause")


def test_a_run_that_does_not_answer_times_out(run: RunDir) -> None:
    with pytest.raises(ServiceUnreachable, match="did not answer"):
        send_sync(run, "pause", timeout=0.2)


def test_send_waits_for_a_starting_run(run: RunDir) -> None:
    servers: list[ControlServer] = []
    timer = threading.Timer(0.2, lambda: servers.append(ControlServer(run, echo)))
    timer.start()
    assert send_sync(run, "pause").accepted
    servers[0].close()


def test_an_unknown_command_is_not_sent(run: RunDir) -> None:
    with pytest.raises(UsageProblem):
        send_sync(run, "format disk")


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=200))
def test_invalid_bytes_on_the_socket_do_no_harm(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes
) -> None:
    ws = Workspace(tmp_path_factory.mktemp("noise"))
    made = create_run(ws, make_spec(ws.root, CorpusParams()))
    fd = lock.acquire(made.lock_path)
    assert fd is not None
    with closing(ControlServer(made, echo)):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(socket_path(made)))
            connection.sendall(noise)
        assert send_sync(made, "pause").accepted
    os.close(fd)


class Sender(threading.Thread):
    """Somebody who sends one command and waits for the answer."""

    def __init__(self, commands: CommandQueue, name: str, value: str = "") -> None:
        super().__init__()
        self._commands, self._request = commands, Request(name, value)
        self.reply: Reply | None = None
        self.start()

    def run(self) -> None:
        self.reply = self._commands.handle(self._request)

    def answer(self) -> Reply:
        self.join(5.0)
        assert self.reply is not None
        return self.reply


@pytest.fixture
def emitted() -> list[Event]:
    return []


@pytest.fixture
def commands(emitted: list[Event]) -> CommandQueue:
    made = CommandQueue(emitted.append)
    assert list(made.poll()) == []
    return made


def test_a_command_reaches_the_loop_and_its_answer_is_sent_and_recorded(
    commands: CommandQueue, emitted: list[Event]
) -> None:
    sender = Sender(commands, "set", "lr=0.01")
    while sender.is_alive():
        for command in commands.poll():
            command.accept(f"{command.value} from step 7")
    assert sender.answer() == Reply(True, "lr=0.01 from step 7")
    assert emitted == [
        CommandHandled(name="set", value="lr=0.01", accepted=True, reply="lr=0.01 from step 7")
    ]


def test_the_next_poll_refuses_unanswered_commands(commands: CommandQueue) -> None:
    late, never = Sender(commands, "checkpoint"), Sender(commands, "set", "depth=9")
    taken: list[RunCommand] = []
    while len(taken) < 2:
        taken += list(commands.poll())
        for command in taken:
            if command.name == "checkpoint":
                command.accept("written")
    list(commands.poll())
    assert late.answer() == Reply(True, "written")
    assert not never.answer().accepted


def test_stop_is_answered_immediately_and_yielded_at_every_poll(commands: CommandQueue) -> None:
    assert Sender(commands, "stop").answer().accepted
    for _again in range(2):
        assert [command.name for command in commands.poll()] == ["stop"]
    with pytest.raises(Interrupted):
        commands.check_stop()


def test_a_paused_run_blocks_and_still_handles_commands(commands: CommandQueue, emitted: list[Event]) -> None:
    assert commands.handle(Request("pause")).accepted
    got: list[str] = []

    def loop() -> None:
        for command in commands.poll():
            got.append(command.name)
            command.accept()

    looping = threading.Thread(target=loop)
    looping.start()
    assert Sender(commands, "checkpoint").answer().accepted
    assert looping.is_alive()
    assert got == ["checkpoint"]
    assert commands.handle(Request("resume")).accepted
    looping.join(5.0)
    assert not looping.is_alive()
    statuses = [event.status for event in emitted if isinstance(event, StatusChanged)]
    assert statuses == [RunStatus.PAUSED, RunStatus.RUNNING]


def test_a_stop_ends_a_pause(commands: CommandQueue) -> None:
    commands.handle(Request("pause"))
    looping = threading.Thread(target=lambda: list(commands.poll()))
    looping.start()
    commands.handle(Request("stop"))
    looping.join(5.0)
    assert not looping.is_alive()


def test_a_signal_is_recorded_by_the_loop_not_by_the_handler(
    commands: CommandQueue, emitted: list[Event]
) -> None:
    commands.signal()
    assert emitted == []
    assert [command.name for command in commands.poll()] == ["stop"]
    assert [event.name for event in emitted if isinstance(event, CommandHandled)] == ["stop"]


def test_a_checkpoint_command_is_refused_outside_of_training(emitted: list[Event]) -> None:
    commands = CommandQueue(emitted.append)
    assert commands.handle(Request("checkpoint")) == Reply(False, "nothing is training right now")


def test_the_end_of_a_stage_or_run_refuses_waiting_commands(commands: CommandQueue) -> None:
    waiting = Sender(commands, "checkpoint")
    while not commands._queue.qsize() >= 2:
        pass
    commands.new_stage()
    assert not waiting.answer().accepted
    commands.close()
    assert commands.handle(Request("pause")) == Reply(False, "the run has ended")


@pytest.mark.parametrize("applied", [True, False])
def test_a_setting_is_acknowledged_before_a_step_that_takes_longer_than_a_client_waits(
    commands: CommandQueue, emitted: list[Event], monkeypatch: pytest.MonkeyPatch, applied: bool
) -> None:
    monkeypatch.setattr("engine.runs.command_queue.ACKNOWLEDGE_S", 0.0)
    sender = Sender(commands, "set", "max_steps=10")
    assert sender.answer() == Reply(True, "received; it is applied when this step ends")
    assert emitted == []
    for command in commands.poll():
        (command.accept if applied else command.refuse)("10 steps")
    assert emitted == [CommandHandled(name="set", value="max_steps=10", accepted=applied, reply="10 steps")]


def test_a_setting_is_acknowledged_sooner_than_a_client_gives_up() -> None:
    patience = inspect.signature(send_sync).parameters["timeout"].default
    assert patience > ACKNOWLEDGE_S + 2 * _WAKE_S
