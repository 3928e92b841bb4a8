"""Checks of what others on this machine and beyond could see: permissions of secrets, and the offline guard of runs."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from engine.core.filenames import shell_word
from engine.core.i18n import _
from engine.core.paths import Workspace
from engine.health.grades import Fix, Grade, Judgement, NotKnown, as_root, fails, fixable, passes, warns
from engine.health.reading import last_line, run_python


class FileMode(NamedTuple):
    """Owner and permissions of a file or folder."""

    path: str
    mode: int
    """Permission bits."""
    owner: int
    """User id."""
    secret: bool
    """Whether it holds passwords or keys; else settings, conversations or a folder."""


class SecretsReading(NamedTuple):
    user: int
    files: tuple[FileMode, ...] = ()


def read_secrets(ws: Workspace) -> SecretsReading:
    files = []
    for path, secret in _private_paths(ws):
        try:
            found = path.lstat() if path.is_symlink() and not path.exists() else path.stat()
        except FileNotFoundError:
            continue
        files.append(FileMode(str(path), stat.S_IMODE(found.st_mode), found.st_uid, secret))
    return SecretsReading(os.getuid(), tuple(files))


def _private_paths(ws: Workspace) -> Iterator[tuple[Path, bool]]:
    """Files that only their owner may read, and whether they hold secrets.

    Every file of `config` whose name says so is a secret, whichever part of the program wrote it.
    """
    words = ("secret", "token", "key", "password", "credential")
    if ws.config.is_dir():
        for path in sorted(ws.config.iterdir()):
            if path.is_file() and any(word in path.name.lower() for word in words):
                yield path, True
    # Tokens of the hive's users, and what this machine has shared.
    yield ws.root / "hive" / "registry.db", True
    yield ws.root / "hive" / "client.json", False
    yield ws.settings_file, False
    # Without read permission for the folder, that of the file does not matter.
    yield ws.memory_db.parent, False
    yield ws.root / "chats", False
    yield ws.backups, False


def judge_secrets(reading: SecretsReading) -> Judgement:
    foreign = [row for row in reading.files if row.owner != reading.user]
    if foreign:
        row = foreign[0]
        text = _("{path} belongs to another user ({user})").format(path=row.path, user=row.owner)
        hint = as_root(f"chown {reading.user} {shell_word(row.path)}")
        return fails(text, hint) if row.secret else warns(text, hint)
    open_secrets = [row for row in reading.files if row.secret and row.mode & 0o077]
    if open_secrets:
        return fixable(Grade.FAIL, _open(open_secrets), _close(open_secrets))
    # The settings may hold the address of a heartbeat, which is as good as a password.
    open_files = [row for row in reading.files if row.mode & 0o077]
    if open_files:
        return fixable(Grade.WARN, _open(open_files), _close(open_files))
    if not any(row.secret for row in reading.files):
        return passes(_("none is kept in files here"))
    return passes(_("only you can read them"))


def _open(rows: list[FileMode]) -> str:
    return _("others on this machine can read {names}").format(
        names=_(", ").join(f"{row.path} ({row.mode:04o})" for row in rows[:3])
    )


def _close(rows: list[FileMode]) -> Fix:
    paths = [row.path for row in rows]
    return Fix(
        change=_("Let only you read {names}").format(names=_(", ").join(paths)),
        command=("chmod", "go-rwx", *paths),
    )


# Offline

_PROBE = """
import json, os, socket
from engine.runs.network_guard import NetworkBlocked, loopback_only

# 192.0.2.1 and 2001:db8::1 belong to nobody (RFC 5737, RFC 3849), and no name ends in .invalid (RFC 2606).
def tcp():
    socket.create_connection(("192.0.2.1", 9), timeout=0.3)
def udp():
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"", ("192.0.2.1", 9))
def ipv6():
    socket.create_connection(("2001:db8::1", 9), timeout=0.3)
def name():
    socket.getaddrinfo("h2q.invalid", 80)
def loopback():
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), timeout=1).close()

os.environ["HTTPS_PROXY"] = "http://127.0.0.1:9"
answer = {}
with loopback_only():
    for attempt in (tcp, udp, ipv6, name, loopback):
        try:
            attempt()
            answer[attempt.__name__] = "open"
        except NetworkBlocked:
            answer[attempt.__name__] = "blocked"
        except OSError as problem:
            answer[attempt.__name__] = f"{type(problem).__name__}: {problem}"
    answer["proxy"] = "open" if "HTTPS_PROXY" in os.environ else "blocked"
    answer["hub"] = "blocked" if os.environ.get("HF_HUB_OFFLINE") == "1" else "open"
print(json.dumps(answer))
"""
OFFLINE_S = 8.0


def read_offline(_ws: Workspace) -> dict[str, str]:
    """What the guard of a run lets through, tried in a process of its own; nothing is sent to another machine."""
    done = run_python(_PROBE, timeout_s=OFFLINE_S)
    if done.returncode:
        raise NotKnown(last_line(done.stderr) or str(done.returncode))
    try:
        answer = json.loads(last_line(done.stdout))
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise NotKnown(_("the answer of the probe is not understood"))
    return {str(key): str(value) for key, value in answer.items()}


def judge_offline(answer: dict[str, str]) -> Judgement:
    refused = {name for name, result in answer.items() if result == "blocked"}
    leaks = sorted(set(answer) - refused - {"loopback"})
    if leaks:
        text = _("the guard of runs lets through: {names}").format(names=_(", ").join(leaks))
        return fails(text, "pipx reinstall h2q-tui")
    if answer.get("loopback") != "open":
        text = _("connections to this machine fail: {reason}").format(reason=answer.get("loopback", "?"))
        return fails(text, "ping -c 1 127.0.0.1")
    return passes(
        _("a run cannot reach other machines: {n} kinds of connection were tried and refused").format(
            n=len(refused)
        )
    )
