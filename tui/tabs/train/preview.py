"""What would be trained on, token for token: the rendered text with its loss mask, and the dataset in figures."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import ClassVar

import msgspec
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from engine.core.errors import H2QError
from engine.core.i18n import _
from engine.core.paths import Workspace
from engine.corpus.preview import DEFAULT_CONTEXT, DatasetSummary, Preview, render_preview
from engine.corpus.review.store import ReviewStore
from engine.corpus.review.types import ReviewDetail
from tui.app.cli_call import cli_json
from tui.app.corpus_text import context_length, dataset_figures
from tui.app.text import one_line, safe
from tui.widgets.conversation import ConversationView, StyledSpan, TextBlock


def blocks_of(shown: Preview) -> list[TextBlock]:
    """One block for each stretch with or without loss; its label says which, so that no colour is needed."""
    blocks: list[TextBlock] = []
    for run in shown.runs:
        kind = "head" if run.control else "trained" if run.train else "dim"
        text = run.text
        if blocks and (blocks[-1].kind == "success") and not run.train and text.startswith("\n"):
            # The line end after a stop token belongs to what is read, and stands on its line.
            blocks[-1] = blocks[-1]._replace(pieces=(*blocks[-1].pieces, StyledSpan("⏎", "dim")))
            text = text[1:]
        if not text:
            continue
        piece = StyledSpan(text if run.control or run.train else text.replace("\n", "⏎\n"), kind)
        if blocks and (blocks[-1].kind == "success") == run.train:
            blocks[-1] = blocks[-1]._replace(pieces=(*blocks[-1].pieces, piece))
        else:
            if blocks and run.train:
                last = blocks[-1].pieces[-1]
                ended = last._replace(text=last.text.removesuffix("\n"))
                blocks[-1] = blocks[-1]._replace(pieces=(*blocks[-1].pieces[:-1], ended))
            label = _("learnt") if run.train else _("read")
            blocks.append(TextBlock(label, (piece,), "success" if run.train else "dim"))
    return blocks


class PreviewScreen(ModalScreen[None]):
    """`←` `→` to the next conversation; the figures come when they are counted."""

    DEFAULT_CSS = """
    PreviewScreen { align: center middle; }
    PreviewScreen > Vertical { width: 100%; height: 100%; border: round $accent; padding: 0 1; background: $surface; }
    PreviewScreen Static { height: auto; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,p", "leave", show=False),
        Binding("right,l,space", "step(1)", show=False),
        Binding("left,h", "step(-1)", show=False),
    ]

    def __init__(self, workspace: Workspace) -> None:
        super().__init__()
        self.workspace = workspace
        self._ids: list[str] = []
        self._place = 0
        self._window = DEFAULT_CONTEXT

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = safe(_("What would be trained on"))
            box.border_subtitle = safe(_("← → conversations   esc back"))
            yield Static(safe(_("counting …"), "$foreground-muted"), id="preview-figures")
            yield ConversationView(id="preview-text")

    def on_mount(self) -> None:
        self.query_one(ConversationView).focus()
        self._begin()
        self._count()

    @work(group="preview:begin", exclusive=True, exit_on_error=False)
    async def _begin(self) -> None:
        def read() -> tuple[list[str], int]:
            with ReviewStore(self.workspace.memory_db, readonly=True) as store:
                found = store.ids("split:train state:accepted") or store.ids("state:accepted")
            return found, context_length(self.workspace)

        try:
            self._ids, self._window = await asyncio.to_thread(read)
        except (H2QError, sqlite3.Error, OSError) as problem:
            self._say(str(problem))
            return
        if self._ids:
            self._show()
        else:
            self._say(_("Nothing is accepted yet: b on the Corpus tab builds the corpus."))

    def _say(self, text: str) -> None:
        self.query_one(ConversationView).set_blocks([TextBlock("", (StyledSpan(text, "warning"),))])

    @work(group="preview:figures", exclusive=True, exit_on_error=False)
    async def _count(self) -> None:
        widget = self.query_one("#preview-figures", Static)
        try:
            figures = msgspec.json.decode(
                await cli_json(self.workspace, "corpus", "preview"), type=DatasetSummary
            )
        except (H2QError, OSError, msgspec.DecodeError) as problem:
            widget.update(safe(str(problem), "$text-error"))
            return
        widget.update(Content("\n").join(safe(text, style) for text, style in dataset_figures(figures)))

    @work(group="preview:show", exclusive=True, exit_on_error=False)
    async def _show(self) -> None:
        id_ = self._ids[self._place]

        def read() -> ReviewDetail:
            with ReviewStore(self.workspace.memory_db, readonly=True) as store:
                return store.detail(id_)

        try:
            shown = render_preview(await asyncio.to_thread(read), self._window)
        except (H2QError, sqlite3.Error) as problem:
            self._say(str(problem))
            return
        title = _("{n} of {total}   {tokens} tokens, {learnt} learnt").format(
            n=f"{self._place + 1:,}",
            total=f"{len(self._ids):,}",
            tokens=f"{shown.tokens:,}",
            learnt=f"{shown.trained:,}",
        )
        if shown.windows > 1:
            title += "   " + _("in {n} windows").format(n=shown.windows)
        if shown.cut:
            title += "   " + _("{n} cut").format(n=f"{shown.cut:,}")
        self.query_one(Vertical).border_title = safe(one_line(_("What would be trained on") + "   " + title))
        self.query_one(ConversationView).set_blocks(blocks_of(shown))

    def action_step(self, by: int) -> None:
        if self._ids:
            self._place = (self._place + by) % len(self._ids)
            self._show()

    def action_leave(self) -> None:
        self.dismiss(None)
