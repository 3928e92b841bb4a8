"""Repairs a damaged memory: the newest backup takes its place, after a question."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from engine.core.errors import H2QError, error_text
from engine.core.i18n import _, n_
from engine.core.local_time import local_time
from engine.core.paths import Workspace
from engine.workspace.backup import Backup, newest_backup, restore_backup
from engine.workspace.reset import require_no_run
from tui.host.shutdown import uninterruptible
from tui.screens.ask import Confirm

if TYPE_CHECKING:
    from tui.host.app_host import AppHost


async def offer_backup(host: AppHost) -> Backup | None:
    """Asks, naming the backup, and restores it; None when that was not done. Call it in a worker."""
    try:
        newest = await asyncio.to_thread(newest_backup, host.workspace)
        if newest is None:
            host.show_message(_("There is no backup of this memory"), "error")
            return None
        if not await host.push_screen_wait(Confirm(_question(newest))):
            return None
        host.show_message(_("restoring the backup …"))
        await asyncio.to_thread(_restore, host.workspace, newest.path)
    except (H2QError, OSError) as problem:
        host.show_message(error_text(problem), "error")
        return None
    return newest


def restored_text(backup: Backup) -> str:
    """What was restored."""
    return n_(
        "backup restored: {n} conversation",
        "backup restored: {n} conversations",
        backup.conversations,
    ).format(n=f"{backup.conversations:,}")


def _question(backup: Backup) -> str:
    return n_(
        "Replace this memory with the backup of {when} ({n} conversation)?",
        "Replace this memory with the backup of {when} ({n} conversations)?",
        backup.conversations,
    ).format(when=local_time("%Y-%m-%d %H:%M", backup.created_at), n=f"{backup.conversations:,}")


def _restore(workspace: Workspace, path: str) -> None:
    with uninterruptible():
        require_no_run(workspace)
        restore_backup(workspace, Path(path))
