"""Edits a text in the user's editor, which gets the terminal meanwhile."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from engine.core.errors import RunFailed
from engine.core.i18n import _
from engine.workspace.leftovers import staging_folder


def editor_command(environment: Mapping[str, str] | None = None) -> list[str]:
    """The arguments of `$VISUAL`, else of `$EDITOR`; [] when neither is set."""
    environment = os.environ if environment is None else environment
    line = environment.get("VISUAL", "").strip() or environment.get("EDITOR", "").strip()
    try:
        return shlex.split(line)
    except ValueError:
        return [line]


def edit_externally(
    suspend: Callable[[], AbstractContextManager[None]], command: list[str], text: str, folder: Path
) -> str:
    """`text` after editing. The file is below `folder`, readable by its owner alone, and removed afterwards.

    Raises RunFailed when the editor does not start or fails, SuspendNotSupported where the terminal cannot be given
    away, and OSError.
    """
    # Deleted with the folder, and by the next start when this process is killed.
    with staging_folder(folder, ".edit.") as private:
        path = private / "turn.txt"
        path.write_text(text, encoding="utf-8", errors="replace", newline="")
        with suspend():
            try:
                code = subprocess.run([*command, str(path)], check=False).returncode
            except OSError as problem:
                raise RunFailed(
                    _("The editor {command} does not start ({reason})").format(
                        command=command[0], reason=problem.strerror
                    )
                ) from None
        if code:
            raise RunFailed(
                _("The editor {command} exited with {code}: nothing was changed").format(
                    command=command[0], code=code
                )
            )
        with path.open(encoding="utf-8", errors="replace", newline="") as file:
            written = file.read()
    # Editors end the last line of a file with a line break that the text did not have.
    return written.removesuffix("\n").removesuffix("\r") if not text.endswith("\n") else written
