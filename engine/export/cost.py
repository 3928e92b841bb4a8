"""The cost of an export: NLL per byte of the written weights and of the weights that they were made from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from engine.core.errors import BadInput
from engine.corpus.dataset import DatasetRow
from engine.export.source import ExportSource
from engine.inference.language_model import LanguageModel
from engine.models.chat_template import ChatTemplate
from engine.models.chatml import ByteChatTemplate, MaskedTokens
from engine.models.hf import context_of, load_chat_template
from engine.validation.cases import GENERAL_BLOCK, cut_general
from engine.validation.validate import shipped_texts

CONTEXT = 512
"""Maximum tokens of a window: long enough for an answer, short enough for a small machine."""
TOKENS_NATIVE = 120_000
"""Most tokens of a set of texts: a small model reads them in seconds."""
TOKENS_LEAST = 1_000
"""Fewest: the difference is between two models on the same tokens, so that a few show it."""
WORK = 4e11
"""Parameters times tokens of a set between these limits. Two sets are read by two models: half a minute for 135 million
parameters on two cores, a minute for 0.6 billion."""

Progress = Callable[[int, int], None]
"""Called with (done, total); may raise to stop."""


class ExportTokenizer:
    """Encodes texts and conversations for an exported model: its bytes, or its tokenizer and chat template."""

    def __init__(self, source: ExportSource) -> None:
        """Raises BadInput for a tokenizer that cannot be loaded."""
        self.is_native = source.is_native
        self.context = min(CONTEXT, context_of(source.config))
        self.chat: ChatTemplate | ByteChatTemplate = ByteChatTemplate()
        if not source.is_native:
            base = source.base if source.base.is_gguf else replace(source.base, path=source.tokenizer_folder)
            self.chat = load_chat_template(base)

    def encode(self, data: bytes) -> MaskedTokens:
        """A plain text as one sequence; the first token is not scored."""
        if self.is_native:
            return MaskedTokens(ids=list(data), loss_mask=[True] * len(data), scored_bytes=len(data) - 1)
        text = data.decode("utf-8", "ignore")
        ids = [*self.chat.opening, *self.chat.encode(text)]
        return MaskedTokens(
            ids=ids,
            loss_mask=[True] * len(ids),
            scored_bytes=max(1, len(text.encode()) - len(self.chat.decode(ids[:1]).encode())),
        )


def general_sequences(tokenizer: ExportTokenizer, limit: int) -> list[MaskedTokens]:
    """The shipped general texts in Chinese and English, evenly subsampled to about `limit` tokens."""
    size = tokenizer.context if tokenizer.is_native else GENERAL_BLOCK
    blocks = cut_general(shipped_texts(), size)
    sequences = [tokenizer.encode(chunk) for block in blocks for chunk in _chunks(block.text, size)]
    return _subsample([one for one in sequences if 1 < len(one.ids) <= GENERAL_BLOCK], limit)


def held_out_sequences(
    tokenizer: ExportTokenizer, held_out: Sequence[DatasetRow], limit: int
) -> list[MaskedTokens]:
    """The assistant turns of held-out conversations, subsampled likewise; rejected conversations are skipped."""
    sequences: list[MaskedTokens] = []
    for item in held_out:
        with suppress(BadInput):
            windows = tokenizer.chat.windows(item.messages, tokenizer.context)
            sequences += [window for window in windows if window.trained_bytes]
    return _subsample(sequences, limit)


def token_limit(parameters: int) -> int:
    """Number of tokens to measure a model of this size on: about the same work for every size."""
    return min(TOKENS_NATIVE, max(TOKENS_LEAST, round(WORK / max(1, parameters))))


def nll_per_byte(
    model: LanguageModel, sequences: Sequence[MaskedTokens], step: Progress | None = None
) -> float:
    """Nats per byte over the scored tokens of all sequences; NaN where the model gives no finite value."""
    done = 0

    def advance(_tokens: int) -> None:
        nonlocal done
        done += 1
        if step is not None:
            step(done, len(sequences))

    losses = model.nll(sequences, on_tokens=advance)
    size = sum(loss.bytes for loss in losses)
    return sum(loss.nats for loss in losses) / size if size else math.nan


def _chunks(text: bytes, size: int) -> list[bytes]:
    return [text[at : at + size] for at in range(0, len(text), size)]


def _subsample(sequences: list[MaskedTokens], limit: int) -> list[MaskedTokens]:
    """Every n-th sequence, so that about `limit` tokens remain; always the same ones."""
    total = sum(len(sequence.ids) for sequence in sequences)
    if total <= limit:
        return sequences
    count = max(1, len(sequences) * limit // total)
    return [sequences[number * len(sequences) // count] for number in range(count)]
