"""What a command prints and asks: lines for people, one JSON document, a confirmation."""

from __future__ import annotations

import codecs
import re
import sys
from typing import Any

import typer

from engine.core.i18n import _
from tui.cli import session

_HINT = re.compile(r"(?<=→ )h2q-tui(?: [^→…]*)?$")
"""The command at the end of a sentence."""


def echo(text: str = "", *, error: bool = False) -> None:
    """Print one line, safe for the terminal; to stderr with `--json` or `error`."""
    if session.options.quiet and not error:
        return
    from tui.terminal.text import plain

    text = _HINT.sub(lambda match: session.complete(match[0]), text)
    print(plain(text), file=sys.stderr if session.options.json or error else sys.stdout, flush=True)


def echo_json(value: Any) -> None:
    """Print the one JSON document of a command with `--json`; `value` may contain msgspec Structs.

    What a terminal would interpret is escaped.
    """
    import msgspec

    from engine.core.json_text import encode_json
    from tui.terminal.text import json_escaped

    text = msgspec.json.format(encode_json(value), indent=2).decode()
    is_utf8 = codecs.lookup(sys.stdout.encoding or "utf-8").name == "utf-8"
    session.options.json_printed = True
    sys.stdout.write(json_escaped(text, ascii_only=not is_utf8) + "\n")
    sys.stdout.flush()


def confirm(question: str, yes: bool, hint: str) -> None:
    """Ask before something is destroyed, unless `yes`.

    Raises typer.Abort on "no", UsageProblem with `hint` where no terminal can answer.
    """
    from engine.core.errors import UsageProblem
    from tui.terminal.text import plain

    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageProblem(_("this needs confirmation: {question}").format(question=question), hint=hint)
    typer.confirm(plain(question), abort=True, err=True)
