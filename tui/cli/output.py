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
_SURROGATE = re.compile("[\ud800-\udfff]")
"""Python's form of a byte in a file name that is not UTF-8."""


def echo(text: str = "", *, error: bool = False) -> None:
    """Print one line, safe for the terminal; to stderr with `--json` or `error`."""
    if session.options.quiet and not error:
        return
    from tui.terminal.text import plain

    text = _HINT.sub(lambda match: session.complete(match[0]), text)
    print(plain(text), file=sys.stderr if session.options.json or error else sys.stdout, flush=True)


def echo_json(value: Any) -> None:
    """Print the one JSON document of a command with `--json`; `value` may contain msgspec Structs.

    What a terminal would interpret is escaped. Bytes of file names that are not UTF-8 become U+FFFD.
    """
    import msgspec

    from tui.terminal.text import json_escaped

    try:
        document = msgspec.json.encode(value)
    except UnicodeEncodeError:
        document = msgspec.json.encode(_without_surrogates(msgspec.to_builtins(value)))
    text = msgspec.json.format(document, indent=2).decode()
    is_utf8 = codecs.lookup(sys.stdout.encoding or "utf-8").name == "utf-8"
    session.options.json_printed = True
    sys.stdout.write(json_escaped(text, ascii_only=not is_utf8) + "\n")
    sys.stdout.flush()


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(one) for key, one in value.items()}
    return [_without_surrogates(one) for one in value] if isinstance(value, list | tuple) else value


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
