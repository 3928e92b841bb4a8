"""What an export costs: NLL per byte of the very weights that were written, beside those they were made from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from engine.corpus.dataset import DatasetRow
from engine.export.source import ExportSource
from engine.models import chatml
from engine.models.gguf.file import CHUNK
from engine.models.gguf.model import empty_model
from engine.models.losses import chunked_cross_entropy
from engine.models.weights import Weights
from engine.validation.cases import GENERAL_BLOCK, cut_general
from engine.validation.validate import shipped_texts

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from engine.core.chat import ChatMessage
    from engine.models.chat_template import ChatTemplate
    from engine.models.chatml import MaskedTokens

CONTEXT = 512
"""Tokens of a piece at most: long enough for an answer, short enough for a small machine."""
TOKENS_NATIVE = 120_000
TOKENS_LARGE = 6_000
"""Tokens that a model of more than `LARGE` parameters reads at most: about two minutes for 0.6 billion."""
LARGE = 50_000_000

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ScoredSequence:
    """A sequence, which of its tokens are scored, and how many bytes those stand for."""

    ids: Sequence[int]
    scored: Sequence[bool]
    bytes: int


class ExportTokenizer:
    """How text becomes ids for a model: bytes for the native one, its tokenizer and chat template for others."""

    def __init__(self, source: ExportSource) -> None:
        """Raises BadInput for a tokenizer that cannot be loaded."""
        self.chat: ChatTemplate | None = None
        config = source.config
        self.context = min(
            CONTEXT, getattr(config, "trained_context", None) or config.max_position_embeddings
        )
        if not source.is_native:
            from engine.models.hf import load_chat_template

            base = source.base if source.base.is_gguf else replace(source.base, path=source.tokenizer_folder)
            self.chat = load_chat_template(base)

    def prompt(self, messages: Sequence[ChatMessage]) -> list[int]:
        """Ids up to where the answer begins. Raises BadInput for a conversation that the template refuses."""
        if self.chat is None:
            return chatml.render(messages, add_generation_prompt=True).ids
        return self.chat.prompt(messages)

    def windows(self, messages: Sequence[ChatMessage]) -> list[MaskedTokens]:
        """Raises BadInput for a conversation that the template refuses."""
        if self.chat is None:
            return chatml.windows(messages, self.context)
        return self.chat.windows(messages, self.context)

    def text(self, data: bytes) -> ScoredSequence:
        """Plain text, its first token given and not scored."""
        if self.chat is None:
            return ScoredSequence(list(data), [True] * len(data), len(data) - 1)
        words = data.decode("utf-8", "ignore")
        ids = self.chat.encode(words)
        return ScoredSequence(
            ids, [True] * len(ids), max(1, len(words.encode()) - len(self.chat.decode(ids[:1]).encode()))
        )


def general_pieces(speaker: ExportTokenizer, limit: int) -> list[ScoredSequence]:
    """The shipped general text in Chinese and English, evenly thinned out to about `limit` tokens."""
    size = speaker.context if speaker.chat is None else GENERAL_BLOCK
    blocks = cut_general(shipped_texts(), size)
    pieces = [speaker.text(chunk) for block in blocks for chunk in _chunks(block.text, size)]
    return _thinned([piece for piece in pieces if 1 < len(piece.ids) <= GENERAL_BLOCK], limit)


def held_out_pieces(speaker: ExportTokenizer, held: Sequence[DatasetRow], limit: int) -> list[ScoredSequence]:
    """The assistant's turns of held-out conversations, thinned out likewise."""
    from engine.core.errors import BadInput

    pieces = []
    for item in held:
        try:
            windows = speaker.windows(item.messages)
        except BadInput:
            continue
        pieces += [
            ScoredSequence(window.ids, window.loss_mask, window.trained_bytes)
            for window in windows
            if window.trained_bytes
        ]
    return _thinned(pieces, limit)


def token_limit(parameters: int) -> int:
    """Tokens that a model of this size is measured on."""
    return TOKENS_NATIVE if parameters <= LARGE else TOKENS_LARGE


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


@torch.inference_mode()
def nll_per_byte(model: Any, pieces: Sequence[ScoredSequence], step: Progress | None = None) -> float:
    """Nats per byte over the scored tokens of all pieces; NaN where the model gives none."""
    total, bytes_ = 0.0, 0
    decoder, head = model.get_decoder(), model.get_output_embeddings()
    for number, piece in enumerate(pieces):
        ids = torch.tensor([list(piece.ids)])
        wanted = torch.tensor(list(piece.scored))[1:]
        hidden = decoder(input_ids=ids[:, :-1], use_cache=False).last_hidden_state[0]
        losses = chunked_cross_entropy(hidden[wanted], head.weight, head.bias, ids[0, 1:][wanted])
        total += float(losses.sum(dtype=torch.float64))
        bytes_ += piece.bytes
        if step is not None:
            step(number + 1, len(pieces))
    return total / bytes_ if bytes_ and math.isfinite(total) else math.nan


def _chunks(text: bytes, size: int) -> list[bytes]:
    return [text[at : at + size] for at in range(0, len(text), size)]


def _thinned(pieces: list[ScoredSequence], limit: int) -> list[ScoredSequence]:
    """Every n-th piece, so that about `limit` tokens stay: always the same ones."""
    total = sum(len(piece.ids) for piece in pieces)
    if total <= limit:
        return pieces
    count = max(1, len(pieces) * limit // total)
    return [pieces[number * len(pieces) // count] for number in range(count)]
