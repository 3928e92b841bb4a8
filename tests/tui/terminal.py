"""The app on a pseudo-terminal: its output byte for byte, and the state of the terminal after it."""

from __future__ import annotations

import fcntl
import os
import select
import shlex
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyte

ROOT = Path(__file__).parents[2]
CLEAN = (
    "H2Q_DATA_DIR",
    "SSH_CONNECTION",
    "SSH_TTY",
    "TMUX",
    "STY",
    "NO_COLOR",
    "COLORTERM",
    "TEXTUAL_COLOR_SYSTEM",
)


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Terminal:
    """`h2q-tui` in a terminal of its own, 80 by 24."""

    def __init__(
        self,
        workspace: Path,
        *,
        term: str = "xterm-256color",
        size: tuple[int, int] = (80, 24),
        script: str = "",
    ) -> None:
        """`script` is run by a shell with job control in this terminal; APP in it is the app."""
        self.master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
        self.before = termios.tcgetattr(slave)
        environment = {name: value for name, value in os.environ.items() if name not in CLEAN}
        environment |= {"TERM": term, "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}
        app = [sys.executable, "-m", "tui.cli.main", "--lang", "en", "--data-dir", str(workspace)]
        self.process = subprocess.Popen(
            ["bash", "-mc", script.replace("APP", shlex.join(app))] if script else app,
            cwd=ROOT,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            start_new_session=True,
            preexec_fn=_take_terminal if script else None,
        )
        self._slave = slave
        self.output = b""
        self._screen = pyte.Screen(*size)
        self._stream = pyte.ByteStream(self._screen)

    def read(self, seconds: float, until: bytes | None = None) -> bytes:
        """What arrives within `seconds`, or before `until` was among it or is shown: only changed cells are sent."""
        deadline, got = time.monotonic() + seconds, b""
        shown_before = until is not None and self.shows(until)
        while (left := deadline - time.monotonic()) > 0:
            if select.select([self.master], [], [], min(left, 0.05))[0]:
                data = os.read(self.master, 65536)
                got += data
                self._stream.feed(data)
                if until is not None and (until in got or (not shown_before and self.shows(until))):
                    break
            elif self.process.poll() is not None:
                break
        self.output += got
        return got

    def read_after(self, mark: bytes, seconds: float, until: bytes) -> bytes:
        """What arrives after `mark`, before `until` was among it or within `seconds`; both may come in one piece."""
        deadline, got = time.monotonic() + seconds, b""
        while until not in got.partition(mark)[2] and (left := deadline - time.monotonic()) > 0:
            got += self.read(min(left, 0.1))
        return got.partition(mark)[2]

    def shows(self, text: bytes) -> bool:
        """Whether a line of the screen has `text`."""
        return any(text in line.encode() for line in self._screen.display)

    def press(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def attributes(self) -> list[object]:
        return list(termios.tcgetattr(self._slave))

    def hang_up(self) -> None:
        """The terminal goes away; this process is not its session leader, so nobody gets a SIGHUP."""
        os.close(self.master)
        os.close(self._slave)
        self.master = self._slave = -1

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(10)
        if self.master >= 0:
            os.close(self.master)
            os.close(self._slave)


@contextmanager
def terminal(workspace: Path, **options: str) -> Iterator[Terminal]:
    opened = Terminal(workspace, **options)  # type: ignore[arg-type]
    try:
        yield opened
    finally:
        opened.close()
