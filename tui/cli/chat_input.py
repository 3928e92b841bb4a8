"""What a person or a pipe gives to `h2q-tui chat`: lines with `\\` at their end, texts between three quotes, piped material."""

from __future__ import annotations

import os
import select
import stat
import sys
from collections.abc import Callable

from engine.core.errors import BadInput
from engine.core.i18n import _
from tui.cli import output

MOST_BYTES = 4 << 20
"""Of piped text; no context holds more."""
PATIENCE_S = 2.0
"""Seconds after which the command says that it reads from a pipe."""
QUOTES = '"""'


def material() -> str:
    """The text that is piped into the command; "" from a terminal, a device or nowhere.

    Raises BadInput for more than `MOST_BYTES` and for a file that is not text.
    """
    stream = sys.stdin
    if stream is None or stream.closed or stream.isatty():
        return ""
    try:
        mode = os.fstat(stream.fileno()).st_mode
    except (OSError, ValueError):
        return stream.read(MOST_BYTES)
    if not (stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)):
        return ""
    if not select.select([stream], [], [], PATIENCE_S)[0]:
        output.echo(_("reading the text from standard input; ctrl+d ends it"), error=True)
    data = stream.buffer.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise BadInput(
            _("the text on standard input is longer than {n} MB").format(n=MOST_BYTES >> 20),
            hint="h2q-tui chat --help",
        )
    if b"\0" in data:
        raise BadInput(_("standard input is not text"), hint="h2q-tui chat --help")
    return data.decode("utf-8-sig", "replace")


def question_with(prompt: str, text: str) -> str:
    """The text first, what is to be done with it below: what a small model reads last it follows best."""
    text = text.strip("\r\n")
    return f"{text}\n\n{prompt}" if text.strip() else prompt


def read_question(read: Callable[[str], str]) -> str:
    """One question from a terminal: `\\` at the end of a line continues it, three quotes hold several lines.

    `read` is `input`; EOFError and KeyboardInterrupt are its own.
    """
    line = read("> ")
    if line.lstrip().startswith(QUOTES):
        text = line.lstrip()[len(QUOTES) :]
        while QUOTES not in text:
            text += "\n" + read(". ")
        before, _quotes, after = text.partition(QUOTES)
        return (before + after).strip()
    while line.endswith("\\"):
        line = line[:-1] + "\n" + read(". ")
    return line.strip()
