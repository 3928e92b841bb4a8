"""New material from the knowledge base: parts of one document put together anew, and what retrieval finds near.

Only conversations of the training split and the training part of texts come in; what is kept back is looked
for again in what comes out (`engine.evolution.apart`). Everything is drawn with a fixed seed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from engine.core.chat import ChatMessage
from engine.corpus.filters.normalise import fold
from engine.evolution.sentences import chinese, halves, passages
from engine.evolution.synthetic import PREFIX, Made, Way
from engine.training.chat_batches import DatasetRow
from engine.training.text_files import training_part

T = TypeVar("T")

PASSAGE = 480
"""Bytes of a passage of a text."""
LEAST_HALF = 24
"""Bytes of either half of a document that is worth a row."""
LONGEST_ROW = 900
"""Bytes of a new row: longer ones find no place in a batch beside real windows."""
POOL = 4_000
"""Conversations among which retrieval looks."""
READ = 1 << 20
"""Bytes of each text that are read for passages."""
NEAREST, FARTHEST = 0.75, 0.12
"""Cosines between which a neighbour says something related: above, it says the same again."""


def recombined(rows: Sequence[DatasetRow], chance: random.Random) -> Iterator[Made]:
    """A later part of a conversation without its beginning, or an answer that goes on from its first half."""
    for row in _shuffled(rows, chance):
        messages = _later_part(row.messages, chance) or _second_half(row.messages)
        if messages is not None and _size(messages) <= LONGEST_ROW:
            yield _row(Way.RECOMBINED, row, messages, [row.id])


def from_texts(files: Sequence[Path], chance: random.Random) -> Iterator[Made]:
    """Passages of the texts: given the first half, the second is learnt. The general tails are never read.

    A text that cannot be read gives nothing.
    """
    for file in files:
        try:
            part = training_part(file)
            size = min(READ, len(part))
            start = chance.randrange(max(1, len(part) - size))
            text = part.read(start, size).decode("utf-8", "ignore")
        except OSError:
            continue
        for number, passage in enumerate(_shuffled(list(passages(text, PASSAGE))[1:-1], chance)):
            cut = halves(passage)
            if cut is None or min(len(half.encode()) for half in cut) < LEAST_HALF:
                continue
            messages = [
                ChatMessage(role="user", content=cut[0]),
                ChatMessage(role="assistant", content=cut[1]),
            ]
            yield Made(
                id=f"{PREFIX}{Way.RECOMBINED}:{file.name}:{start}-{number}",
                cluster="",
                messages=messages,
                made_from=[str(file)],
                way=Way.RECOMBINED,
            )


def retrieved(rows: Sequence[DatasetRow], chance: random.Random) -> Iterator[Made]:
    """The first exchange of a conversation after the exchange of another one that is nearest to it.

    Nearest by the cosine of TF-IDF over character 2- and 3-grams (scikit-learn), which needs no spaces. The
    neighbour is context without loss: what is learnt is to answer with something related in sight.
    """
    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer

    pool = [(row, first) for row in _shuffled(rows, chance)[:POOL] if (first := _exchange(row.messages))]
    texts = [fold(" ".join(message.content for message in first)) for _row_, first in pool]
    if len(pool) < 2:
        return
    try:
        vectors = TfidfVectorizer(
            analyzer="char", ngram_range=(2, 3), lowercase=False, sublinear_tf=True, dtype=np.float32
        ).fit_transform(texts)
    except ValueError:
        return  # not one n-gram in them
    for start in range(0, len(pool), 256):
        near = (vectors[start : start + 256] @ vectors.T).toarray()
        near[(near > NEAREST) | (near < FARTHEST)] = 0.0
        for offset, line in enumerate(near):
            other = int(line.argmax())
            if line[other] <= 0.0:
                continue
            (row, first), (neighbour, before) = pool[start + offset], pool[other]
            messages = [msgspec.structs.replace(message, train=False) for message in before] + first
            if _size(messages) <= LONGEST_ROW:
                yield _row(Way.RETRIEVED, row, messages, [row.id, neighbour.id])


def words_of(made: Made) -> str:
    """Folded: two rows of the same words count once."""
    return "\x1f".join(fold(message.content) for message in made.messages)


def trained_bytes(messages: Sequence[ChatMessage]) -> int:
    """Bytes with loss, a stop token for each answer among them."""
    return sum(
        len(message.content.encode("utf-8", "replace")) + 1
        for message in messages
        if message.role == "assistant" and message.train
    )


def first_question(row: DatasetRow) -> tuple[list[ChatMessage], str] | None:
    """The turns up to the first trained answer, and that answer; None where the assistant opens."""
    for index, message in enumerate(row.messages):
        if message.role == "assistant" and message.train:
            prompt = row.messages[:index]
            return (prompt, message.content) if prompt and prompt[-1].role == "user" else None
    return None


def _exchange(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """The first question with its trained answer; [] without one."""
    for index in range(1, len(messages)):
        question, answer = messages[index - 1], messages[index]
        if question.role == "user" and answer.role == "assistant" and answer.train:
            return [question, answer]
    return []


def _later_part(messages: Sequence[ChatMessage], chance: random.Random) -> list[ChatMessage] | None:
    """From a later question on, one to three exchanges; the system turn stays. None for one exchange alone."""
    system = [message for message in messages[:1] if message.role == "system"]
    turns = list(messages[len(system) :])
    questions = [index for index, message in enumerate(turns) if message.role == "user"]
    if len(questions) < 2:
        return None
    start = chance.choice(questions[1:])
    ends = [index for index in questions if index > start][2:3] or [len(turns)]
    part = system + turns[start : ends[0]]
    return part if trained_bytes(part) else None


def _second_half(messages: Sequence[ChatMessage]) -> list[ChatMessage] | None:
    """The question and the first half of its answer as what is given, the second half as what is learnt."""
    exchange = _exchange(messages)
    cut = halves(exchange[1].content) if exchange else None
    if cut is None or min(len(half.encode("utf-8", "replace")) for half in cut) < LEAST_HALF:
        return None
    go_on = "请继续。" if chinese(exchange[1].content) else "Please go on."
    return [
        exchange[0],
        ChatMessage(role="assistant", content=cut[0], train=False),
        ChatMessage(role="user", content=go_on),
        ChatMessage(role="assistant", content=cut[1]),
    ]


def _row(way: Way, row: DatasetRow, messages: list[ChatMessage], sources: list[str]) -> Made:
    return Made(
        id=f"{PREFIX}{way}:{row.id}", cluster=row.cluster, messages=messages, made_from=sources, way=way
    )


def _size(messages: Sequence[ChatMessage]) -> int:
    return sum(len(message.content.encode("utf-8", "replace")) for message in messages)


def _shuffled(items: Sequence[T], chance: random.Random) -> list[T]:
    mixed = list(items)
    chance.shuffle(mixed)
    return mixed
