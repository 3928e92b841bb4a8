"""A damaged memory is mended from the Corpus tab: the newest backup takes its place, after a question."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING

from engine.core.errors import H2QError, error_text
from engine.core.i18n import _, n_
from engine.core.paths import Workspace
from engine.workspace.backup import Backup, list_backups, restore_backup
from engine.workspace.reset import require_no_run
from tui.app.shutdown import uninterruptible
from tui.screens.ask import Confirm

if TYPE_CHECKING:
    from tui.tabs.corpus.tab import CorpusTab


async def offer_backup(tab: CorpusTab) -> None:
    """Asks, naming the backup, and puts it back. A worker calls it."""
    try:
        newest = next(iter(await asyncio.to_thread(list_backups, tab.workspace)), None)
        if newest is None:
            tab.show_message(_("There is no backup of this memory"), "error")
            return
        if not await tab.app.push_screen_wait(Confirm(_question(newest))):
            return
        tab.show_message(_("putting the backup back …"))
        await asyncio.to_thread(_put_back, tab.workspace, newest.path)
    except (H2QError, OSError) as problem:
        tab.show_message(error_text(problem), "error")
        return
    tab.load()
    tab.show_message(
        n_(
            "the backup is back: {n} conversation",
            "the backup is back: {n} conversations",
            newest.conversations,
        ).format(n=f"{newest.conversations:,}"),
        "success",
    )


def _question(backup: Backup) -> str:
    return n_(
        "Put the backup of {when} with {n} conversation in place of this memory?",
        "Put the backup of {when} with {n} conversations in place of this memory?",
        backup.conversations,
    ).format(
        when=time.strftime("%Y-%m-%d %H:%M", time.localtime(backup.created_at)), n=f"{backup.conversations:,}"
    )


def _put_back(workspace: Workspace, path: str) -> None:
    with uninterruptible():
        require_no_run(workspace)
        restore_backup(workspace, Path(path))
