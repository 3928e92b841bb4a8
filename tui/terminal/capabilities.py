"""Terminal capabilities, and the environment variables to set before Textual is imported."""

from __future__ import annotations

import os
import re
import select
import signal
import termios
import time
import tty
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

OVER_SSH_ESCAPE_MS = 250
"""How long a lone ESC waits for the rest of a key sequence; a slow line splits sequences."""


@dataclass(frozen=True)
class Terminal:
    """Capabilities according to the environment; shown on the Health tab."""

    term: str
    colours: int
    """16, 256 or 16777216; 0 with NO_COLOR."""
    over_ssh: bool
    multiplexer: str
    """"tmux", "screen" or ""."""
    escape_ms: int


def detect_terminal() -> Terminal:
    """Reads the environment and changes nothing."""
    term = os.environ.get("TERM", "")
    depth = os.environ.get("TEXTUAL_COLOR_SYSTEM", "auto")
    truecolor = os.environ.get("COLORTERM", "").strip().lower() in ("truecolor", "24bit")
    if "NO_COLOR" in os.environ:
        colours = 0
    elif depth == "truecolor" or (depth == "auto" and truecolor):
        colours = 1 << 24
    elif depth == "256" or (depth == "auto" and term.endswith("256color")):
        colours = 256
    else:
        colours = 16
    over_ssh = bool(os.environ.get("SSH_CONNECTION") or os.environ.get("SSH_TTY"))
    multiplexer = "tmux" if os.environ.get("TMUX") else "screen" if os.environ.get("STY") else ""
    escape_ms = int(os.environ["ESCDELAY"]) if os.environ.get("ESCDELAY", "").isdigit() else 100
    return Terminal(term, colours, over_ssh, multiplexer, escape_ms)


def in_browser() -> bool:
    """Whether the app is drawn by a browser: textual-serve names Textual's web driver, whose input is a pipe."""
    return os.environ.get("TEXTUAL_DRIVER", "").endswith(":WebDriver")


def prepare_terminal() -> Terminal:
    """Sets the variables that Textual reads when it is imported; those that the user has set stay.

    No animations, at most 30 repaints a second over SSH, a longer ESC delay there. SIGHUP gets its default
    action back: under `nohup` it is ignored, and the input thread would then spin on the closed terminal.
    """
    terminal = detect_terminal()
    os.environ.setdefault("TEXTUAL_ANIMATIONS", "none")
    if terminal.over_ssh:
        os.environ.setdefault("TEXTUAL_FPS", "30")
        os.environ.setdefault("ESCDELAY", str(OVER_SSH_ESCAPE_MS))
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    return detect_terminal()


def theme_name(setting: str, colours: int) -> str:
    """The Textual theme for the setting `theme` ("auto", "dark", "light", "ansi" or a theme's own name)."""
    if setting == "auto":
        return "h2q-ansi" if colours <= 16 else "h2q-dark"
    return f"h2q-{setting}" if setting in ("dark", "light", "ansi", "ansi-light") else setting


@cache
def has_job_control() -> bool:
    """Whether a shell started this process as a job of its own: it takes the terminal when the process stops, and `fg`
    gives it back. Not so below a wrapper such as `uv run`, or in a terminal window of its own: a stopped process would
    leave that dead."""
    try:
        return os.getpid() == os.getpgrp() == os.tcgetpgrp(0) and os.getsid(os.getppid()) == os.getsid(0)
    except OSError:
        return False


def hung_up() -> bool:
    """Whether the terminal on stdin is gone."""
    poll = select.poll()
    poll.register(0, 0)
    return any(event & (select.POLLHUP | select.POLLERR | select.POLLNVAL) for _fd, event in poll.poll(0))


class WidthProbe(NamedTuple):
    """The answer of the terminal about the width of a glyph, and other input that arrived meanwhile."""

    wide: bool
    """Whether the terminal draws `●` two cells wide."""
    typed: str
    """Keys that the user pressed meanwhile, or before: they are meant for the app."""


def probe_ambiguous_width(*, patience_s: float = 0.15) -> WidthProbe:
    """Asks the terminal how wide it draws `●`, before the app takes the screen.

    Not wide where it does not answer in time. The output is erased again.
    """
    if os.environ.get("TERM", "") in ("", "dumb", "linux") or not (os.isatty(0) and os.isatty(1)):
        return WidthProbe(wide=False, typed="")
    saved = termios.tcgetattr(0)
    try:
        tty.setcbreak(0, termios.TCSANOW)
        os.write(1, "\r●\x1b[6n".encode())
        column, typed = _reported_column(patience_s)
        os.write(1, b"\r\x1b[K")
    finally:
        termios.tcsetattr(0, termios.TCSANOW, saved)
    return WidthProbe(wide=column is not None and column > 2, typed=typed.decode("utf-8", "ignore"))


def _reported_column(patience_s: float) -> tuple[int | None, bytes]:
    """The cursor column, from 1, that the terminal reports, and its other output."""
    answer, deadline = b"", time.monotonic() + patience_s
    while (left := deadline - time.monotonic()) > 0 and select.select([0], [], [], left)[0]:
        piece = os.read(0, 64)
        if not piece:
            break
        answer += piece
        found = re.search(rb"\x1b\[\d+;(\d+)R", answer)
        if found:
            return int(found[1]), answer[: found.start()] + answer[found.end() :]
    return None, answer
