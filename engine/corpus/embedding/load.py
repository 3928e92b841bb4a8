"""Which embedder the setting `embedder` names, and what `check` says of it. Light: a model loads when opened."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from engine.core.errors import BadInput
from engine.core.i18n import _

if TYPE_CHECKING:
    from engine.corpus.embedding.protocol import Embedder

OLLAMA = "ollama:"
OFF = "off"


def folder_of(setting: str, root: Path) -> Path:
    """The folder of a sentence-transformers model; a relative one lies in the workspace `root`."""
    path = Path(setting).expanduser()
    return path if path.is_absolute() else root / path


def open_embedder(setting: str, root: Path) -> Embedder | None:
    """The embedder, loaded; None when the setting names none.

    Raises BadInput, ServiceUnreachable or UsageProblem when it cannot be had.
    """
    if setting in ("", OFF):
        return None
    if setting.startswith(OLLAMA):
        from engine.corpus.embedding.ollama_model import OllamaModel

        return OllamaModel(setting.removeprefix(OLLAMA))
    from engine.corpus.embedding.sentence_model import SentenceModel

    return SentenceModel(folder_of(setting, root))


def described(setting: str, root: Path) -> str:
    """The embedder in one line, without loading it. Raises BadInput for a folder that holds none."""
    if setting == OFF:
        return _("off: conversations are not grouped by what they are about")
    if not setting:
        return _("none: character n-grams group what is alike, and nothing is left out by meaning")
    if setting.startswith(OLLAMA):
        return _("{tag} in Ollama").format(tag=setting.removeprefix(OLLAMA))
    from engine.corpus.embedding.sentence_model import examine

    folder = folder_of(setting, root)
    if not folder.is_dir():
        raise BadInput(_("There is no embedder"), path=folder)
    examine(folder)
    return str(folder)
