"""What a conversation will look like to the trainer: its turns, redacted, and which of them bear the loss. Light."""

from __future__ import annotations

import msgspec

from engine.corpus.review import ReviewDetail

_MARKERS = 2
"""Control tokens around a turn; each is one token, whatever the text holds."""


class PreviewPart(msgspec.Struct, frozen=True, kw_only=True):
    """One turn as it is rendered."""

    role: str
    text: str
    train: bool
    tokens: int
    """Bytes of the text with its role line and control tokens: what it takes of the context."""


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    parts: list[PreviewPart]
    tokens: int
    trained: int
    """Tokens that bear the loss: the answers with content and their stop tokens."""


def preview(detail: ReviewDetail) -> Preview:
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
    return Preview(parts=parts, tokens=sum(part.tokens for part in parts), trained=trained)
