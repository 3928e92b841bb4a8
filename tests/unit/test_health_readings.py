"""The readings of the preflight at the edge: recorded outputs of programs, files of the system, and real locks and caches."""

from __future__ import annotations

import base64
import hashlib
import http.server
import os
import socket
import threading
import time
from collections import namedtuple
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from engine.core.paths import Workspace
from engine.health import clock, disk, integrity, machine, privacy, services, terminal
from engine.health.grades import GB, Grade, NotKnown
from engine.health.preflight import find_check
from engine.health.reading import run_program, run_python
from engine.health.versions import install_command, version_tuple
from engine.workspace.open import open_workspace

SWAPS = """Filename				Type		Size		Used		Priority
/dev/zram0                              partition	2097148		512		100
/swap.img                               file		4194300		0		-2
"""
"""`/proc/swaps` of Linux 6 with zram."""
TMUX = "xterm-256color|bpaste,ccolour,clipboard,cstyle,focus,title\n"
"""tmux 3.3a below xterm-256color."""
LAUNCHCTL = "PID\tStatus\tLabel\n-\t0\tcom.apple.SafariHistoryServiceAgent\n612\t0\thomebrew.mxcl.ollama\n"


@pytest.mark.parametrize(
    ("text", "number"), [("vm.compressor_mode: 4\n", 4), ("4\n", 4), ("vm.compressor_mode: 2", 2)]
)
def test_the_output_of_sysctl_is_read(text: str, number: int) -> None:
    assert machine.parse_sysctl(text) == number


@pytest.mark.parametrize("text", ["", "sysctl: unknown oid 'vm.compressor_mode'", "vm.compressor_mode: x"])
def test_another_output_of_sysctl_is_not_known(text: str) -> None:
    with pytest.raises(NotKnown):
        machine.parse_sysctl(text)


def test_swaps_are_read_with_their_sizes() -> None:
    assert machine.parse_swaps(SWAPS) == (("/dev/zram0", 2097148 << 10), ("/swap.img", 4194300 << 10))
    assert machine.parse_swaps("Filename Type Size Used Priority\n") == ()
    reading = machine.CompressionReading("Linux", 8 * GB, machine.parse_swaps(SWAPS))
    assert "zram, 2.0 GB" in machine.judge_compression(reading).detail


def test_the_answer_of_tmux_is_read() -> None:
    found = terminal.parse_tmux(TMUX)
    assert found.client == "xterm-256color"
    assert "RGB" not in found.features and "title" in found.features
    assert terminal.parse_tmux("|") == terminal.Tmux()


@pytest.mark.parametrize(
    ("text", "kills"),
    [
        ("", False),
        ("#KillUserProcesses=yes\n", False),
        ("[Login]\nKillUserProcesses=yes\n", True),
        ("KillUserProcesses=yes\nKillUserProcesses=no\n", False),
        (" KillUserProcesses = 1", True),
        ("KillUserProcesses=\nyes=\n", False),
    ],
)
def test_logind_kills_only_when_its_last_word_says_so(text: str, kills: bool) -> None:
    assert terminal.kills_at_logout(text) is kills


def test_a_job_of_ollama_is_found_among_those_of_launchd() -> None:
    assert services.starts_at_login(LAUNCHCTL)
    assert not services.starts_at_login("PID\tStatus\tLabel\n-\t0\tcom.apple.x\n")


# Files of packages


def record_of(folder: Path, **files: bytes) -> str:
    """The text of a RECORD of files that are written into `folder`."""
    lines = []
    for name, content in files.items():
        (folder / name).write_bytes(content)
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(content)}")
    return "\n".join([*lines, "x.dist-info/RECORD,,", ""])


def test_a_record_is_read_and_its_hashes_hold(tmp_path: Path) -> None:
    rows = integrity.parse_record(record_of(tmp_path, a=b"one", b=b"two"))
    assert rows is not None
    assert [(row.path, row.size) for row in rows] == [("a", 3), ("b", 3)]
    assert all(integrity.has_digest(tmp_path / row.path, row.digest) for row in rows)
    (tmp_path / "b").write_bytes(b"too")
    assert [integrity.has_digest(tmp_path / row.path, row.digest) for row in rows] == [True, False]
    assert not integrity.has_digest(tmp_path / "gone", rows[0].digest)
    assert integrity.has_digest(tmp_path / "gone", "md5=x"), "an algorithm that is not known here"


@pytest.mark.parametrize("text", ["\x00\x01garbage", "a,b", "a,sha256=x,many", ",sha256=x,1"])
def test_a_damaged_record_is_none(text: str) -> None:
    assert integrity.parse_record(text) is None


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("2.13.0+cpu", (2, 13, 0)),
        ("1.10.2.dev0", (1, 10, 2)),
        ("2026.10.11549", (2026, 10, 11549)),
        ("?", (0,)),
        ("", (0,)),
    ],
)
def test_the_numbers_of_a_version(text: str, numbers: tuple[int, ...]) -> None:
    assert version_tuple(text) == numbers


def test_the_command_that_installs_names_this_python() -> None:
    assert install_command("torch")[-1] == "torch"
    assert any("python" in word for word in install_command("torch"))


@pytest.fixture
def damaged_numpy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of numpy's metadata before that of the real one."""
    folder = tmp_path / "site" / "numpy-99.dist-info"
    folder.mkdir(parents=True)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return folder


@pytest.mark.parametrize("content", [b"", b"\xff\xea\x00", b"Name: numpy\n"])
def test_a_package_whose_metadata_is_damaged_is_named_as_such(damaged_numpy: Path, content: bytes) -> None:
    (damaged_numpy / "METADATA").write_bytes(content)
    result = find_check("packages").run(Workspace(damaged_numpy))
    assert result.grade is Grade.FAIL and "the metadata of numpy" in result.detail
    assert "--ignore-installed" in result.hint or "--reinstall" in result.hint
    assert find_check("versions").run(Workspace(damaged_numpy)).grade is Grade.PASS


def test_a_package_of_another_version_than_is_required_is_named(damaged_numpy: Path) -> None:
    (damaged_numpy / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 1.26.4\n")
    result = find_check("packages").run(Workspace(damaged_numpy))
    assert result.grade is Grade.FAIL and "h2q-tui needs numpy>=2, installed is 1.26.4" in result.detail


def test_a_file_that_is_missing_or_changed_is_named(damaged_numpy: Path) -> None:
    (damaged_numpy / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 2.4.6\n")
    record = damaged_numpy / "RECORD"
    record.write_text(record_of(damaged_numpy.parent, one=b"one"))
    assert not integrity.read_files(Workspace(damaged_numpy), 0.0).missing
    (damaged_numpy.parent / "one").write_bytes(b"on")
    found = integrity.read_files(Workspace(damaged_numpy), 0.0)
    assert found.missing == {"numpy": "one"}
    assert "numpy==2.4.6" in integrity.judge_files(found).hint


# Disk


def test_locks_are_tried_without_writing(tmp_path: Path) -> None:
    ws = open_workspace(Workspace(tmp_path / "ws"))
    before = {path: path.stat().st_mtime_ns for path in ws.root.rglob("*")}
    assert disk.try_twice(ws.schema_file) == (True, "")
    assert disk.try_twice(ws.root) == (True, "")
    assert disk.read_locks(Workspace(tmp_path / "new")).works is True
    assert {path: path.stat().st_mtime_ns for path in ws.root.rglob("*")} == before
    assert disk.try_twice(tmp_path / "gone") == (False, "ENOENT")


def test_a_lock_that_someone_else_holds_proves_that_locks_work(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    fd = os.open(file, os.O_RDONLY)
    try:
        import fcntl

        fcntl.flock(fd, fcntl.LOCK_EX)
        assert disk.try_twice(file) == (True, "")
    finally:
        os.close(fd)


def test_the_innermost_mount_decides(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    part = namedtuple("part", "device mountpoint fstype opts")
    rows = [part("/dev/a", "/", "ext4", ""), part("nas:/x", str(tmp_path), "nfs4", "")]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: rows)
    assert disk.filesystem_of(tmp_path / "h2q") == "nfs4"
    assert disk.filesystem_of(Path("/")) == "ext4"
    assert disk.filesystem_of(tmp_path.parent / (tmp_path.name + "-other")) == "ext4"


def make_model(hub: Path) -> None:
    """A model with a named revision, one that was fetched by its hash, and a download that did not end."""
    model = hub / "models--x--a"
    for name in ("blobs", "refs", "snapshots"):
        (model / name).mkdir(parents=True)
    blobs = {"b1": 1000, "b2": 100, "b3": 5000, "b4.incomplete": 700}
    for name, size in blobs.items():
        (model / "blobs" / name).write_bytes(bytes(size))
    for revision, names in {"1" * 40: {"a": "b1", "c": "b2"}, "2" * 40: {"a": "b3", "c": "b2"}}.items():
        snapshot = model / "snapshots" / revision
        snapshot.mkdir()
        for name, blob in names.items():
            (snapshot / name).symlink_to(Path("../../blobs") / blob)
    (model / "refs" / "main").write_text("1" * 40)


def test_what_pruning_frees_is_what_hugging_face_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import scan_cache_dir

    make_model(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    found = disk.read_cache(Workspace(tmp_path))
    assert found is not None and found.size == 6800
    info = scan_cache_dir(tmp_path)
    detached = [row.commit_hash for repo in info.repos for row in repo.revisions if not row.refs]
    assert found.prunable == info.delete_revisions(*detached).expected_freed_size + 700 == 5700


def test_without_a_cache_there_is_nothing_to_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "none"))
    assert disk.read_cache(Workspace(tmp_path)) is None


# Secrets, clock


def test_every_secret_of_the_configuration_is_found_whoever_wrote_it(tmp_path: Path) -> None:
    ws = open_workspace(Workspace(tmp_path / "ws"))
    for name in ("secrets.json", "hive-tokens.json", "server.key", "models.json"):
        (ws.config / name).write_text("{}")
        (ws.config / name).chmod(0o644)
    registry = ws.root / "hive" / "registry.db"
    registry.parent.mkdir()
    registry.touch(0o644)
    reading = privacy.read_secrets(ws)
    assert {Path(row.path).name for row in reading.files if row.secret} == {
        "secrets.json",
        "hive-tokens.json",
        "server.key",
        "registry.db",
    }
    finding = privacy.judge_secrets(reading)
    assert finding.grade is Grade.FAIL and finding.fix is not None
    run_program(*finding.fix.command)
    assert privacy.judge_secrets(privacy.read_secrets(ws)).grade is Grade.PASS


def test_the_newest_record_of_a_run_is_found(tmp_path: Path) -> None:
    ws = Workspace(tmp_path)
    assert clock.last_record(ws) == 0.0
    for name, at in {"1129-1": 1e9, "1129-2": 2e9}.items():
        (ws.runs / name).mkdir(parents=True)
        (ws.runs / name / "events.jsonl").touch()
        os.utime(ws.runs / name / "events.jsonl", (at, at))
    assert clock.last_record(ws) == 2e9


# What hangs, and what answers


def test_a_program_that_hangs_or_is_missing_is_not_known() -> None:
    began = time.process_time()
    with pytest.raises(NotKnown, match=r"sleep.*0\.2 s"):
        run_program("sleep", "60", timeout_s=0.2)
    with pytest.raises(NotKnown, match="not installed"):
        run_program("h2q-no-such-program")
    with pytest.raises(NotKnown, match=r"0\.2 s"):
        run_python("import time; time.sleep(60)", timeout_s=0.2)
    assert time.process_time() - began < 30


@contextmanager
def server(answer: bytes | None) -> Iterator[str]:
    """A loopback HTTP server that answers everything with `answer`; None: it takes connections and says nothing."""
    if answer is None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        return

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer or b"")))
            self.end_headers()
            self.wfile.write(answer or b"")

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


@pytest.mark.parametrize(
    ("answer", "version", "said"),
    [
        (b'{"version": "0.30.1"}', "0.30.1", ""),
        (b'{"version": "0.12.6", "h2q": "0.1.0"}', "0.12.6", ""),
        (b"<html>", "", "another program"),
        (b"[1]", "", "another program"),
        (None, "", "1.5 s"),
    ],
)
def test_what_answers_for_ollama_is_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes | None, version: str, said: str
) -> None:
    with server(answer) as address:
        monkeypatch.setenv("OLLAMA_HOST", address)
        reading = services.read_ollama(Workspace(tmp_path))
    assert (reading.version, said in reading.problem) == (version, True)
    assert reading.ours == (b"h2q" in (answer or b"")) and reading.hangs == (answer is None)


def test_another_machine_is_never_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "http://192.0.2.1:11434")
    result = find_check("ollama").run(Workspace(tmp_path))
    assert result.grade is Grade.WARN and result.hint == "unset OLLAMA_HOST"


def test_a_socket_that_others_can_reach_is_found_with_its_process(tmp_path: Path) -> None:
    with socket.create_server(("0.0.0.0", 0)) as listening:
        port = listening.getsockname()[1]
        found = [row for row in services.read_listeners(Workspace(tmp_path)) if row.port == port]
    assert [(row.pid, services.is_local(row.address)) for row in found] == [(os.getpid(), False)]


@pytest.mark.parametrize(
    ("command", "ours"),
    [
        ("/usr/bin/python3 /home/u/.local/bin/h2q-tui web", True),
        ("/v/bin/python -P -m engine serve /home/u/x", True),
        ("/v/bin/python -m tui.cli.main monitor --export-port 9108", True),
        ("vim notes about h2q-tui web", False),
        ("python -m http.server --directory h2q-tui", False),
        ("/usr/sbin/sshd -D", False),
        ("", False),
    ],
)
def test_processes_of_this_program_are_known_by_their_command(command: str, ours: bool) -> None:
    assert services.Listener("127.0.0.1", 1, 2, tuple(command.split())).is_ours is ours


def test_the_guard_of_runs_is_tried_and_holds(tmp_path: Path) -> None:
    answer = privacy.read_offline(Workspace(tmp_path))
    assert privacy.judge_offline(answer).grade is Grade.PASS, answer
    assert {"tcp", "udp", "ipv6", "name", "proxy", "hub", "loopback"} == set(answer)


@pytest.mark.parametrize(("there", "lingers"), [(True, True), (False, False)])
def test_lingering_is_a_file_of_systemd(tmp_path: Path, there: bool, lingers: bool) -> None:
    folder = tmp_path / "linger"
    folder.mkdir()
    if there:
        (folder / "u").touch()
    assert services.lingers("u", folder) is lingers
    assert services.lingers("u", tmp_path / "no" / "linger") is None


def test_a_damaged_schedule_is_not_known(tmp_path: Path) -> None:
    ws = open_workspace(Workspace(tmp_path / "ws"))
    (ws.config / "schedule.json").write_text("[]")
    assert find_check("linger").run(ws).grade is Grade.UNKNOWN
