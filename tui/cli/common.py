"""What every headless command shares: the global options, and how it speaks.

With `--json` stdout carries exactly one JSON document; everything for people goes to stderr.
"""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.core.paths import Workspace


@dataclass
class GlobalOptions:
    """Options that stand before or after any subcommand."""

    data_dir: str | None = None
    lang: str | None = None
    json: bool = False
    plain: bool = False
    """No colour and no redrawing: one line per event."""
    quiet: bool = False
    workspace_dir: str | None = None
    """`--workspace`: the folder against which relative paths resolve."""


options = GlobalOptions()
"""Set once by `tui.cli.main.main` before a command runs."""


def resolve(path: str) -> Path:
    """A path from the command line, relative to `--workspace` when that is given."""
    given = Path(path).expanduser()
    return (given if given.is_absolute() else Path(options.workspace_dir or ".") / given).resolve()


def workspace(*, create: bool = True) -> Workspace:
    """The workspace of the command, opened by `engine.workspace.open.open_workspace`.

    Raises BadInput (a newer workspace, MindX memory, the shipped data folder).
    """
    from engine.core.paths import find_workspace
    from engine.workspace.open import open_workspace

    base = Path(options.workspace_dir) if options.workspace_dir else None
    return open_workspace(find_workspace(options.data_dir, relative_to=base), create=create)


_COMMAND = re.compile(r"(?<=→ )h2q-tui(?: [^→…]*)?$")
"""The command at the end of a sentence that mends or goes on."""


def here(command: str) -> str:
    """A command of ours as it runs from this place: on the workspace that `--data-dir` chose."""
    if not options.data_dir or not f"{command} ".startswith("h2q-tui ") or "--data-dir" in command:
        return command
    if command.endswith("--help"):
        return command
    return f"{command} --data-dir {shlex.quote(options.data_dir)}"


def say(text: str = "", *, error: bool = False) -> None:
    """One line for a person, safe for the terminal; to stderr with `--json` or for errors."""
    if options.quiet and not error:
        return
    from tui.app.text import plain

    text = _COMMAND.sub(lambda found: here(found[0]), text)
    print(plain(text), file=sys.stderr if options.json or error else sys.stdout, flush=True)


def emit_json(value: Any) -> None:
    """The one JSON document of a command with `--json`. Takes msgspec Structs too."""
    import msgspec

    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")
    sys.stdout.flush()


def check_lr(lr: float | None) -> None:
    """Said before anything starts. Raises UsageProblem."""
    from engine.core.errors import UsageProblem
    from engine.core.i18n import _

    if lr is not None and not 0 < lr <= 10:
        raise UsageProblem(_("--lr takes more than 0 and up to 10, not {value}").format(value=lr))
