"""What an export costs: NLL per byte of the very weights that were written, beside those they were made from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from engine.core.errors import BadInput
from engine.corpus.dataset import DatasetRow
from engine.export.source import ExportSource
from engine.inference.backends.hf import HFModel
from engine.inference.language_model import LanguageModel
from engine.models.chat_template import ChatTemplate
from engine.models.chatml import ByteChatTemplate, MaskedTokens
from engine.models.gguf.file import CHUNK
from engine.models.gguf.model import empty_model
from engine.models.hf import load_chat_template
from engine.models.weights import Weights
from engine.validation.cases import GENERAL_BLOCK, cut_general
from engine.validation.validate import shipped_texts

if TYPE_CHECKING:
    from transformers import PretrainedConfig

CONTEXT = 512
"""Tokens of a piece at most: long enough for an answer, short enough for a small machine."""
TOKENS_NATIVE = 120_000
TOKENS_LARGE = 6_000
"""Tokens that a model of more than `LARGE` parameters reads at most: about two minutes for 0.6 billion."""
LARGE = 50_000_000

Progress = Callable[[int, int], None]


class ExportTokenizer:
    """How text becomes ids for a model: bytes for the native one, its tokenizer and chat template for others."""

    def __init__(self, source: ExportSource) -> None:
        """Raises BadInput for a tokenizer that cannot be loaded."""
        self.is_native = source.is_native
        config = source.config
        self.context = min(
            CONTEXT, getattr(config, "trained_context", None) or config.max_position_embeddings
        )
        self.chat: ChatTemplate | ByteChatTemplate = ByteChatTemplate()
        if not source.is_native:
            base = source.base if source.base.is_gguf else replace(source.base, path=source.tokenizer_folder)
            self.chat = load_chat_template(base)

    def text(self, data: bytes) -> MaskedTokens:
        """Plain text, of which the first token is not scored."""
        if self.is_native:
            return MaskedTokens(ids=list(data), loss_mask=[True] * len(data), scored_bytes=len(data) - 1)
        text = data.decode("utf-8", "ignore")
        ids = self.chat.encode(text)
        return MaskedTokens(
            ids=ids,
            loss_mask=[True] * len(ids),
            scored_bytes=max(1, len(text.encode()) - len(self.chat.decode(ids[:1]).encode())),
        )


def general_pieces(speaker: ExportTokenizer, limit: int) -> list[MaskedTokens]:
    """The shipped general text in Chinese and English, evenly thinned out to about `limit` tokens."""
    size = speaker.context if speaker.is_native else GENERAL_BLOCK
    blocks = cut_general(shipped_texts(), size)
    pieces = [speaker.text(chunk) for block in blocks for chunk in _chunks(block.text, size)]
    return _thinned([piece for piece in pieces if 1 < len(piece.ids) <= GENERAL_BLOCK], limit)


def held_out_pieces(speaker: ExportTokenizer, held: Sequence[DatasetRow], limit: int) -> list[MaskedTokens]:
    """The assistant's turns of held-out conversations, thinned out likewise."""
    pieces = []
    for item in held:
        with suppress(BadInput):
            windows = speaker.chat.windows(item.messages, speaker.context)
            pieces += [window for window in windows if window.trained_bytes]
    return _thinned(pieces, limit)


def token_limit(parameters: int) -> int:
    """Tokens that a model of this size is measured on."""
    return TOKENS_NATIVE if parameters <= LARGE else TOKENS_LARGE


def as_language_model(model: Any, speaker: ExportTokenizer) -> LanguageModel:
    """A model of transformers with the tokenizer of the export's source."""
    return HFModel(model, speaker.chat, speaker.context)


def load_weights(config: PretrainedConfig, weights: Weights, dtype: torch.dtype) -> Any:
    """A model of transformers in evaluation mode, filled row by row."""
    model = empty_model(config, dtype)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, shape in weights.shapes.items():
            if name not in parameters:
                continue
            rows = max(1, CHUNK // shape[1]) if len(shape) > 1 else shape[0]
            for start in range(0, shape[0], rows):
                stop = min(start + rows, shape[0])
                parameters[name].data[start:stop] = weights.rows(name, start, stop).to(dtype)
    return model


def nll_per_byte(model: LanguageModel, pieces: Sequence[MaskedTokens], step: Progress | None = None) -> float:
    """Nats per byte over the scored tokens of all pieces; NaN where the model gives no finite value."""
    done = 0

    def advance(_tokens: int) -> None:
        nonlocal done
        done += 1
        if step is not None:
            step(done, len(pieces))

    losses = model.nll(pieces, on_tokens=advance)
    size = sum(loss.bytes for loss in losses)
    return sum(loss.nats for loss in losses) / size if size else math.nan


def _chunks(text: bytes, size: int) -> list[bytes]:
    return [text[at : at + size] for at in range(0, len(text), size)]


def _thinned(pieces: list[MaskedTokens], limit: int) -> list[MaskedTokens]:
    """Every n-th piece, so that about `limit` tokens stay: always the same ones."""
    total = sum(len(piece.ids) for piece in pieces)
    if total <= limit:
        return pieces
    count = max(1, len(pieces) * limit // total)
    return [pieces[number * len(pieces) // count] for number in range(count)]
