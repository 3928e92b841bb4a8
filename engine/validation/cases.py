"""The evaluation cases: held-out conversations and blocks of general text, and their NLL under a model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from engine.core.chat import ChatMessage
from engine.core.errors import BadInput
from engine.corpus.dataset import DatasetRow
from engine.inference.language_model import LanguageModel, OnTokens
from engine.models.chatml import MaskedTokens
from engine.validation.general import ModelOnBlocks

GENERAL_BLOCK = 1024
"""Bytes of a block of general text, which is one observation."""
GENERAL_BLOCKS = 64
"""Upper limit of blocks per general text; they are spread evenly and always the same."""


@dataclass(frozen=True)
class EvaluationCase:
    """One held-out conversation in windows."""

    conversation: str
    cluster: str
    windows: list[MaskedTokens] = field(repr=False)
    bytes: int
    """Scored bytes, each stop token counted as one."""
    cut: int
    """Bytes of its answers that lie beyond a window's end and are not scored."""
    prompt: list[ChatMessage] = field(default_factory=list, repr=False)
    """The turns before the first scored answer; both models answer it for the side-by-side view."""
    reference: str = ""
    """The original answer to `prompt`."""

    @property
    def question(self) -> str:
        """The last turn of `prompt`; "" where the conversation starts with the assistant."""
        return self.prompt[-1].content if self.prompt else ""


@dataclass(frozen=True)
class GeneralBlock:
    """About 1 KB of one general text."""

    name: str
    text: bytes = field(repr=False)


WindowsOf = Callable[[Sequence[ChatMessage], int], list[MaskedTokens]]
"""`LanguageModel.windows`."""


def cut_cases(held_out: Sequence[DatasetRow], context: int, windows_of: WindowsOf) -> list[EvaluationCase]:
    """Windows of at most `context` tokens of each conversation.

    Conversations without a scored answer, or that the model's chat template rejects, give no case.
    """
    cases = []
    for item in held_out:
        try:
            windows = windows_of(item.messages, context)
        except BadInput:
            continue
        scored = sum(window.trained_bytes for window in windows)
        if scored == 0:
            continue
        first = next(i for i, m in enumerate(item.messages) if m.role == "assistant" and m.train)
        cases.append(
            EvaluationCase(
                conversation=item.id,
                cluster=item.cluster,
                windows=windows,
                bytes=scored,
                cut=sum(window.truncated_bytes for window in windows),
                prompt=list(item.messages[:first]),
                reference=item.messages[first].content,
            )
        )
    return cases


class TextSource(Protocol):
    """Random access to a text: `bytes`, or part of a file that is never read as a whole."""

    def __len__(self) -> int: ...
    def __getitem__(self, part: slice, /) -> bytes: ...


def cut_general(texts: Mapping[str, TextSource], context: int) -> list[GeneralBlock]:
    """Blocks of about 1 KB, spread evenly over each text: the same blocks for the same texts.

    A last byte that would be alone in a window of `context` bytes is dropped, as it cannot be predicted.
    """
    blocks = []
    for name, data in texts.items():
        starts = range(0, max(0, len(data) - GENERAL_BLOCK // 2), GENERAL_BLOCK)
        count = min(len(starts), GENERAL_BLOCKS)
        for number in range(count):
            start = starts[number * len(starts) // count]
            text = data[start : start + GENERAL_BLOCK]
            blocks.append(GeneralBlock(name=name, text=text[:-1] if len(text) % context == 1 else text))
    return blocks


def score_cases(
    model: LanguageModel, cases: Sequence[EvaluationCase], *, on_tokens: OnTokens | None = None
) -> list[float]:
    """NLL of each case in nats per scored byte; NaN where the model gives none."""
    losses = iter(model.nll([window for case in cases for window in case.windows], on_tokens=on_tokens))
    return [sum(next(losses).nats for _window in case.windows) / case.bytes for case in cases]


def score_general(
    model: LanguageModel,
    blocks: Sequence[GeneralBlock],
    context: int,
    *,
    on_tokens: OnTokens | None = None,
) -> ModelOnBlocks:
    """The model on each block, for a byte-level model in windows of `context` bytes."""
    losses = model.rolling_nll([block.text for block in blocks], window_bytes=context, on_tokens=on_tokens)
    return ModelOnBlocks(
        nll=np.array([loss.per_byte for loss in losses]),
        uniform=np.array([loss.uniform / loss.bytes if loss.bytes else math.nan for loss in losses]),
    )


def count_case_tokens(cases: Sequence[EvaluationCase]) -> int:
    """Tokens that one model reads to score the cases, for the progress."""
    return sum(len(window.ids) for case in cases for window in case.windows)


def count_general_tokens(model: LanguageModel, blocks: Sequence[GeneralBlock]) -> int:
    """The same for general text, in the model's own tokens."""
    return sum(model.count_tokens(block.text.decode("utf-8", "ignore")) for block in blocks)
