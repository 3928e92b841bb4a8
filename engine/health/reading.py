"""Reading with a time limit: programs in their own process, and checks beside each other in threads."""

from __future__ import annotations

import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from engine.core.i18n import _, colon
from engine.core.paths import Workspace
from engine.health.grades import AnyCheck, CheckResult, Grade, Judgement, NotKnown
from engine.runs.own_process import engine_environment


def run_program(*words: str, timeout_s: float = 3.0) -> str:
    """What a program prints. Raises NotKnown when it is missing, fails or takes too long."""
    if shutil.which(words[0]) is None:
        raise NotKnown(_("the program {name} is not installed").format(name=words[0]))
    done = _run(words, timeout_s)
    if done.returncode:
        raise NotKnown(colon(words[0], last_line(done.stderr) or str(done.returncode)))
    return done.stdout


def run_python(code: str, *, timeout_s: float) -> subprocess.CompletedProcess[str]:
    """Runs `code` in a Python process of its own, which a broken library may crash. Raises NotKnown after the limit."""
    return _run((sys.executable, "-P", "-c", code), timeout_s, engine_environment())


def _run(
    words: Sequence[str], timeout_s: float, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout_s,
            env=env,
        )
    except subprocess.TimeoutExpired:
        name = Path(words[0]).name
        raise NotKnown(
            _("{name} did not answer within {seconds:g} s").format(name=name, seconds=timeout_s)
        ) from None


def last_line(text: str) -> str:
    """The last line that is not empty; "" without one."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def read_text(path: Path) -> str | None:
    """The text of a small file of the system; None where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError):
        return None


def _answer(ws: Workspace, check: AnyCheck, answer: queue.SimpleQueue[CheckResult]) -> None:
    answer.put(check.run(ws))


def run_beside_each_other(ws: Workspace, checks: Sequence[AnyCheck]) -> Iterator[CheckResult]:
    """Runs all checks at the same time and yields the results in their order, each by its limit at the latest.

    The threads are daemons: one that waits for a disk or a service that never answers holds nothing.
    """
    started = time.monotonic()
    answers: dict[str, queue.SimpleQueue[CheckResult]] = {}
    for check in checks:
        answers[check.id] = queue.SimpleQueue()
        arguments = (ws, check, answers[check.id])
        threading.Thread(target=_answer, args=arguments, name=f"check {check.id}", daemon=True).start()
    for check in checks:
        left = max(0.0, started + check.limit_s - time.monotonic())
        try:
            yield answers[check.id].get(timeout=left)
        except queue.Empty:
            text = _("no answer within {seconds:g} s").format(seconds=check.limit_s)
            yield check.result(Judgement(Grade.UNKNOWN, text))
