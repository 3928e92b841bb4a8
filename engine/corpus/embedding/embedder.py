"""The embedder that the setting `embedder` names. Light: models load when opened."""

from __future__ import annotations

from pathlib import Path

from engine.core.errors import BadInput
from engine.core.i18n import _
from engine.corpus.embedding.backends import Embedder, OllamaEmbedder, SentenceTransformerEmbedder
from engine.models.ollama.client import MODEL_PREFIX

OFF = "off"


def open_embedder(setting: str, root: Path) -> Embedder | None:
    """The embedder, loaded; None when the setting names none. `root` is the workspace.

    Raises BadInput, ServiceUnreachable or UsageProblem when it cannot be loaded.
    """
    if setting in ("", OFF):
        return None
    if setting.startswith(MODEL_PREFIX):
        return OllamaEmbedder(setting.removeprefix(MODEL_PREFIX))
    return SentenceTransformerEmbedder(_model_folder(setting, root))


def describe_embedder(setting: str, root: Path) -> str:
    """The embedder in one line, without loading it. Raises BadInput for a folder without a model."""
    if setting == OFF:
        return _("off: conversations are not grouped by subject")
    if not setting:
        return _("none: character n-grams group similar conversations; no semantic duplicates are dropped")
    if setting.startswith(MODEL_PREFIX):
        return _("{tag} in Ollama").format(tag=setting.removeprefix(MODEL_PREFIX))
    from engine.corpus.embedding.backends import check_model_folder

    folder = _model_folder(setting, root)
    if not folder.is_dir():
        raise BadInput(_("There is no embedder"), path=folder)
    check_model_folder(folder)
    return str(folder)


def _model_folder(setting: str, root: Path) -> Path:
    """The folder of a sentence-transformers model; relative paths are relative to the workspace `root`."""
    path = Path(setting).expanduser()
    return path if path.is_absolute() else root / path
