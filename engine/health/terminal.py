"""Checks of the terminal: size, encoding and colours, tmux between, and what logging out ends."""

from __future__ import annotations

import locale
import os
import platform
import re
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

from engine.core.i18n import N_, _
from engine.core.paths import Workspace
from engine.health.grades import Check, Fix, Grade, Judgement, NotKnown, fixable, passes, warns
from engine.health.reading import read_text, run_program

LEAST_COLUMNS, LEAST_LINES = 60, 20


class TerminalReading(NamedTuple):
    is_terminal: bool
    term: str = ""
    columns: int = 80
    lines: int = 24
    encoding: str = "UTF-8"


def _on_terminal() -> bool:
    """Whether the output of this process is a terminal. The app has put something else into `sys.stdout`."""
    stream = sys.__stdout__ if sys.__stdout__ is not None else sys.stdout
    return stream is not None and stream.isatty()


def read_terminal(_ws: Workspace) -> TerminalReading:
    if not _on_terminal():
        return TerminalReading(False)
    size = shutil.get_terminal_size()
    encoding = locale.getpreferredencoding(False)
    return TerminalReading(True, os.environ.get("TERM", ""), size.columns, size.lines, encoding)


def judge_terminal(reading: TerminalReading) -> Judgement:
    if not reading.is_terminal:
        return passes(_("none (a pipe or a job): commands work, the app does not"))
    text = f"{reading.term} {reading.columns}×{reading.lines}, {reading.encoding}".strip()
    if reading.term in ("", "dumb"):
        return warns(
            _("{detail}: this terminal cannot display the app").format(detail=text),
            "export TERM=xterm-256color",
        )
    if reading.columns < LEAST_COLUMNS or reading.lines < LEAST_LINES:
        return warns(_("{detail}; at least 60×20 is needed, 80×24 recommended").format(detail=text))
    if "utf" not in reading.encoding.lower():
        return warns(_("{detail}; Chinese text needs UTF-8").format(detail=text), "export LC_ALL=C.UTF-8")
    return passes(text)


# Colours


class Tmux(NamedTuple):
    """What tmux says about the terminal outside."""

    features: tuple[str, ...] = ()
    """Of the attached terminal (`client_termfeatures`): "256", "RGB"; empty when it is not known."""
    client: str = ""
    """TERM of the attached terminal."""


class ColoursReading(NamedTuple):
    term: str
    colorterm: str
    no_color: bool
    inside: str
    """"tmux", "screen" or ""."""
    tmux: Tmux | None = None
    """None when tmux did not answer."""
    is_terminal: bool = True


def read_colours(_ws: Workspace) -> ColoursReading:
    environ = os.environ
    inside = "tmux" if environ.get("TMUX") else "screen" if environ.get("STY") else ""
    tmux = None
    if inside == "tmux":
        try:
            tmux = parse_tmux(
                run_program(
                    "tmux", "display-message", "-p",
                    "#{client_termname}|#{client_termfeatures}", timeout_s=1.5,
                )
            )  # fmt: skip
        except NotKnown:
            tmux = None
    return ColoursReading(
        environ.get("TERM", ""),
        environ.get("COLORTERM", ""),
        bool(environ.get("NO_COLOR")),
        inside,
        tmux,
        _on_terminal(),
    )


def parse_tmux(text: str) -> Tmux:
    """The answer to `display-message -p '#{client_termname}|#{client_termfeatures}'`."""
    client, _bar, features = text.strip().partition("|")
    return Tmux(tuple(filter(None, features.split(","))), client)


def judge_colours(reading: ColoursReading) -> Judgement:
    if not reading.is_terminal:
        return passes(_("no terminal"))
    if reading.no_color:
        return passes(_("none: NO_COLOR is set"))
    full = reading.colorterm.strip().lower() in ("truecolor", "24bit")
    if reading.inside == "tmux":
        return _in_tmux(reading, full)
    if full:
        return passes(_("16 million (COLORTERM={value})").format(value=reading.colorterm))
    if reading.inside == "screen":
        return warns(
            _("{term} in GNU screen: 16 or 256 colours; tmux shows all").format(term=reading.term), "tmux"
        )
    if reading.term.endswith("256color") or reading.term.startswith(
        ("xterm-kitty", "foot", "alacritty", "wezterm")
    ):
        text = _("256 ({term}); if your terminal has more, say so").format(term=reading.term)
        return passes(text, "export COLORTERM=truecolor")
    if reading.term in ("", "dumb"):
        return passes(_("no terminal"))
    return warns(_("{term}: at most 16 colours").format(term=reading.term), "export TERM=xterm-256color")


def _in_tmux(reading: ColoursReading, full: bool) -> Judgement:
    tmux = reading.tmux
    if tmux is None:
        raise NotKnown(_("tmux does not answer"), hint="tmux info")
    if not reading.term.endswith("256color") and not full:
        fix = Fix(
            change=_("New windows of this tmux get 256 colours; ~/.tmux.conf stays as it is"),
            command=("tmux", "set", "-g", "default-terminal", "tmux-256color"),
            outside=True,
        )
        return fixable(Grade.WARN, _("{term} in tmux: at most 16 colours").format(term=reading.term), fix)
    if tmux.features and "RGB" not in tmux.features and full:
        fix = Fix(
            change=_(
                "This tmux sends all colours to {term}, after the next attach; ~/.tmux.conf stays as it is"
            ).format(term=tmux.client or "*"),
            command=("tmux", "set", "-as", "terminal-features", f",{tmux.client or '*'}:RGB"),
            outside=True,
        )
        text = _("tmux reduces 16 million colours to 256: it does not know that {term} has them")
        return fixable(Grade.WARN, text.format(term=tmux.client or "?"), fix)
    count = _("16 million") if "RGB" in tmux.features or full else "256"
    return passes(_("{count} in tmux ({term})").format(count=count, term=reading.term))


TERMINAL = Check("terminal", N_("terminal"), read_terminal, judge_terminal)
COLOURS = Check("colours", N_("colours"), read_colours, judge_colours)
"""Of the process that reads them: the app makes these two itself."""


# Logging out


class LogoutReading(NamedTuple):
    system: str
    kills: bool = False
    """logind's KillUserProcesses."""
    scopes: bool = True
    """Whether `systemd-run` is there, with which runs leave the session."""


def read_logout(_ws: Workspace, root: Path = Path("/")) -> LogoutReading:
    if platform.system() != "Linux":
        return LogoutReading(platform.system())
    folder = root / "etc/systemd"
    texts = map(read_text, (folder / "logind.conf", *sorted((folder / "logind.conf.d").glob("*.conf"))))
    return LogoutReading(
        "Linux", kills_at_logout("\n".join(filter(None, texts))), shutil.which("systemd-run") is not None
    )


def kills_at_logout(text: str) -> bool:
    """The last KillUserProcesses of logind's files (logind.conf(5)); no by default."""
    values = re.findall(r"^[ \t]*KillUserProcesses[ \t]*=[ \t]*(\w+)", text, re.MULTILINE)
    return bool(values) and values[-1].lower() in ("yes", "true", "1", "on")


def keep_user_manager() -> Fix:
    """The fix after which the user's systemd, and what runs in it, stays while the user is logged out."""
    return Fix(
        change=_("Let systemd keep your user manager while you are logged out"),
        command=("loginctl", "enable-linger"),
        outside=True,
    )


def judge_logout(reading: LogoutReading) -> Judgement:
    if reading.kills and not reading.scopes:
        text = _("logind kills your processes, including runs, at logout")
        return fixable(Grade.WARN, text, keep_user_manager())
    return passes(_("runs continue after logout"))
