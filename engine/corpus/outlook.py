"""What the next dataset will be, before it is trained on: lengths, cuts, and what private text is left in it."""

from __future__ import annotations

from collections import Counter

from engine.corpus.enums import Split
from engine.corpus.filters import pii
from engine.corpus.ledger import Database
from engine.corpus.preview import Outlook
from engine.corpus.training_messages import prepared
from engine.models.chatml import render, windows


def outlook(store: Database, context: int) -> Outlook:
    """Renders every conversation of the training split once."""
    lengths: list[int] = []
    replaced: Counter[str] = Counter()
    left: Counter[str] = Counter()
    trained = windowed = cut = cut_tokens = 0
    for item in prepared(store, Split.TRAIN):
        if not item.pairs:
            continue
        whole = render(item.messages)
        lengths.append(len(whole.ids))
        trained += whole.trained_tokens
        if len(whole.ids) > context:
            lost = sum(window.truncated_bytes for window in windows(item.messages, context))
            windowed += 1
            cut += lost > 0
            cut_tokens += lost
        for message in item.messages:
            left.update(span.type.value for span in pii.find(message.content))
            if "‹" in message.content:
                for type_ in pii.SensitiveType:
                    replaced[type_.value] += message.content.count(pii.placeholder(type_.value))
    lengths.sort()

    def share(part: float) -> int:
        return lengths[min(len(lengths) - 1, int(part * len(lengths)))] if lengths else 0

    return Outlook(
        conversations=len(lengths),
        tokens=sum(lengths),
        trained=trained,
        context=context,
        p50=share(0.5),
        p90=share(0.9),
        p99=share(0.99),
        longest=lengths[-1] if lengths else 0,
        windowed=windowed,
        cut=cut,
        cut_tokens=cut_tokens,
        replaced=+replaced,
        left=dict(left),
    )
