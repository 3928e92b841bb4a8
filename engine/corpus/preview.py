"""A conversation as the trainer sees it: the rendered text with control tokens and loss mask, redacted.

Light: the app imports it; chat template and tokenizer are pure Python.
"""

from __future__ import annotations

import msgspec

from engine.core.chat import ChatMessage
from engine.corpus.review.types import ReviewDetail
from engine.models.chatml import render, windows
from engine.models.tokenizer import IM_END, SPECIAL_TOKENS, decode

DEFAULT_CONTEXT = 2048
"""Context length of a new model (`engine.training.recipe.ModelSize`)."""

_TURN_TOKENS = 2
"""Control tokens around a turn."""


class PreviewPart(msgspec.Struct, frozen=True, kw_only=True):
    """One rendered turn."""

    role: str
    text: str
    train: bool
    tokens: int
    """Context that the turn takes: bytes of the text and its role line, and control tokens."""


class PreviewRun(msgspec.Struct, frozen=True, kw_only=True):
    """Consecutive tokens of one kind, as text."""

    text: str
    train: bool
    """They contribute to the loss."""
    control: bool
    """A single control token; `text` is its name. The same text within a conversation is never one."""
    tokens: int


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    """A rendered conversation."""

    parts: list[PreviewPart]
    tokens: int
    trained: int
    """Tokens that contribute to the loss: answers that are not masked, and their stop tokens."""
    runs: list[PreviewRun]
    """The whole rendered text, in order."""
    windows: int
    """Windows that it is split into."""
    cut: int
    """Tokens with loss that fit into no window."""


class DatasetSummary(msgspec.Struct, frozen=True, kw_only=True):
    """The training split in figures (`training_set.summarise`). Lengths are in tokens: bytes and control tokens."""

    conversations: int
    tokens: int
    trained: int
    """Tokens that contribute to the loss."""
    context: int
    p50: int
    p90: int
    p99: int
    longest: int
    windowed: int
    """Conversations longer than the context, which take several windows."""
    cut: int
    """Conversations with an answer that does not fit into a window."""
    cut_tokens: int
    replaced: dict[str, int]
    """Placeholders in the text, by PII type."""
    left: dict[str, int]
    """PII still found in the text, by type."""
    stop: str = SPECIAL_TOKENS[IM_END]
    """The token that ends each answer; it contributes to the loss."""


def token_runs(messages: list[ChatMessage]) -> list[PreviewRun]:
    """The rendered conversation, split where the loss mask changes and around each control token."""
    rendered = render(messages)
    runs: list[PreviewRun] = []
    pending: list[int] = []

    def close(train: bool) -> None:
        if pending:
            runs.append(PreviewRun(text=decode(pending), train=train, control=False, tokens=len(pending)))
            pending.clear()

    before = False
    for token, train in zip(rendered.ids, rendered.loss_mask, strict=True):
        if train != before or token in SPECIAL_TOKENS:
            close(before)
        before = train
        if token in SPECIAL_TOKENS:
            runs.append(PreviewRun(text=SPECIAL_TOKENS[token], train=train, control=True, tokens=1))
        else:
            pending.append(token)
    close(before)
    return runs


def render_preview(detail: ReviewDetail, context: int = DEFAULT_CONTEXT) -> Preview:
    """The conversation as it would be trained on if accepted."""
    has_pairs = detail.item.pairs > 0
    parts = []
    trained = 0
    for turn in detail.turns:
        if not turn.text.strip():
            continue
        size = len(turn.redacted.encode("utf-8", "surrogatepass"))
        train = turn.role == "assistant" and not (turn.masked and has_pairs)
        trained += size + 1 if train else 0
        tokens = size + len(turn.role.encode()) + 2 + _TURN_TOKENS
        parts.append(PreviewPart(role=turn.role, text=turn.redacted, train=train, tokens=tokens))
    messages = [ChatMessage(role=part.role, content=part.text, train=part.train) for part in parts]
    split = windows(messages, context) if messages else []
    return Preview(
        parts=parts,
        tokens=sum(part.tokens for part in parts),
        trained=trained,
        runs=token_runs(messages),
        windows=len(split),
        cut=sum(window.truncated_bytes for window in split),
    )
