"""The screen after a scheduled run: imports, training, verdict, and the key that rolls the promotion back."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from engine.core.i18n import _, n_
from engine.core.local_time import local_time
from engine.runs.event_text import describe, format_figure, stage_name, status_name
from engine.runs.last_visit import LastVisitNews
from tui.terminal.text import safe


class WhatsNewScreen(ModalScreen[bool]):
    """Returns whether to roll back the promotion."""

    DEFAULT_CSS = """
    WhatsNewScreen { align: center middle; background: transparent; }
    WhatsNewScreen > Vertical {
        width: 98%; max-width: 92; height: auto; max-height: 100%; border: round $accent; background: $background;
        padding: 1 2;
    }
    WhatsNewScreen Static { height: auto; margin-bottom: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,enter", "leave", show=False),
        Binding("B", "roll_back", show=False),
    ]

    def __init__(self, since: LastVisitNews, *, can_undo: bool) -> None:
        """`can_undo`: the model that the run promoted is still the one in use."""
        super().__init__()
        self._since = since
        self._can_undo = can_undo

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = safe(_("Since your last visit"))
            for line in news_paragraphs(self._since):
                yield Static(line, markup=False)
            box.border_subtitle = safe(_("B roll back  esc close") if self._can_undo else _("esc close"))

    def action_roll_back(self) -> None:
        if self._can_undo:
            self.dismiss(True)

    def action_leave(self) -> None:
        self.dismiss(False)


def news_paragraphs(since: LastVisitNews) -> list[Content]:
    """The paragraphs of the screen."""
    view = since.view
    when = local_time("%Y-%m-%d %H:%M", since.ended_at)
    paragraphs = [
        _("Scheduled run {run} ended {when}: {status}").format(
            run=since.run_id, when=when, status=status_name(view.status)
        )
    ]
    if since.new_conversations is not None:
        paragraphs.append(
            n_(
                "{n} conversation was imported", "{n} conversations were imported", since.new_conversations
            ).format(n=since.new_conversations)
        )
    words = describe(view.funnel) if view.funnel is not None else None
    paragraphs += [words[1]] if words else []
    for phase in view.phases:
        points = view.series(phase, "loss").points()
        if points:
            paragraphs.append(
                _("Trained: {phase}, {steps} steps, loss {first} → {last}").format(
                    phase=stage_name(phase),
                    steps=f"{int(points[-1][0]):,}",
                    first=format_figure(points[0][1]),
                    last=format_figure(points[-1][1]),
                )
            )
    if view.verdict is not None:
        paragraphs.append(_("Verdict: {sentence}").format(sentence=view.verdict.sentence))
    if view.promoted is not None:
        words = describe(view.promoted)
        paragraphs += [words[1]] if words else []
    if view.finished is not None and view.finished.error:
        paragraphs.append(view.finished.error)
    if since.other_runs:
        paragraphs.append(
            n_(
                "{n} more scheduled run ended, see h2q-tui runs list",
                "{n} more scheduled runs ended, see h2q-tui runs list",
                since.other_runs,
            ).format(n=since.other_runs)
        )
    return [safe(text) for text in paragraphs]
