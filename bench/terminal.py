"""Runs a program on a pseudo-terminal."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from types import TracebackType

import psutil

ESCAPES = re.compile(rb"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-_]")


class PtyProcess:
    """`command` on a pty of 80×24, from `with` to its end. Raises TimeoutError when it does not respond."""

    def __init__(
        self, command: list[str], environment: dict[str, str], *, columns: int = 80, rows: int = 24
    ) -> None:
        self.command = command
        self.environment = {**os.environ, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8", **environment}
        self.size = struct.pack("HHHH", rows, columns, 0, 0)
        self.output = b""

    def __enter__(self) -> PtyProcess:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, self.size)
        self.started = time.perf_counter()
        self.process = subprocess.Popen(
            self.command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=self.environment,
            start_new_session=True,
        )
        os.close(slave)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(OSError, TimeoutError):
            self.read(5.0, until=None)
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)

    def read(self, seconds: float, *, until: bytes | None) -> float:
        """Reads until the text `until` is drawn, or for `seconds` without one; returns the seconds since the start."""
        deadline = time.perf_counter() + seconds
        while (left := deadline - time.perf_counter()) > 0:
            if not select.select([self.master], [], [], left)[0]:
                continue
            try:
                self.output += os.read(self.master, 65536)
            except OSError:
                break
            if until is not None and until in ESCAPES.sub(b"", self.output):
                return time.perf_counter() - self.started
        if until is not None:
            shown = ESCAPES.sub(b" ", self.output)[-300:].decode(errors="replace")
            raise TimeoutError(f"{self.command} did not draw {until.decode()!r} in {seconds} s: {shown}")
        return time.perf_counter() - self.started

    def wait(self, seconds: float) -> tuple[int | None, float]:
        """Reads until the program exits, at most for `seconds`: its exit code (None if it is still running) and
        the seconds waited.

        A closed terminal is not the end: the kernel closes the files of a process first, and on a busy machine it
        can be waited for only later.
        """
        began = time.perf_counter()
        while (left := seconds - (time.perf_counter() - began)) > 0:
            self.read(min(0.05, left), until=None)
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self.process.wait(0.01), time.perf_counter() - began
        return self.process.poll(), time.perf_counter() - began

    def cpu_seconds(self) -> float:
        """User and system time of the process and its children so far."""
        process = psutil.Process(self.process.pid)
        times = [one.cpu_times() for one in [process, *process.children(recursive=True)]]
        return float(sum(one.user + one.system for one in times))
