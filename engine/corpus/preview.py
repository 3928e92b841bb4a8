"""What a conversation will look like to the trainer: the exact text with its control tokens, redacted, and which
tokens bear the loss. Light: template and tokenizer are pure Python."""

from __future__ import annotations

import msgspec

from engine.core.chat import ChatMessage
from engine.corpus.review.store import ReviewDetail
from engine.models.chatml import render, windows
from engine.models.tokenizer import IM_END, SPECIAL_TOKENS, decode

CONTEXT = 2048
"""Tokens of a window of a new model (`engine.training.recipe.ModelSize`)."""

_MARKERS = 2
"""Control tokens around a turn; each is one token, whatever the text holds."""


class PreviewPart(msgspec.Struct, frozen=True, kw_only=True):
    """One turn as it is rendered."""

    role: str
    text: str
    train: bool
    tokens: int
    """Bytes of the text with its role line and control tokens: what it takes of the context."""


class PreviewRun(msgspec.Struct, frozen=True, kw_only=True):
    """Neighbouring tokens of one kind, as text."""

    text: str
    train: bool
    """They bear the loss."""
    control: bool
    """One control token; `text` is its name. The same words in a conversation are never one."""
    tokens: int


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    parts: list[PreviewPart]
    tokens: int
    trained: int
    """Tokens that bear the loss: the answers with content and their stop tokens."""
    runs: list[PreviewRun]
    """Everything that is rendered, in order."""
    windows: int
    """Windows it is cut into."""
    cut: int
    """Tokens with loss that fit into none of them."""


class Outlook(msgspec.Struct, frozen=True, kw_only=True):
    """The training split as it stands. Lengths are in tokens: bytes and control tokens."""

    conversations: int
    tokens: int
    trained: int
    """Tokens that bear the loss."""
    context: int
    p50: int
    p90: int
    p99: int
    longest: int
    windowed: int
    """Conversations longer than the context: several windows each."""
    cut: int
    """Conversations of which some answer does not fit into a window."""
    cut_tokens: int
    replaced: dict[str, int]
    """Placeholders in the text, by type."""
    left: dict[str, int]
    """Private spans that are still found in it, by type."""
    stop: str = SPECIAL_TOKENS[IM_END]
    """The token that ends each answer and bears the loss."""


def runs_of(messages: list[ChatMessage]) -> list[PreviewRun]:
    """The rendered conversation, cut where the mask changes and around each control token."""
    rendered = render(messages)
    runs: list[PreviewRun] = []
    held: list[int] = []

    def close(train: bool) -> None:
        if held:
            runs.append(PreviewRun(text=decode(held), train=train, control=False, tokens=len(held)))
            held.clear()

    before = False
    for token, train in zip(rendered.ids, rendered.loss_mask, strict=True):
        if train != before or token in SPECIAL_TOKENS:
            close(before)
        before = train
        if token in SPECIAL_TOKENS:
            runs.append(PreviewRun(text=SPECIAL_TOKENS[token], train=train, control=True, tokens=1))
        else:
            held.append(token)
    close(before)
    return runs


def preview(detail: ReviewDetail, context: int = CONTEXT) -> Preview:
    """The conversation of the right pane as training would see it, were it accepted."""
    content = detail.item.pairs > 0
    parts = []
    trained = 0
    for turn in detail.turns:
        if not turn.text.strip():
            continue
        size = len(turn.redacted.encode("utf-8", "surrogatepass"))
        train = turn.role == "assistant" and not (turn.masked and content)
        trained += size + 1 if train else 0
        tokens = size + len(turn.role.encode()) + 2 + _MARKERS
        parts.append(PreviewPart(role=turn.role, text=turn.redacted, train=train, tokens=tokens))
    messages = [ChatMessage(role=part.role, content=part.text, train=part.train) for part in parts]
    cut = windows(messages, context) if messages else []
    return Preview(
        parts=parts,
        tokens=sum(part.tokens for part in parts),
        trained=trained,
        runs=runs_of(messages),
        windows=len(cut),
        cut=sum(window.truncated_bytes for window in cut),
    )
