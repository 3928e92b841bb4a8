"""The training text of a conversation, token for token with its loss mask, and the dataset in figures."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from typing import ClassVar

import msgspec
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import Static

from engine.core.errors import H2QError
from engine.core.i18n import _
from engine.core.paths import Workspace
from engine.corpus.preview import DEFAULT_CONTEXT, DatasetSummary, Preview, render_preview
from engine.corpus.review.store import ReviewStore
from engine.corpus.review.types import ReviewDetail
from tui.host.cli_call import cli_json
from tui.host.corpus_text import context_length, dataset_figures
from tui.terminal.text import one_line, safe
from tui.widgets.conversation import ConversationView, StyledSpan, TextBlock


def preview_blocks(rendered: Preview) -> list[TextBlock]:
    """One block for each run of text with or without loss; the label says which, so that no colour is needed."""
    blocks: list[TextBlock] = []
    for run in rendered.runs:
        kind = "head" if run.control else "trained" if run.train else "dim"
        text = run.text
        if blocks and (blocks[-1].kind == "success") and not run.train and text.startswith("\n"):
            # The line end after a stop token belongs to what is read, and stands on its line.
            blocks[-1] = blocks[-1]._replace(spans=(*blocks[-1].spans, StyledSpan("⏎", "dim")))
            text = text[1:]
        if not text:
            continue
        span = StyledSpan(text if run.control or run.train else text.replace("\n", "⏎\n"), kind)
        if blocks and (blocks[-1].kind == "success") == run.train:
            blocks[-1] = blocks[-1]._replace(spans=(*blocks[-1].spans, span))
        else:
            if blocks and run.train:
                last = blocks[-1].spans[-1]
                ended = last._replace(text=last.text.removesuffix("\n"))
                blocks[-1] = blocks[-1]._replace(spans=(*blocks[-1].spans[:-1], ended))
            label = _("trained") if run.train else _("context")
            blocks.append(TextBlock(label, (span,), "success" if run.train else "dim"))
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

    class IdsRead(Message):
        """The accepted conversations, or why they cannot be read."""

        def __init__(self, ids: list[str], window: int, problem: str = "") -> None:
            super().__init__()
            self.ids = ids
            self.window = window
            self.problem = problem

    class FiguresCounted(Message):
        """The figures of the dataset, as lines."""

        def __init__(self, lines: Sequence[tuple[str, str]]) -> None:
            super().__init__()
            self.lines = lines

    class Rendered(Message):
        """A conversation as it is trained on, or why it cannot be read."""

        def __init__(self, place: int, rendered: Preview | None, problem: str = "") -> None:
            super().__init__()
            self.place = place
            self.rendered = rendered
            self.problem = problem

    def __init__(self, workspace: Workspace) -> None:
        super().__init__()
        self.workspace = workspace
        self._ids: list[str] = []
        self._place = 0
        self._window = DEFAULT_CONTEXT
        self._box = Vertical()
        self._figures = Static(id="preview-figures")
        self._view = ConversationView(id="preview-text")

    def compose(self) -> ComposeResult:
        with self._box:
            yield self._figures
            yield self._view

    def on_mount(self) -> None:
        self._box.border_title = safe(_("Training text"))
        self._box.border_subtitle = safe(_("← → conversations   esc back"))
        self._figures.update(safe(_("counting …"), "$foreground-muted"))
        self._view.focus()
        self._read_ids()
        self._count()

    @work(group="preview:ids", exclusive=True, exit_on_error=False)
    async def _read_ids(self) -> None:
        def read() -> tuple[list[str], int]:
            with ReviewStore(self.workspace.memory_db, readonly=True) as store:
                ids = store.ids("split:train state:accepted") or store.ids("state:accepted")
            return ids, context_length(self.workspace)

        try:
            message = self.IdsRead(*await asyncio.to_thread(read))
        except (H2QError, sqlite3.Error, OSError) as problem:
            message = self.IdsRead([], DEFAULT_CONTEXT, str(problem))
        self.post_message(message)

    @on(IdsRead)
    def _ids_read(self, message: IdsRead) -> None:
        self._ids, self._window = message.ids, message.window
        if message.ids:
            self._render_conversation()
        else:
            empty = _("Nothing is accepted yet: b on the Corpus tab builds the corpus.")
            self._show_text(message.problem or empty)

    def _show_text(self, text: str) -> None:
        self._view.set_blocks([TextBlock("", (StyledSpan(text, "warning"),))])

    @work(group="preview:figures", exclusive=True, exit_on_error=False)
    async def _count(self) -> None:
        try:
            figures = msgspec.json.decode(
                await cli_json(self.workspace, "corpus", "preview"), type=DatasetSummary
            )
            lines = dataset_figures(figures)
        except (H2QError, OSError, msgspec.DecodeError) as problem:
            lines = [(str(problem), "$text-error")]
        self.post_message(self.FiguresCounted(lines))

    @on(FiguresCounted)
    def _figures_counted(self, message: FiguresCounted) -> None:
        self._figures.update(Content("\n").join(safe(text, style) for text, style in message.lines))

    @work(group="preview:conversation", exclusive=True, exit_on_error=False)
    async def _render_conversation(self) -> None:
        place, id_ = self._place, self._ids[self._place]

        def read() -> ReviewDetail:
            with ReviewStore(self.workspace.memory_db, readonly=True) as store:
                return store.detail(id_)

        try:
            message = self.Rendered(place, render_preview(await asyncio.to_thread(read), self._window))
        except (H2QError, sqlite3.Error) as problem:
            message = self.Rendered(place, None, str(problem))
        self.post_message(message)

    @on(Rendered)
    def _rendered(self, message: Rendered) -> None:
        rendered = message.rendered
        if rendered is None:
            self._show_text(message.problem)
            return
        title = _("{n} of {total}   {tokens} tokens, {learnt} trained on").format(
            n=f"{message.place + 1:,}",
            total=f"{len(self._ids):,}",
            tokens=f"{rendered.tokens:,}",
            learnt=f"{rendered.trained:,}",
        )
        if rendered.windows > 1:
            title += "   " + _("in {n} windows").format(n=rendered.windows)
        if rendered.cut:
            title += "   " + _("{n} cut").format(n=f"{rendered.cut:,}")
        self._box.border_title = safe(one_line(_("Training text") + "   " + title))
        self._view.set_blocks(preview_blocks(rendered))

    def action_step(self, by: int) -> None:
        if self._ids:
            self._place = (self._place + by) % len(self._ids)
            self._render_conversation()

    def action_leave(self) -> None:
        self.dismiss(None)
