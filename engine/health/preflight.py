"""The preflight of `h2q-tui check`: machine, programs and workspace, before anything is started.

Reads only: nothing is created, repaired or downloaded.
"""

from __future__ import annotations

import locale
import os
import platform
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from enum import StrEnum
from importlib import metadata
from pathlib import Path

import msgspec
import psutil

from engine.core.errors import BadInput, H2QError
from engine.core.i18n import N_, _, n_
from engine.core.paths import Workspace
from engine.machine.cgroup import memory_limit_bytes
from engine.machine.cpu import usable_cores
from engine.runs.events import RunStatus


class Grade(StrEnum):
    PASS = "pass"  # noqa: S105 - a grade
    WARN = "warn"
    FAIL = "fail"


class CheckResult(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the preflight."""

    id: str
    name: str
    """Translated name."""
    grade: Grade
    detail: str
    """The finding, with the value it is based on."""
    hint: str = ""
    """The command that fixes it; empty when there is none."""


Finding = tuple[Grade, str, str]
"""Grade, detail and hint."""

Check = Callable[[Workspace], Finding]
"""One check; it may raise."""


def run_checks(
    ws: Workspace, checks: tuple[tuple[str, str, Check], ...] | None = None
) -> Iterator[CheckResult]:
    """Runs `checks`, `CHECKS` by default, and yields each result; a check that raises gives a failed result."""
    for id_, name, check in CHECKS if checks is None else checks:
        try:
            grade, detail, hint = check(ws)
        except H2QError as error:
            grade, detail, hint = Grade.FAIL, error.message, error.hint
        except (OSError, sqlite3.Error, ValueError, psutil.Error) as error:
            grade, detail, hint = Grade.FAIL, f"{type(error).__name__}: {error}", ""
        yield CheckResult(id=id_, name=_(name), grade=grade, detail=detail, hint=hint)


# The machine

_GB = 1024**3
_ACCELERATE_FIXED = (1, 9)
"""First accelerate release without the UnboundLocalError (`current_batch`) of an empty data loader."""


def check_python(_ws: Workspace) -> Finding:
    grade = Grade.PASS if sys.version_info >= (3, 11) else Grade.FAIL
    return grade, _("{version} at {path}").format(version=platform.python_version(), path=sys.executable), ""


def check_system(_ws: Workspace) -> Finding:
    name = platform.system()
    detail = f"{name} {platform.release()} ({platform.machine()})"
    if name not in ("Linux", "Darwin"):
        return (
            Grade.FAIL,
            _("{system}: Linux or macOS is needed; on Windows use WSL2").format(system=detail),
            "",
        )
    return Grade.PASS, detail, ""


def check_cores(_ws: Workspace) -> Finding:
    cores = usable_cores()
    load = os.getloadavg()[0]
    detail = _("{cores} usable, load {load:.1f}").format(cores=cores, load=load)
    if cores < 2:
        return Grade.WARN, _("{detail}; training on one core is slow").format(detail=detail), ""
    if load > 2 * cores:
        return Grade.WARN, _("{detail}: the machine is busy with other work").format(detail=detail), ""
    return Grade.PASS, detail, ""


def check_memory(_ws: Workspace) -> Finding:
    ram = psutil.virtual_memory()
    limit = memory_limit_bytes()
    total = min(ram.total, limit or ram.total)
    detail = _("{free:.1f} of {total:.1f} GB available").format(
        free=min(ram.available, total) / _GB, total=total / _GB
    )
    if total < 2 * _GB:
        return Grade.FAIL, _("{detail}; 2 GB are needed").format(detail=detail), ""
    if ram.available < 1.5 * _GB:
        return Grade.WARN, _("{detail}; close other programs before training").format(detail=detail), ""
    return Grade.PASS, detail, ""


def _existing_folder(path: Path) -> Path:
    """The path or its nearest existing parent."""
    return next(folder for folder in (path, *path.parents) if folder.exists())


def check_disk(ws: Workspace) -> Finding:
    free = shutil.disk_usage(_existing_folder(ws.root)).free
    detail = _("{free:.1f} GB free for {path}").format(free=free / _GB, path=ws.root)
    if free < 0.5 * _GB:
        return Grade.FAIL, _("{detail}; 0.5 GB are needed").format(detail=detail), ""
    return (Grade.WARN if free < 5 * _GB else Grade.PASS), detail, ""


def check_torch(_ws: Workspace) -> Finding:
    hint = f"{sys.executable} -m pip install --force-reinstall torch"
    try:
        version = metadata.version("torch")
    except metadata.PackageNotFoundError:
        return Grade.FAIL, _("torch is not installed"), hint
    # In a child process: a broken build may crash the process that imports it.
    code = (
        "import torch; print('cuda' if torch.cuda.is_available() else"
        " 'mps' if torch.backends.mps.is_available() else 'cpu', torch.get_num_threads())"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        return Grade.WARN, _("torch {version} takes over a minute to import").format(version=version), ""
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [str(done.returncode)])[-1]
        return (
            Grade.FAIL,
            _("torch {version} fails to import: {reason}").format(version=version, reason=last),
            hint,
        )
    device, threads = done.stdout.split()[-2:]
    return (
        Grade.PASS,
        _("torch {version} on {device}, {n} threads").format(version=version, device=device, n=threads),
        "",
    )


def check_llama(_ws: Workspace) -> Finding:
    try:
        version = metadata.version("xllamacpp")
    except metadata.PackageNotFoundError:
        return Grade.WARN, _("llama.cpp is not installed: GGUF models are answered by torch, slowly"), ""
    done = subprocess.run(
        [sys.executable, "-c", "import xllamacpp"],
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode == 0:
        return Grade.PASS, f"xllamacpp {version}", ""
    last = (done.stderr.strip().splitlines() or [str(done.returncode)])[-1]
    # Debian's slim images lack it.
    hint = (
        "apt install libgomp1"
        if "libgomp" in last
        else f"{sys.executable} -m pip install --force-reinstall xllamacpp"
    )
    return Grade.WARN, _("llama.cpp fails to load: {reason}").format(reason=last), hint


def check_mps(_ws: Workspace) -> Finding:
    ratio = os.environ.get("PYTORCH_MPS_HIGH_WATERMARK_RATIO", "")
    if ratio and ratio.strip("0.") == "":
        detail = _("PYTORCH_MPS_HIGH_WATERMARK_RATIO={ratio} disables the memory limit of MPS").format(
            ratio=ratio
        )
        return Grade.WARN, detail, "unset PYTORCH_MPS_HIGH_WATERMARK_RATIO"
    return Grade.PASS, _("no setting disables the memory limit"), ""


def _version_tuple(text: str) -> tuple[int, ...]:
    """The leading numbers of a version: (1, 10, 2) for "1.10.2.dev0"."""
    return tuple(int(part) for part in re.findall(r"\d+", re.split(r"[^\d.]", text)[0]))


def check_accelerate(_ws: Workspace) -> Finding:
    try:
        version = metadata.version("accelerate")
    except metadata.PackageNotFoundError:
        return Grade.PASS, _("not installed (optional)"), ""
    if _version_tuple(version) < _ACCELERATE_FIXED:
        detail = _("accelerate {version} fails on an empty dataset with an UnboundLocalError (current_batch)")
        return (
            Grade.WARN,
            detail.format(version=version),
            f"{sys.executable} -m pip install 'accelerate>=1.9.0'",
        )
    return Grade.PASS, f"accelerate {version}", ""


def check_sqlite(_ws: Workspace) -> Finding:
    detail = _("version {version}").format(version=sqlite3.sqlite_version)
    return (Grade.PASS if sqlite3.sqlite_version_info >= (3, 35) else Grade.FAIL), detail, ""


def check_terminal(_ws: Workspace) -> Finding:
    if not sys.stdout.isatty():
        return Grade.PASS, _("none (a pipe or a job): commands work, the app does not"), ""
    size = shutil.get_terminal_size()
    encoding = locale.getpreferredencoding(False)
    kind = os.environ.get("TERM", "")
    detail = f"{kind} {size.columns}×{size.lines}, {encoding}"
    if kind in ("", "dumb"):
        return (
            Grade.WARN,
            _("{detail}: this terminal cannot display the app").format(detail=detail),
            "export TERM=xterm-256color",
        )
    if size.columns < 60 or size.lines < 20:
        return (
            Grade.WARN,
            _("{detail}; at least 60×20 is needed, 80×24 recommended").format(detail=detail),
            "",
        )
    if "utf" not in encoding.lower():
        return (
            Grade.WARN,
            _("{detail}; Chinese text needs UTF-8").format(detail=detail),
            "export LC_ALL=C.UTF-8",
        )
    return Grade.PASS, detail, ""


def check_logout(_ws: Workspace) -> Finding:
    if platform.system() != "Linux":
        return Grade.PASS, _("runs continue after logout"), ""
    kills = False
    for file in (
        Path("/etc/systemd/logind.conf"),
        *sorted(Path("/etc/systemd/logind.conf.d").glob("*.conf")),
    ):
        try:
            text = file.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        for match in re.finditer(r"^\s*KillUserProcesses\s*=\s*(\w+)", text, re.MULTILINE):
            kills = match[1].lower() in ("yes", "true", "1", "on")
    if kills and shutil.which("systemd-run") is None:
        detail = _("logind kills your processes, including runs, at logout")
        return Grade.WARN, detail, "loginctl enable-linger"
    return Grade.PASS, _("runs continue after logout"), ""


# The workspace


def check_workspace(ws: Workspace) -> Finding:
    from engine.workspace.open import open_workspace

    open_workspace(ws, create=False)
    nearest = _existing_folder(ws.root)
    if not os.access(nearest, os.W_OK | os.X_OK):
        return (
            Grade.FAIL,
            _("{path} cannot be written").format(path=nearest),
            "h2q-tui --data-dir ~/h2q check",
        )
    if not ws.root.exists():
        return Grade.PASS, _("{path} is created on first use").format(path=ws.root), ""
    return Grade.PASS, str(ws.root), ""


_STORE_CHECK_S = 5.0
"""Time limit for the check of a large memory; a backup checks all of it."""


def check_store(ws: Workspace) -> Finding:
    if not ws.memory_db.exists():
        return Grade.PASS, _("empty"), "h2q-tui sample"
    from engine.memory.integrity import find_damage, is_damage, reason_of

    connection = sqlite3.connect(f"{ws.memory_db.resolve().as_uri()}?mode=ro", uri=True, timeout=2)
    count = 0
    try:
        damage = find_damage(connection, limit_s=_STORE_CHECK_S)
        if not damage:
            (count,) = connection.execute("SELECT COUNT(*) FROM current_conversations").fetchone()
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        damage = reason_of(error)
    finally:
        connection.close()
    if damage:
        return (
            Grade.FAIL,
            _("{path} is damaged: {why}").format(path=ws.memory_db, why=damage),
            "h2q-tui backup restore",
        )
    text = n_("{n} conversation", "{n} conversations", count).format(n=count)
    return Grade.PASS, text, "" if count else "h2q-tui sample"


def check_embedder(ws: Workspace) -> Finding:
    """The embedding model for semantic duplicates; not loaded, because that takes seconds."""
    from engine.core.config import load_settings
    from engine.corpus.embedding.embedder import describe_embedder
    from engine.corpus.embedding.measured import describe_effect

    setting = load_settings(ws).embedder
    try:
        embedder, effect = describe_embedder(setting, ws.root), describe_effect(ws.memory_db, setting)
        return Grade.PASS, _("; ").join(filter(None, (embedder, effect))), ""
    except BadInput as error:
        return Grade.WARN, error.message, error.hint


def check_text(ws: Workspace) -> Finding:
    files = (
        [path for path in ws.training_data.rglob("*.txt") if path.is_file()]
        if ws.training_data.is_dir()
        else []
    )
    if not files:
        return Grade.PASS, _("none; training from scratch uses the sample text"), ""
    size = sum(path.stat().st_size for path in files)
    text = n_("{n} file, {mb:.1f} MB", "{n} files, {mb:.1f} MB", len(files))
    return Grade.PASS, text.format(n=len(files), mb=size / 1e6), ""


def check_models(ws: Workspace) -> Finding:
    from engine.models.registry import find_model, in_use, list_models

    cards = list_models(ws)
    used = in_use(ws)
    if used is None:
        return Grade.PASS, _("{n} in the workspace, none in use").format(n=len(cards)), ""
    find_model(ws, used)
    return Grade.PASS, _("{n} in the workspace, {name} in use").format(n=len(cards), name=used), ""


def check_runs(ws: Workspace) -> Finding:
    from engine.runs.rundir import list_runs, summarise

    newest = list_runs(ws)[:50]
    alive = [run.run_id for run in newest if run.alive()]
    dead = [run.run_id for run in newest if summarise(run).status is RunStatus.DEAD]
    if dead:
        detail = _("{id} died without a final event").format(id=_(", ").join(dead[:3]))
        return Grade.WARN, detail, f"h2q-tui runs show {dead[0]}"
    if alive:
        return (
            Grade.PASS,
            _("{id} is running").format(id=_(", ").join(alive[:3])),
            f"h2q-tui runs attach {alive[0]}",
        )
    return Grade.PASS, _("no run is active"), ""


CHECKS: tuple[tuple[str, str, Check], ...] = (
    ("python", N_("Python"), check_python),
    ("platform", N_("system"), check_system),
    ("cores", N_("processor"), check_cores),
    ("memory", N_("memory"), check_memory),
    ("disk", N_("disk"), check_disk),
    ("torch", N_("torch"), check_torch),
    ("llama", N_("llama.cpp"), check_llama),
    ("mps", N_("MPS memory"), check_mps),
    ("accelerate", N_("accelerate"), check_accelerate),
    ("sqlite", N_("SQLite"), check_sqlite),
    ("terminal", N_("terminal"), check_terminal),
    ("logout", N_("logging out"), check_logout),
    ("workspace", N_("workspace"), check_workspace),
    ("store", N_("conversations"), check_store),
    ("embedder", N_("embedder"), check_embedder),
    ("text", N_("text"), check_text),
    ("models", N_("models"), check_models),
    ("runs", N_("runs"), check_runs),
)
"""Id, translatable name and function of each check, in the order of the output."""
