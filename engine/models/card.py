"""The model card: identity, provenance and training data of a model, and the file names of a model directory.

The app reads it, so it imports nothing heavy.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from engine.core.errors import BadInput
from engine.core.i18n import _
from engine.core.json_text import encode_json

CARD_FILE = "h2q.json"
WEIGHTS_FILE = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
GGUF_ADAPTER = "adapter.gguf"
"""The copy of an adapter for llama.cpp and Ollama, in its directory."""


class Lineage(msgspec.Struct, frozen=True, kw_only=True):
    """The training data of a model; a verdict rejects a model whose lineage contains the test set."""

    conversations: list[str] = []
    """Ids of all conversations trained on, those of its ancestors included."""
    clusters: list[str] = []
    """Near-duplicate clusters of those conversations."""
    texts: dict[str, str] = {}
    """Plain-text files of scratch training, path to sha256."""
    dataset: str = ""
    dataset_sha256: str = ""
    settings_sha256: str = ""
    decisions: int = 0
    """The user's decisions (accept, reject, edits, flags, rules) in force when the dataset was built."""
    decisions_sha256: str = ""
    """Hash of those decisions in order."""
    newest_conversation: float | None = None
    """Seconds since the epoch."""


class ModelCard(msgspec.Struct, frozen=True, kw_only=True):
    """`h2q.json` in the folder of a model."""

    name: str
    mode: str
    """"scratch", "native", "lora" or "message"."""
    base: str = ""
    """Name of the model that it continues; "" for scratch."""
    first: str = ""
    """Name of the first model of its line; "" for that model itself, and in older cards."""
    base_path: str = ""
    """Base model of an adapter: a directory, a GGUF file or `ollama:TAG`; "" for a complete model."""
    base_sha256: str = ""
    """Fingerprint of the base model (`engine.models.base_models`)."""
    base_format: str = ""
    """Format that the base was loaded in: "float32", "bfloat16" or "4bit"."""
    served: str = ""
    """Tag in the workspace's own store that is this model: its weights and texts are there. "" for a model with weights
    in its folder."""
    run_id: str = ""
    created_at: float
    parameters: int
    context: int
    """Context length: bytes (a 汉字 is three) for a native model, tokens for others."""
    languages: list[str] = []
    train_bytes: int = 0
    loss: float | None = None
    weights_sha256: str = ""
    """Of the file of weights; of a served model, of its manifest."""
    lineage: Lineage = Lineage()


def read_card(folder: Path) -> ModelCard:
    """Raises FileNotFoundError, or msgspec.DecodeError when the card is broken."""
    return msgspec.json.decode((folder / CARD_FILE).read_bytes(), type=ModelCard)


def encode_card(card: ModelCard) -> bytes:
    return msgspec.json.format(encode_json(card), indent=2) + b"\n"


def weights_changed(file: Path) -> BadInput:
    """The error for weights whose hash is not the one in the card.

    Its hint deletes nothing: a card may bear the name of another model, as that of a merged export does.
    """
    return BadInput(
        _("the weights have changed since they were written (their hash differs)"),
        path=file,
        hint="h2q-tui models list",
    )


def load_card(folder: Path) -> ModelCard:
    """The card in `folder`. Raises BadInput."""
    try:
        return read_card(folder)
    except FileNotFoundError as problem:
        raise BadInput(_("there is no model here"), path=folder, hint="h2q-tui models list") from problem
    except msgspec.DecodeError as problem:
        raise BadInput(
            _("the model card is broken"), path=folder / CARD_FILE, hint="h2q-tui models list"
        ) from problem
