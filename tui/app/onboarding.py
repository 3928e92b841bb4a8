"""Dialogs that belong to no tab: settings, the first start, what happened since the last visit, importing files."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.core.config import save_settings
from engine.core.errors import H2QError, error_text
from engine.core.i18n import _, language
from engine.core.settings import Settings
from engine.models.registry import Promotion, in_use, rollback
from engine.runs.events import RunStatus
from engine.runs.last_visit import news_since_last_visit
from engine.runs.rundir import RunDir, summarise
from engine.runs.view import RunSummary
from engine.workspace.sample import write_sample
from tui.host.import_result import import_result_text
from tui.host.shutdown import uninterruptible

if TYPE_CHECKING:
    from engine.core.paths import Workspace
    from tui.app.first_start import FirstChoice
    from tui.host.app_host import AppHost

POLL_S = 0.3
"""Seconds between two checks whether an import has ended."""


def open_settings(host: AppHost, themes: Sequence[str], row: str = "") -> None:
    """The settings sheet, with the cursor on `row`; the sheet saves each change, the app applies it."""
    from tui.screens.settings import SettingsScreen

    names = [name for name in themes if not name.startswith(("textual-", "ansi-", "h2q-"))]
    host.push_screen(
        SettingsScreen(
            host.workspace,
            host.settings,
            host.apply_settings,
            ["dark", "light", "ansi", "ansi-light", *names],
            row=row,
        )
    )


async def offer_first_start(host: AppHost) -> None:
    """Shows the first-start sheet in an empty workspace, else what happened since the last visit."""
    from tui.app.first_start import FirstStart, is_empty

    if host.settings.first_start_done or not await asyncio.to_thread(is_empty, host.workspace):
        await show_whats_new(host)
        return

    def apply(settings: Settings) -> None:
        host.apply_settings(settings)
        try:
            save_settings(host.workspace, host.settings)
        except (H2QError, OSError) as problem:
            host.show_message(error_text(problem), "error")

    choice = await host.push_screen_wait(FirstStart(host.workspace, host.settings, apply, host.glyphs))
    if choice is not None:
        await follow_choice(host, choice)


async def show_whats_new(host: AppHost) -> None:
    """One screen when a scheduled run has ended since the last visit; its key rolls back the promotion."""
    since = await asyncio.to_thread(news_since_last_visit, host.workspace)
    if since is None:
        return
    from tui.app.whats_new import WhatsNewScreen

    promoted = since.view.promoted
    try:
        still = promoted is not None and in_use(host.workspace) == promoted.name
    except H2QError:
        still = False
    if not await host.push_screen_wait(WhatsNewScreen(since, can_undo=still)):
        return
    try:
        done = await asyncio.to_thread(_roll_back, host.workspace, since.backup_stamp)
    except (H2QError, OSError) as problem:
        host.show_message(error_text(problem), "error")
        return
    again = done.backup.rpartition(".")[2]
    text = _("In use now: {name}. Undo: {command}").format(
        name=done.name or _("no model"), command=f"h2q-tui rollback --to {again}"
    )
    host.show_message(text, "success")
    host.refresh_tab()


def _roll_back(workspace: Workspace, stamp: str | None) -> Promotion:
    with uninterruptible():
        return rollback(workspace, stamp)


async def follow_choice(host: AppHost, choice: FirstChoice) -> None:
    """Starts what the user chose on the first-start sheet."""
    if choice.kind == "demo":
        host.open_demo()
    elif choice.kind == "file":
        await import_then_build(host, choice.path)
    else:
        await ask_import(host)


async def ask_import(host: AppHost) -> None:
    """Asks for a path, imports it, and builds the corpus."""
    from tui.app.import_files import ImportScreen

    path = await host.push_screen_wait(ImportScreen(host.workspace))
    if path is not None:
        await import_then_build(host, path)


async def import_then_build(host: AppHost, path: str) -> None:
    """Runs an import, and after it a corpus build. Leaving the app ends neither run; the Corpus tab offers a build
    that was not started then."""
    from tui.host import launch

    host.preparing = True
    try:
        run = await asyncio.to_thread(launch.start_import, host.workspace, [path])
        host.show_message(_("importing: run {run}").format(run=run.run_id))
        await host.board.refresh()
        await host.show_tab("corpus")
        ended = await _ended(run)
        if ended.status is not RunStatus.DONE:
            text = ended.error or _("run {run}: {status}").format(run=run.run_id, status=ended.status)
            host.show_message(text, "error")
            return
        host.show_message(await asyncio.to_thread(import_result_text, run), "success")
        await asyncio.to_thread(launch.start_build, host.workspace)
        await host.board.refresh()
    except (H2QError, OSError) as problem:
        host.show_message(error_text(problem), "error")
    finally:
        host.preparing = False
        host.refresh_tab()


async def import_sample(host: AppHost) -> None:
    """Writes the shipped sample into the workspace, imports the conversations in the person's language, and builds the
    corpus."""
    try:
        report = await asyncio.to_thread(write_sample, host.workspace.root / "sample")
    except (H2QError, OSError) as problem:
        host.show_message(error_text(problem), "error")
        return
    await import_then_build(host, report.conversations(language()))


async def _ended(run: RunDir) -> RunSummary:
    """How a run ended, once it has."""
    while await asyncio.to_thread(run.alive):  # noqa: ASYNC110  another process ends it
        await asyncio.sleep(POLL_S)
    return await asyncio.to_thread(summarise, run)
