"""Held-out conversations and general text, cut into what is scored: the same pieces for base and new."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from engine.core.chat import ChatMessage
from engine.core.errors import BadInput
from engine.core.i18n import _
from engine.models.card import ModelCard
from engine.models.chatml import MaskedTokens, windows

GENERAL_BLOCK = 1024
"""Bytes of general text that count as one observation."""
GENERAL_BLOCKS = 64
"""Blocks taken from each general text at most, spread evenly over it: always the same ones."""


class HeldOutLike(Protocol):
    """A conversation of the test window, as `corpus.dataset.held_out` gives it."""

    @property
    def conversation(self) -> str: ...

    @property
    def cluster(self) -> str: ...

    @property
    def messages(self) -> Sequence[ChatMessage]: ...


@dataclass(frozen=True)
class Case:
    """One held-out conversation in windows. `bytes` counts what is scored, stop tokens among it."""

    conversation: str
    cluster: str
    windows: list[MaskedTokens] = field(repr=False)
    bytes: int
    cut: int
    """Bytes of its answers that stand beyond a window's end and are not scored."""
    prompt: list[ChatMessage] = field(default_factory=list, repr=False)
    """Everything up to the first scored answer: what both models answer side by side."""
    wanted: str = ""
    """That answer."""

    @property
    def question(self) -> str:
        """The last turn before the answer; "" where the assistant opens."""
        return self.prompt[-1].content if self.prompt else ""


@dataclass(frozen=True)
class GeneralBlock:
    """About 1 KB of one general text, in chunks that fit the smaller context."""

    name: str
    chunks: list[bytes] = field(repr=False)


Cut = Callable[[Sequence[ChatMessage], int], list[MaskedTokens]]
"""Windows of a conversation."""


def cut_cases(held_out: Sequence[HeldOutLike], context: int, cut: Cut = windows) -> list[Case]:
    """Windows of at most `context` tokens for each conversation with an answer; the others give no case."""
    cases = []
    for item in held_out:
        parts = cut(item.messages, context)
        scored = sum(part.trained_bytes for part in parts)
        if scored == 0:
            continue
        first = next(i for i, m in enumerate(item.messages) if m.role == "assistant" and m.train)
        cases.append(
            Case(
                conversation=item.conversation,
                cluster=item.cluster,
                windows=parts,
                bytes=scored,
                cut=sum(part.truncated_bytes for part in parts),
                prompt=list(item.messages[:first]),
                wanted=item.messages[first].content,
            )
        )
    return cases


class Text(Protocol):
    """Bytes of which a part can be had: `bytes` themselves, or a span of a file that is never read whole."""

    def __len__(self) -> int: ...
    def __getitem__(self, part: slice, /) -> bytes: ...


def cut_general(texts: Mapping[str, Text], context: int) -> list[GeneralBlock]:
    """Blocks of about 1 KB, evenly spread over each text. The same texts always give the same blocks."""
    blocks = []
    for name, data in texts.items():
        starts = range(0, max(0, len(data) - GENERAL_BLOCK // 2), GENERAL_BLOCK)
        count = min(len(starts), GENERAL_BLOCKS)
        for number in range(count):
            start = starts[number * len(starts) // count]
            block = data[start : start + GENERAL_BLOCK]
            chunks = [block[i : i + context] for i in range(0, len(block), context)]
            blocks.append(GeneralBlock(name=name, chunks=[chunk for chunk in chunks if len(chunk) > 1]))
    return blocks


def refuse_seen(card: ModelCard, held_out: Sequence[HeldOutLike]) -> None:
    """Raises BadInput naming the conversations when `card`'s model or an ancestor was trained on the window."""
    conversations, clusters = set(card.lineage.conversations), set(card.lineage.clusters)
    seen = [
        item.conversation
        for item in held_out
        if item.conversation in conversations or item.cluster in clusters
    ]
    if not seen:
        return
    shown = ", ".join(seen[:5]) + (" …" if len(seen) > 5 else "")
    raise BadInput(
        _("{name} was trained on {n} of the conversations it would be judged on ({ids})").format(
            name=card.name, n=len(seen), ids=shown
        ),
        hint="h2q-tui models list",
    )
