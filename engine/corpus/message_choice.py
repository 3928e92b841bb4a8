"""Which conversations stand before every chat of a served model, where a context holds only a few.

The rule, the same for the same corpus:
1. Only whole exchanges of user and assistant, from the beginning of a conversation, whose answers are all trained on. Of
   a conversation longer than a quarter of the space, its first exchanges that fit into a quarter.
2. Of each near-duplicate cluster the best one (as in 3).
3. A conversation is worth the mean of how new it is (its rank by time) and how good (the quality score of the corpus, or
   1 where the user accepted it by hand).
4. One after the other, the one with the highest worth less its similarity to those already chosen, as long as one fits.
   Similarity is the share of the character trigrams of the shorter text that are in the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import msgspec

from engine.core.chat import ChatMessage
from engine.corpus.dataset import DatasetRow
from engine.corpus.enums import DataSplit, ReviewState
from engine.corpus.ledger import Database
from engine.corpus.training_set import corpus_rows

LARGEST_SHARE = 4
"""A conversation takes at most this part of the space."""
MOST = 2000
"""Conversations that are compared: those of the highest worth."""
_TEXT = 2000
"""Characters of a conversation that are compared."""


@dataclass(frozen=True)
class Candidate:
    """A conversation of the training split."""

    row: DatasetRow
    time: float | None
    """Seconds since the epoch."""
    quality: float
    """0 to 1."""


@dataclass(frozen=True)
class ChosenConversation:
    """A conversation as it stands before a chat."""

    id: str
    cluster: str
    time: float | None
    messages: list[ChatMessage]
    tokens: int


CountTokens = Callable[[Sequence[ChatMessage]], int]
"""Tokens that some turns add to a prompt."""


def candidates(store: Database) -> list[Candidate]:
    """The accepted conversations of the training split, by id."""
    facts = {
        id_: (time, 1.0 if automatic not in ("", ReviewState.ACCEPTED.value) else quality)
        for id_, time, quality, automatic in store.connection.execute(
            "SELECT conversation_id, sort_time, quality, automatic FROM corpus WHERE state = ?",
            (ReviewState.ACCEPTED.value,),
        )
    }
    return [
        Candidate(row, *facts.get(row.id, (None, 0.0)))
        for row in corpus_rows(store, DataSplit.TRAIN)
        if row.trained_answers
    ]


def choose(
    found: Sequence[Candidate], space: int, count: CountTokens, step: Callable[[], None] | None = None
) -> list[ChosenConversation]:
    """The conversations that fit into `space` tokens together, oldest first. `step` may raise to stop."""
    worth = _worth(found)
    best: dict[str, int] = {}
    for at in sorted(range(len(found)), key=lambda at: (-worth[at], found[at].row.id)):
        best.setdefault(found[at].row.cluster or found[at].row.id, at)
    open_: dict[int, ChosenConversation] = {}
    for at in list(best.values())[:MOST]:
        if step is not None:
            step()
        one = _fitted(found[at], space // LARGEST_SHARE, count)
        if one is not None:
            open_[at] = one
    grams = {at: _grams(one.messages) for at, one in open_.items()}
    similar = dict.fromkeys(open_, 0.0)
    chosen: list[ChosenConversation] = []
    left = space
    while True:
        fitting = [at for at, one in open_.items() if one.tokens <= left]
        if not fitting:
            break
        at = min(fitting, key=lambda at: (similar[at] - worth[at], found[at].row.id))
        one = open_.pop(at)
        chosen.append(one)
        left -= one.tokens
        for other in open_:
            similar[other] = max(similar[other], _overlap(grams[at], grams[other]))
        if step is not None:
            step()
    return sorted(chosen, key=lambda one: (one.time is not None, one.time or 0.0, one.id))


def exchanges_of(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """The exchanges at the beginning of a conversation that may stand before a chat: a question, then its answer.

    System turns are left out; a tool's turn, a masked answer or two turns of one role end them.
    """
    kept: list[ChatMessage] = []
    for message in messages:
        if message.role == "system" and not kept:
            continue
        expected = "assistant" if len(kept) % 2 else "user"
        if message.role != expected or (expected == "assistant" and not message.train):
            break
        kept.append(msgspec.structs.replace(message, train=False))
    return kept[: len(kept) // 2 * 2]


def _fitted(candidate: Candidate, most: int, count: CountTokens) -> ChosenConversation | None:
    """Its first exchanges in at most `most` tokens; None where not even one fits."""
    messages = exchanges_of(candidate.row.messages)
    while messages:
        tokens = count(messages)
        if tokens <= most:
            row = candidate.row
            return ChosenConversation(row.id, row.cluster, candidate.time, messages, tokens)
        messages = messages[:-2]
    return None


def _worth(found: Sequence[Candidate]) -> list[float]:
    times = sorted({one.time for one in found if one.time is not None})
    rank = {time: (place + 1) / len(times) for place, time in enumerate(times)}
    return [(0.0 if one.time is None else rank[one.time]) / 2 + one.quality / 2 for one in found]


def _grams(messages: Iterable[ChatMessage]) -> frozenset[str]:
    text = " ".join(" ".join(message.content.lower().split()) for message in messages)[:_TEXT]
    return frozenset(text[at : at + 3] for at in range(len(text) - 2))


def _overlap(one: frozenset[str], other: frozenset[str]) -> float:
    shorter = min(len(one), len(other))
    return len(one & other) / shorter if shorter else 0.0
