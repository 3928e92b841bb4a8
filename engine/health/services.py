"""Checks of services: Ollama, its start with the machine, what listens beyond this machine, and the schedule's user manager."""

from __future__ import annotations

import getpass
import http.client
import json
import os
import platform
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import psutil

from engine.core.config import load_settings
from engine.core.errors import H2QError
from engine.core.i18n import N_, _
from engine.core.paths import Workspace
from engine.health.grades import Grade, Judgement, NotKnown, as_root, fixable, passes, warns
from engine.health.reading import run_program
from engine.health.terminal import keep_user_manager
from engine.health.versions import version_tuple
from engine.models.ollama.client import MODEL_PREFIX, local_host
from engine.runs.network_guard import is_loopback

_ANSWER_S = 1.5
OLLAMA_PORT = 11434


class OllamaReading(NamedTuple):
    address: str
    """"" when OLLAMA_HOST names another machine; then `problem` says so."""
    installed: bool
    """Whether its program is on the PATH."""
    needed: str
    """The setting that names one of its models; "" without one."""
    version: str = ""
    """"" when it does not answer."""
    problem: str = ""
    """Why it does not answer, or that another program does."""
    ours: bool = False
    """Whether our own server answers there."""
    hangs: bool = False
    """It took the connection and did not answer."""


OLLAMA_FAULTS: tuple[tuple[tuple[int, ...], tuple[int, ...], str, str], ...] = (
    (
        (0,),
        (0, 1, 34),
        N_("a crafted model overwrites files (CVE-2024-37032)"),
        "https://nvd.nist.gov/vuln/detail/CVE-2024-37032",
    ),
    (
        (0,),
        (0, 17, 1),
        N_("a crafted GGUF file makes it reveal its memory (CVE-2026-7482)"),
        "https://github.com/ollama/ollama/pull/14406",
    ),
)
"""Since, first version without it, what happens, and the report."""


def needed_of(ws: Workspace) -> str:
    """The setting that names a model of Ollama; "" without one, or when the settings cannot be read."""
    try:
        settings = load_settings(ws)
    except H2QError:
        return ""
    for name in ("embedder", "lora_base"):
        if str(getattr(settings, name)).startswith(MODEL_PREFIX):
            return f"{name} = {getattr(settings, name)}"
    return ""


def read_ollama(ws: Workspace) -> OllamaReading:
    installed, needed = shutil.which("ollama") is not None, needed_of(ws)
    try:
        address = local_host()
    except H2QError as problem:
        return OllamaReading("", installed, needed, problem=problem.message)
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_ANSWER_S)
    try:
        connection.request("GET", "/api/version")
        answer = json.loads(connection.getresponse().read(1 << 16))
        version = answer["version"]
        return OllamaReading(address, installed, needed, str(version), ours="h2q" in answer)
    except TimeoutError:
        text = _("no answer within {seconds:g} s").format(seconds=_ANSWER_S)
        return OllamaReading(address, installed, needed, problem=text, hangs=True)
    except (ValueError, KeyError, TypeError, http.client.HTTPException):
        text = _("another program answers there")
        return OllamaReading(address, installed, needed, problem=text)
    except OSError as problem:
        return OllamaReading(address, installed, needed, problem=problem.strerror or type(problem).__name__)
    finally:
        connection.close()


def judge_ollama(reading: OllamaReading) -> Judgement:
    if not reading.address:
        return warns(reading.problem, "unset OLLAMA_HOST")
    if reading.ours:
        text = _("h2q-tui ollama serve answers at {address}, as Ollama {version}")
        return passes(text.format(address=reading.address, version=reading.version))
    if not reading.version:
        return _silent(reading)
    text = f"Ollama {reading.version}, {reading.address}"
    for since, fixed, why, source in OLLAMA_FAULTS:
        if since <= version_tuple(reading.version) < fixed:
            fault = _("{what}: {why} ({source})").format(what=text, why=_(why), source=source)
            return warns(fault, _upgrade())
    return passes(text)


def _silent(reading: OllamaReading) -> Judgement:
    text = _("no Ollama answers at {address} ({reason})").format(
        address=reading.address, reason=reading.problem
    )
    if reading.needed:
        return warns(
            _("{detail}, and a setting needs it: {setting}").format(detail=text, setting=reading.needed),
            "ollama serve" if reading.installed else _upgrade(),
        )
    if reading.hangs:
        return warns(text, "ollama ps")
    return passes(text if reading.installed else _("not installed (optional)"))


def _upgrade() -> str:
    return (
        "brew upgrade ollama"
        if platform.system() == "Darwin"
        else "curl -fsSL https://ollama.com/install.sh | sh"
    )


# After a reboot


class BootReading(NamedTuple):
    needed: str
    """The setting that needs Ollama; "" without one."""
    scheduled: bool
    """Whether runs start unattended."""
    installed: bool
    starts: str | None
    """"system" or "user" when it starts with the machine, or at login; "" when not; None when not known."""


def read_boot(ws: Workspace) -> BootReading:
    needed, installed = needed_of(ws), shutil.which("ollama") is not None
    scheduled = (ws.config / "schedule.json").is_file()
    starts = _start_of_ollama() if needed and installed else None
    return BootReading(needed, scheduled, installed, starts)


def _start_of_ollama() -> str | None:
    if platform.system() == "Darwin":
        return "user" if starts_at_login(run_program("launchctl", "list")) else ""
    if not Path("/run/systemd/system").is_dir():
        return None
    for scope in ("system", "user"):
        try:
            if run_program("systemctl", f"--{scope}", "is-enabled", "ollama").strip() == "enabled":
                return scope
        except NotKnown:
            continue  # its exit code is 1 for "disabled" and 4 without such a unit
    return ""


def starts_at_login(text: str) -> bool:
    """Whether the output of `launchctl list` (process, status, label) names a job of Ollama: that of its app
    (`application.com.electron.ollama.…`, `com.ollama.ollama`), or of Homebrew (`homebrew.mxcl.ollama`)."""
    return any("ollama" in line.split("\t")[-1].lower() for line in text.splitlines()[1:])


def judge_boot(reading: BootReading) -> Judgement:
    if not reading.needed:
        return passes(_("no setting needs it"))
    if not reading.installed:
        return passes(_("it is not installed here"))
    if reading.starts is None:
        raise NotKnown(_("this machine has no service manager that is known here"))
    if reading.starts:
        return passes(
            _("it starts with the machine") if reading.starts == "system" else _("it starts at your login")
        )
    text = _("Ollama does not start by itself after a reboot, and a setting needs it: {setting}").format(
        setting=reading.needed
    )
    return warns(text, _start_at_boot())


def _start_at_boot() -> str:
    if platform.system() == "Darwin":
        return "brew services start ollama"
    return as_root("systemctl enable --now ollama")


# What listens


class Listener(NamedTuple):
    """A listening TCP socket."""

    address: str
    port: int
    pid: int | None
    """None when it belongs to another user."""
    words: tuple[str, ...]
    """Command line of the process; empty when it is not known."""

    @property
    def is_ours(self) -> bool:
        """Whether it is a process of this program: `h2q-tui …`, `python …/h2q-tui …` or `python … -m engine …`."""
        names = [Path(word).name for word in self.words[:2]]
        if names[:1] == ["h2q-tui"]:
            return True
        if not names or not names[0].lower().startswith("python"):
            return False
        module = self.words.index("-m") if "-m" in self.words else -2
        return names[1:] == ["h2q-tui"] or self.words[module + 1 : module + 2] in (
            ("engine",),
            ("tui.cli.main",),
        )


def read_listeners(_ws: Workspace) -> tuple[Listener, ...]:
    try:
        sockets = psutil.net_connections("tcp")
    except psutil.AccessDenied:
        # macOS shows those of all processes to root alone.
        sockets = [row for process in _own_processes() for row in _sockets_of(process)]
    found = []
    for row in sockets:
        if row.status == psutil.CONN_LISTEN and row.laddr:
            pid = getattr(row, "pid", None)
            found.append(Listener(row.laddr.ip, row.laddr.port, pid, _command_of(pid)))
    return tuple(sorted(set(found), key=lambda row: (row.port, row.address)))


def _own_processes() -> list[psutil.Process]:
    user = os.getuid()
    return [
        process
        for process in psutil.process_iter(["uids"])
        if process.info["uids"] and process.info["uids"].real == user
    ]


def _sockets_of(process: psutil.Process) -> list[object]:
    try:
        return [
            row._replace(pid=process.pid) if hasattr(row, "pid") else _WithPid(row, process.pid)
            for row in process.net_connections("tcp")
        ]
    except psutil.Error:
        return []


class _WithPid:
    """A socket as `Process.net_connections` gives it, with the process that was asked."""

    def __init__(self, row: object, pid: int) -> None:
        self.status = row.status  # type: ignore[attr-defined]
        self.laddr = row.laddr  # type: ignore[attr-defined]
        self.pid = pid


def _command_of(pid: int | None) -> tuple[str, ...]:
    try:
        return tuple(psutil.Process(pid).cmdline()) if pid is not None else ()
    except psutil.Error:
        return ()


def judge_listeners(listeners: Sequence[Listener]) -> Judgement:
    wide = [row for row in listeners if not is_local(row.address)]
    ours = [row for row in wide if row.is_ours]
    if ours:
        row = ours[0]
        text = _(
            "{command} (process {pid}) can be reached from other machines: it listens on {address}"
        ).format(command=_short(row.words), pid=row.pid, address=_joined(row))
        return warns(text, f"kill {row.pid}")
    ollama = next((row for row in wide if row.port == OLLAMA_PORT or _is_ollama(row)), None)
    if ollama is not None:
        text = _(
            "Ollama can be reached from other machines and asks for no password: it listens on {address}"
        )
        return warns(text.format(address=_joined(ollama)), "export OLLAMA_HOST=127.0.0.1")
    local = [row for row in listeners if row.is_ours]
    if local:
        names = _(", ").join(_joined(row) for row in local)
        return passes(_("this program listens on this machine alone: {names}").format(names=names))
    return passes(_("nothing of this program listens"))


def is_local(address: str) -> bool:
    """Whether a socket at `address` is for this machine alone; an unspecified address is for all."""
    return is_loopback(address) and address not in ("", "0.0.0.0", "::", "*")  # noqa: S104 - compared, not bound


def _is_ollama(row: Listener) -> bool:
    return bool(row.words) and Path(row.words[0]).name == "ollama"


def _joined(row: Listener) -> str:
    host = f"[{row.address}]" if ":" in row.address else row.address
    return f"{host}:{row.port}"


def _short(words: Sequence[str]) -> str:
    """The command without its interpreter and path: "h2q-tui hive serve", "engine serve"."""
    at = next((n for n, word in enumerate(words) if Path(word).name in ("h2q-tui", "engine")), 0)
    return " ".join([Path(words[at]).name, *words[at + 1 : at + 3]])


# The user's service manager


class LingerReading(NamedTuple):
    manager: str
    """What starts scheduled runs: "systemd", "launchd", "cron"; "" without a schedule."""
    lingers: bool | None
    """Whether the user's systemd runs without a login; None when not known or not needed."""


def read_linger(ws: Workspace) -> LingerReading:
    try:
        manager = str(json.loads((ws.config / "schedule.json").read_bytes())["by"])
    except FileNotFoundError:
        return LingerReading("", None)
    except (ValueError, KeyError, TypeError):
        raise NotKnown(_("the schedule cannot be read"), hint="h2q-tui schedule show") from None
    if manager != "systemd":
        return LingerReading(manager, None)
    return LingerReading(manager, lingers(getpass.getuser()))


def lingers(user: str, folder: Path = Path("/var/lib/systemd/linger")) -> bool | None:
    """Whether systemd keeps the manager of `user` (loginctl(1), enable-linger); None without systemd."""
    try:
        return (folder / user).exists() if folder.parent.is_dir() else None
    except OSError:
        return None


def judge_linger(reading: LingerReading) -> Judgement:
    if not reading.manager:
        return passes(_("no schedule"))
    if reading.manager != "systemd":
        return passes(_("{manager} starts runs without a login").format(manager=reading.manager))
    if reading.lingers is None:
        raise NotKnown(_("systemd does not say whether it runs without a login"))
    if reading.lingers:
        return passes(_("scheduled runs start without a login"))
    text = _("lingering is off: scheduled runs start only while you are logged in")
    return fixable(Grade.WARN, text, keep_user_manager())
