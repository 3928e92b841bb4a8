"""What the preflight looks at on the machine: processor, memory, disk, programs, terminal."""

from __future__ import annotations

import locale
import os
import platform
import re
import shutil
import sqlite3
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import psutil

from engine.core.i18n import _
from engine.core.paths import Workspace
from engine.health.check_result import Grade

GB = 1024**3
ACCELERATE_FIXED = (1, 9)
"""First release in which an empty data loader no longer ends in an UnboundLocalError (`current_batch`)."""


def python(_ws: Workspace) -> tuple[Grade, str, str]:
    grade = Grade.PASS if sys.version_info >= (3, 11) else Grade.FAIL
    return grade, _("{version} at {path}").format(version=platform.python_version(), path=sys.executable), ""


def system(_ws: Workspace) -> tuple[Grade, str, str]:
    name = platform.system()
    detail = f"{name} {platform.release()} ({platform.machine()})"
    if name not in ("Linux", "Darwin"):
        return (
            Grade.FAIL,
            _("{system}: Linux or macOS is needed; on Windows use WSL2").format(system=detail),
            "",
        )
    return Grade.PASS, detail, ""


def cores(_ws: Workspace) -> tuple[Grade, str, str]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    load = os.getloadavg()[0]
    detail = _("{cores} to use, load {load:.1f}").format(cores=cores, load=load)
    if cores < 2:
        return Grade.WARN, _("{detail}; training on one core is slow").format(detail=detail), ""
    if load > 2 * cores:
        return Grade.WARN, _("{detail}: something else keeps the machine busy").format(detail=detail), ""
    return Grade.PASS, detail, ""


def cgroup_limit(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes that the control group allows this process, or None without a limit (v2, then v1)."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            text = (root / name).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            continue
        if text.isdigit() and int(text) < 1 << 60:
            return int(text)
    return None


def memory(_ws: Workspace) -> tuple[Grade, str, str]:
    found = psutil.virtual_memory()
    limit = cgroup_limit()
    total = min(found.total, limit or found.total)
    detail = _("{free:.1f} of {total:.1f} GB available").format(
        free=min(found.available, total) / GB, total=total / GB
    )
    if total < 2 * GB:
        return Grade.FAIL, _("{detail}; 2 GB are needed").format(detail=detail), ""
    if found.available < 1.5 * GB:
        return Grade.WARN, _("{detail}; close something before training").format(detail=detail), ""
    return Grade.PASS, detail, ""


def nearest_folder(path: Path) -> Path:
    """The path itself, or its nearest parent that exists."""
    return next(folder for folder in (path, *path.parents) if folder.exists())


def disk(ws: Workspace) -> tuple[Grade, str, str]:
    free = shutil.disk_usage(nearest_folder(ws.root)).free
    detail = _("{free:.1f} GB free for {path}").format(free=free / GB, path=ws.root)
    if free < 0.5 * GB:
        return Grade.FAIL, _("{detail}; 0.5 GB are needed").format(detail=detail), ""
    return (Grade.WARN if free < 5 * GB else Grade.PASS), detail, ""


def torch(_ws: Workspace) -> tuple[Grade, str, str]:
    hint = f"{sys.executable} -m pip install --force-reinstall torch"
    try:
        version = metadata.version("torch")
    except metadata.PackageNotFoundError:
        return Grade.FAIL, _("torch is not installed"), hint
    # In a process of its own: a broken build may end the process that imports it.
    code = (
        "import torch; print('cuda' if torch.cuda.is_available() else"
        " 'mps' if torch.backends.mps.is_available() else 'cpu', torch.get_num_threads())"
    )
    try:
        told = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        return Grade.WARN, _("torch {version} takes over a minute to import").format(version=version), ""
    if told.returncode != 0:
        last = (told.stderr.strip().splitlines() or [str(told.returncode)])[-1]
        return Grade.FAIL, _("torch {version} does not import: {why}").format(version=version, why=last), hint
    device, threads = told.stdout.split()[-2:]
    return (
        Grade.PASS,
        _("torch {version} on {device}, {n} threads").format(version=version, device=device, n=threads),
        "",
    )


def mps(_ws: Workspace) -> tuple[Grade, str, str]:
    ratio = os.environ.get("PYTORCH_MPS_HIGH_WATERMARK_RATIO", "")
    if ratio and ratio.strip("0.") == "":
        detail = _("PYTORCH_MPS_HIGH_WATERMARK_RATIO={ratio} takes the memory limit of MPS away").format(
            ratio=ratio
        )
        return Grade.WARN, detail, "unset PYTORCH_MPS_HIGH_WATERMARK_RATIO"
    return Grade.PASS, _("no setting takes its memory limit away"), ""


def version_tuple(text: str) -> tuple[int, ...]:
    """The leading numbers of a version: "1.10.2.dev0" is (1, 10, 2)."""
    return tuple(int(part) for part in re.findall(r"\d+", re.split(r"[^\d.]", text)[0]))


def accelerate(_ws: Workspace) -> tuple[Grade, str, str]:
    try:
        version = metadata.version("accelerate")
    except metadata.PackageNotFoundError:
        return Grade.PASS, _("not installed, and not needed"), ""
    if version_tuple(version) < ACCELERATE_FIXED:
        detail = _("accelerate {version} ends an empty dataset in an UnboundLocalError (current_batch)")
        return (
            Grade.WARN,
            detail.format(version=version),
            f"{sys.executable} -m pip install 'accelerate>=1.9.0'",
        )
    return Grade.PASS, f"accelerate {version}", ""


def sqlite(_ws: Workspace) -> tuple[Grade, str, str]:
    detail = _("version {version}").format(version=sqlite3.sqlite_version)
    return (Grade.PASS if sqlite3.sqlite_version_info >= (3, 35) else Grade.FAIL), detail, ""


def terminal(_ws: Workspace) -> tuple[Grade, str, str]:
    if not sys.stdout.isatty():
        return Grade.PASS, _("none (a pipe or a job): the commands work, the app does not"), ""
    size = shutil.get_terminal_size()
    encoding = locale.getpreferredencoding(False)
    kind = os.environ.get("TERM", "")
    detail = f"{kind} {size.columns}×{size.lines}, {encoding}"
    if kind in ("", "dumb"):
        return (
            Grade.WARN,
            _("{detail}: this terminal cannot be drawn on").format(detail=detail),
            "export TERM=xterm-256color",
        )
    if size.columns < 60 or size.lines < 20:
        return Grade.WARN, _("{detail}; 60×20 is the least, 80×24 is comfortable").format(detail=detail), ""
    if "utf" not in encoding.lower():
        return (
            Grade.WARN,
            _("{detail}; without UTF-8 Chinese text cannot be shown").format(detail=detail),
            "export LC_ALL=C.UTF-8",
        )
    return Grade.PASS, detail, ""


def logout(_ws: Workspace) -> tuple[Grade, str, str]:
    if platform.system() != "Linux":
        return Grade.PASS, _("a run goes on after logging out"), ""
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
        detail = _("logind ends your processes when you log out, runs too")
        return Grade.WARN, detail, "loginctl enable-linger"
    return Grade.PASS, _("a run goes on after logging out"), ""
