"""The real command tree, to check texts about commands against it."""

from __future__ import annotations

import shlex
from functools import cache
from typing import Any

import typer
import typer.main

from tui.cli.main import build

GLOBALS = {"--data-dir", "--json", "--lang", "--plain", "--quiet", "--workspace", "--version", "--help", "-h"}


@cache
def tree() -> Any:
    """The root command, as `h2q-tui` builds it."""
    return typer.main.get_command(build())


def problem_of(line: str) -> str:
    """Why `h2q-tui …` would be refused (an unknown command or option), else "".

    Other words after the command count as its arguments.
    """
    words = shlex.split(line, comments=True)
    assert words[0] == "h2q-tui", line
    command: Any = tree()
    queue = words[1:]
    while queue:
        word = queue.pop(0)
        if word.startswith("--") or (word.startswith("-") and len(word) == 2):
            name = word.partition("=")[0]
            if name in GLOBALS:
                if name in ("--data-dir", "--lang", "--workspace"):
                    queue = queue[1:]
                continue
            known = [option for param in command.params for option in (*param.opts, *param.secondary_opts)]
            if name not in known:
                return f"{command.name or 'h2q-tui'} has no {name}"
        elif getattr(command, "commands", None) is not None:
            if word not in command.commands:
                return f"there is no command {word}"
            command = command.commands[word]
    if getattr(command, "commands", None) is not None and not command.invoke_without_command:
        return f"{command.name} needs a subcommand"
    return ""


def paths(command: Any | None = None, prefix: str = "h2q-tui") -> list[tuple[str, Any]]:
    """Every command with the words that call it, depth first."""
    here = tree() if command is None else command
    found = [(prefix, here)]
    for name, sub in getattr(here, "commands", {}).items():
        found += paths(sub, f"{prefix} {name}")
    return found
