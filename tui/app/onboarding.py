"""What the person sets and starts from any tab: settings in force, the first start, files to import."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from engine.core.config import Settings, save_settings
from engine.core.errors import H2QError, error_text
from engine.core.i18n import _, set_language, system_language
from engine.models.registry import Promotion, in_use, rollback
from engine.runs.events import RunStatus
from engine.runs.last_visit import news_since_last_visit
from engine.runs.rundir import RunDir, summarise
from engine.runs.view import RunSummary
from tui.app.actions import KeyMap
from tui.app.shutdown import uninterruptible
from tui.app.terminal import theme_name
from tui.widgets.footer import Footer
from tui.widgets.header import Header

if TYPE_CHECKING:
    from engine.core.paths import Workspace
    from tui.app.app import H2QApp
    from tui.screens.first_start import FirstChoice

POLL_S = 0.3
"""Between two looks whether an import has ended."""


def apply_settings(app: H2QApp, settings: Settings) -> None:
    """Puts settings in force in the running app. Tabs are made anew when their words or signs change."""
    before, app.settings = app.settings, settings
    main = app.screen_stack[0]
    app.keys = main.query_one(Footer).keys = KeyMap(settings.keys)
    theme = theme_name(settings.theme, app.terminal.colours)
    if theme in app.available_themes:
        app.theme = theme
    words = ("language", "signs", "ambiguous_width", "max_memory_gb")
    if any(getattr(before, name) != getattr(settings, name) for name in words):
        set_language(system_language() if settings.language == "auto" else settings.language)
        app.glyphs = app.glyphs_for(settings)
        main.query_one(Header).glyphs = app.glyphs
        app.run_worker(app.rebuild_tabs(), group="settings:tabs", exclusive=True, exit_on_error=False)
    app.refresh_footer()


def open_settings(app: H2QApp) -> None:
    """The settings sheet; each change is saved by the sheet and applied here."""
    from tui.screens.settings import SettingsScreen

    names = [name for name in app.available_themes if not name.startswith(("textual-", "ansi-", "h2q-"))]
    app.push_screen(
        SettingsScreen(
            app.workspace,
            app.settings,
            lambda new: apply_settings(app, new),
            ["dark", "light", "ansi", "ansi-light", *names],
        )
    )


async def offer_first_start(app: H2QApp) -> None:
    """Shows the first-start sheet where nothing has been done yet."""
    from tui.screens.first_start import FirstStart, is_empty

    if app.settings.first_start_done or not await asyncio.to_thread(is_empty, app.workspace):
        await tell_since(app)
        return

    def apply(settings: Settings) -> None:
        apply_settings(app, settings)
        _save(app)

    begin = await app.push_screen_wait(FirstStart(app.settings, apply))
    if begin is not None:
        await start(app, begin)


async def tell_since(app: H2QApp) -> None:
    """One screen when a scheduled run has ended since the app was last opened; its key takes a promotion back."""
    since = await asyncio.to_thread(news_since_last_visit, app.workspace)
    if since is None:
        return
    from tui.screens.whats_new import WhatsNewScreen

    promoted = since.view.promoted
    try:
        still = promoted is not None and in_use(app.workspace) == promoted.name
    except H2QError:
        still = False
    if not await app.push_screen_wait(WhatsNewScreen(since, can_undo=still)):
        return
    try:
        done = await asyncio.to_thread(_rolled_back, app.workspace, since.undo)
    except (H2QError, OSError) as problem:
        app.show_message(error_text(problem), "error")
        return
    again = done.backup.rpartition(".")[2]
    told = _("In use now: {name}. Undo: {command}").format(
        name=done.name or _("no model"), command=f"h2q-tui rollback --to {again}"
    )
    app.show_message(told, "success")
    if app.tab is not None:
        app.tab.activate()


def _rolled_back(workspace: Workspace, stamp: str | None) -> Promotion:
    with uninterruptible():
        return rollback(workspace, stamp)


async def start(app: H2QApp, begin: FirstChoice) -> None:
    """Begins with what the person chose on the first-start sheet."""
    if begin.what == "demo":
        await try_sample(app)
    elif begin.what == "file":
        await import_then_build(app, begin.path)
    else:
        await ask_import(app)


async def try_sample(app: H2QApp) -> None:
    """Leaves for the demo: the app opens again on the demo's own workspace, where the whole loop runs."""
    app.demo_requested = True
    app.exit()


async def ask_import(app: H2QApp) -> None:
    """Asks for a path, imports it, and builds the corpus."""
    from tui.screens.import_files import ImportScreen

    path = await app.push_screen_wait(ImportScreen())
    if path is not None:
        await import_then_build(app, path)


async def import_then_build(app: H2QApp, path: str) -> None:
    """Runs an import, and when it is done a corpus build. Leaving the app ends neither run; a build that was
    not started then is offered by the Corpus tab."""
    from tui.screens.import_files import start_build, start_import

    try:
        run = await asyncio.to_thread(start_import, app.workspace, [path])
        app.show_message(_("importing: run {run}").format(run=run.run_id))
        await app.board.refresh()
        await app.show_tab("corpus")
        ended = await _ended(run)
        if ended.status is not RunStatus.DONE:
            app.show_message(
                ended.error or _("run {run}: {status}").format(run=run.run_id, status=ended.status), "error"
            )
            return
        await asyncio.to_thread(start_build, app.workspace)
        await app.board.refresh()
    except (H2QError, OSError) as problem:
        app.show_message(error_text(problem), "error")


async def _ended(run: RunDir) -> RunSummary:
    """How a run ended, once it has."""
    while await asyncio.to_thread(run.alive):  # noqa: ASYNC110  another process ends it
        await asyncio.sleep(POLL_S)
    return await asyncio.to_thread(summarise, run)


def _save(app: H2QApp) -> None:
    try:
        save_settings(app.workspace, app.settings)
    except (H2QError, OSError) as problem:
        app.show_message(error_text(problem), "error")
