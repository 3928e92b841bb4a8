"""Opens a workspace: creates or migrates its folders, and rejects folders that cannot be one."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.core.errors import BadInput, UsageProblem
from engine.core.files import write_json
from engine.core.i18n import _
from engine.core.paths import Workspace, shipped
from engine.workspace.leftovers import sweep_leftovers


def _create_folders(workspace: Workspace) -> None:
    for folder in (
        workspace.memory_db.parent,
        workspace.training_data,
        workspace.training,
        workspace.config,
        workspace.models,
        workspace.runs,
        workspace.status,
        workspace.backups,
    ):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)


MIGRATIONS: tuple[Callable[[Workspace], None], ...] = (_create_folders,)
"""Migration n brings a workspace from schema n to n + 1. Append, never edit one that has shipped.

A folder without `workspace.json` has schema 0.
"""


def open_workspace(
    workspace: Workspace,
    create: bool = True,
    *,
    migrations: tuple[Callable[[Workspace], None], ...] = MIGRATIONS,
) -> Workspace:
    """Creates or migrates `workspace` and returns it; `create=False` only checks it and writes nothing.

    Leftovers of killed processes are deleted. An older workspace is backed up, then migrated. Raises BadInput when the folder cannot be a workspace: a
    newer schema, MindX memory, the program's own data, a file, a damaged `workspace.json`. Raises UsageProblem
    when it cannot be written.
    """
    root = workspace.root
    _check_folder(root)
    schema = _read_schema(workspace)
    if schema is not None and schema > len(migrations):
        raise BadInput(
            _("This workspace has schema {theirs}; this version supports up to {ours}").format(
                theirs=schema, ours=len(migrations)
            ),
            path=root,
            hint="pipx upgrade h2q-tui",
        )
    if not create or schema == len(migrations):
        if create:
            _writing(root, lambda: _create_folders(workspace))
            sweep_leftovers(workspace)
        return workspace

    def migrate() -> None:
        if not root.is_dir():
            root.mkdir(mode=0o700, parents=True)
        if schema is not None or workspace.memory_db.exists():
            from engine.workspace.backup import create_backup

            create_backup(workspace, reason="migration")
        for migration in migrations[schema or 0 :]:
            migration(workspace)
        write_json(workspace.schema_file, {"schema": len(migrations), "opened_at": round(time.time(), 3)})

    _writing(root, migrate)
    sweep_leftovers(workspace)
    return workspace


def is_mindx(folder: Path) -> bool:
    """Whether `folder` is MindX's workspace or its `data` folder: it has Badger stores or session files."""
    if (folder / "workspace.json").exists():
        return False
    for base in (folder, folder / "data"):
        if any((base / name / "MANIFEST").is_file() for name in ("vectors", "memory")):
            return True
        if next((base / "sessions").glob("session_*.json"), None) is not None:
            return True
    return False


def _check_folder(root: Path) -> None:
    program_data = shipped("data").resolve()
    if root == program_data or program_data in root.parents:
        raise BadInput(
            _("This folder belongs to the program and is read-only; choose another --data-dir"),
            path=root,
            hint="h2q-tui paths",
        )
    if os.path.lexists(root) and not root.exists():
        raise BadInput(
            _("The links of this path lead nowhere"), path=root, hint="h2q-tui --data-dir ~/h2q paths"
        )
    try:
        if root.exists() and not root.is_dir():
            raise BadInput(_("--data-dir is a file, not a folder"), path=root)
        mindx = is_mindx(root)
    except OSError as error:
        raise BadInput(
            _("The workspace cannot be read ({reason})").format(reason=error.strerror), path=root
        ) from None
    if mindx:
        raise BadInput(
            _("This folder contains MindX memory, not a workspace; import it into a workspace"),
            path=root,
            hint=f"h2q-tui memory import {_quoted(root)}",
        )


def _read_schema(workspace: Workspace) -> int | None:
    path = workspace.schema_file
    try:
        value: Any = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BadInput(
            _("The workspace cannot be read ({reason})").format(reason=error.strerror), path=path
        ) from None
    except (ValueError, RecursionError):
        value = None
    schema = value.get("schema") if isinstance(value, dict) else None
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 0:
        raise BadInput(
            _("The workspace's schema number is invalid; delete this file to recreate it"),
            path=path,
            hint=f"rm {_quoted(path)}",
        )
    return schema


def _writing(root: Path, action: Callable[[], None]) -> None:
    try:
        action()
    except OSError as error:
        raise UsageProblem(
            _("The workspace {path} cannot be written ({reason})").format(
                path=root, reason=error.strerror or os.strerror(error.errno or 0)
            )
        ) from None


def _quoted(path: Path) -> str:
    from engine.core.filenames import shell_word

    return shell_word(path)
