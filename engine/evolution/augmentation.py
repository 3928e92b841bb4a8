"""Synthetic examples from the knowledge base: recombined parts of one document, and retrieved related exchanges.

Sources are conversations of the training split and the training part of texts only; held-out text is searched
for in the results (`engine.evolution.held_out_guard`). All sampling uses a fixed seed.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from engine.core.chat import ChatMessage
from engine.corpus.dataset import DatasetRow
from engine.corpus.filters.folding import fold
from engine.corpus.filters.normalise import letters
from engine.evolution.synthetic import ID_PREFIX, SyntheticExample, SyntheticMethod
from engine.training.text_files import training_part

T = TypeVar("T")

PASSAGE_BYTES = 480
"""Length of a passage of a text."""
MIN_HALF_BYTES = 24
"""Minimum length of either half of a split document."""
MAX_ROW_BYTES = 900
"""Maximum length of a row: longer ones fit into no batch next to real windows."""
RETRIEVAL_POOL = 4_000
"""Conversations that retrieval searches."""
READ_BYTES = 1 << 20
"""Bytes that are read of each text."""
MAX_COSINE, MIN_COSINE = 0.75, 0.12
"""Range of the cosine in which a neighbour is related: above, it says the same again."""
MIN_SENTENCE = 6
"""Characters below which a sentence is joined with the one before it."""

# Chinese has no spaces after its sentence marks, English has.
_SENTENCE = re.compile(r".+?(?:[。！？；…]+[”’」』）]*|[.!?;]{1,8}+[\"')\]]{0,8}+(?=\s|$)|\n+|$)", re.DOTALL)


def recombine(rows: Sequence[DatasetRow], rng: random.Random) -> Iterator[SyntheticExample]:
    """A later part of a conversation without its beginning, or an answer continued from its first half."""
    for row in _shuffled(rows, rng):
        messages = _later_part(row.messages, rng) or _second_half(row.messages)
        if messages is not None and _size(messages) <= MAX_ROW_BYTES:
            yield _example(SyntheticMethod.RECOMBINED, row, messages, [row.id])


def text_passages(files: Sequence[Path], rng: random.Random) -> Iterator[SyntheticExample]:
    """Passages of texts: the first half is the prompt, the second the trained answer.

    The tails reserved for the general set are never read. A text that cannot be read is skipped.
    """
    for file in files:
        try:
            part = training_part(file)
            size = min(READ_BYTES, len(part))
            start = rng.randrange(max(1, len(part) - size))
            text = part.read(start, size).decode("utf-8", "ignore")
        except OSError:
            continue
        for number, passage in enumerate(_shuffled(list(passages(text, PASSAGE_BYTES))[1:-1], rng)):
            split = halves(passage)
            if split is None or min(len(half.encode()) for half in split) < MIN_HALF_BYTES:
                continue
            messages = [
                ChatMessage(role="user", content=split[0]),
                ChatMessage(role="assistant", content=split[1]),
            ]
            yield SyntheticExample(
                id=f"{ID_PREFIX}{SyntheticMethod.RECOMBINED}:{file.name}:{start}-{number}",
                cluster="",
                messages=messages,
                sources=[str(file)],
                method=SyntheticMethod.RECOMBINED,
            )


def retrieve(rows: Sequence[DatasetRow], rng: random.Random) -> Iterator[SyntheticExample]:
    """The first exchange of a conversation, preceded by its nearest neighbour among the others.

    Nearest by the cosine of TF-IDF over character 2- and 3-grams (scikit-learn), which needs no spaces. The
    neighbour's answer is masked: the model learns to answer with related context.
    """
    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer

    pool = [
        (row, first)
        for row in _shuffled(rows, rng)[:RETRIEVAL_POOL]
        if (first := _first_exchange(row.messages))
    ]
    texts = [letters(" ".join(message.content for message in first)) for _row, first in pool]
    if len(pool) < 2:
        return
    try:
        vectors = TfidfVectorizer(
            analyzer="char", ngram_range=(2, 3), lowercase=False, sublinear_tf=True, dtype=np.float32
        ).fit_transform(texts)
    except ValueError:
        return  # no n-gram at all
    for start in range(0, len(pool), 256):
        cosines = (vectors[start : start + 256] @ vectors.T).toarray()
        cosines[(cosines > MAX_COSINE) | (cosines < MIN_COSINE)] = 0.0
        for offset, line in enumerate(cosines):
            other = int(line.argmax())
            if line[other] <= 0.0:
                continue
            (row, first), (neighbour, context) = pool[start + offset], pool[other]
            messages = [msgspec.structs.replace(message, train=False) for message in context] + first
            if _size(messages) <= MAX_ROW_BYTES:
                yield _example(SyntheticMethod.RETRIEVED, row, messages, [row.id, neighbour.id])


def dedup_key(example: SyntheticExample) -> str:
    """The folded text of a row: rows with the same key are exact duplicates."""
    return "\x1f".join(fold(message.content) for message in example.messages)


def trained_bytes(messages: Sequence[ChatMessage]) -> int:
    """Trained bytes of a conversation, one stop token per answer included."""
    return sum(
        len(message.content.encode("utf-8", "replace")) + 1
        for message in messages
        if message.role == "assistant" and message.train
    )


def first_prompt(row: DatasetRow) -> tuple[list[ChatMessage], str] | None:
    """(prompt, answer) of the first trained answer; None where no question of the user precedes it."""
    for index, message in enumerate(row.messages):
        if message.role == "assistant" and message.train:
            prompt = row.messages[:index]
            return (prompt, message.content) if prompt and prompt[-1].role == "user" else None
    return None


def sentences(text: str) -> list[str]:
    """The sentences of `text` in order; joined they are the text again."""
    found: list[str] = []
    for match in _SENTENCE.finditer(text):
        sentence = match[0]
        if not sentence:
            continue
        if found and (len(sentence.strip()) < MIN_SENTENCE or len(found[-1].strip()) < MIN_SENTENCE):
            found[-1] += sentence
        else:
            found.append(sentence)
    return found


def halves(text: str) -> tuple[str, str] | None:
    """`text` split at the sentence end nearest to its middle; None for a single sentence."""
    parts = sentences(text)
    if len(parts) < 2:
        return None
    size, middle, cut = 0, len(text) / 2, 1
    best = float("inf")
    for number, part in enumerate(parts[:-1], start=1):
        size += len(part)
        if abs(size - middle) < best:
            best, cut = abs(size - middle), number
    return "".join(parts[:cut]).strip(), "".join(parts[cut:]).strip()


def passages(text: str, max_bytes: int) -> Iterator[str]:
    """Consecutive sentences of up to about `max_bytes` UTF-8 bytes together; a longer sentence is its own passage."""
    passage, size = "", 0
    for sentence in sentences(text):
        length = len(sentence.encode("utf-8", "replace"))
        if passage and size + length > max_bytes:
            yield passage
            passage, size = "", 0
        passage, size = passage + sentence, size + length
    if passage.strip():
        yield passage


def _is_chinese(text: str) -> bool:
    """Whether at least a third of the characters are Chinese."""
    count = sum("\u4e00" <= character <= "\u9fff" for character in text)
    return count * 3 >= len(text) > 0


def _first_exchange(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """The first question with its trained answer; [] without one."""
    for index in range(1, len(messages)):
        question, answer = messages[index - 1], messages[index]
        if question.role == "user" and answer.role == "assistant" and answer.train:
            return [question, answer]
    return []


def _later_part(messages: Sequence[ChatMessage], rng: random.Random) -> list[ChatMessage] | None:
    """One to three exchanges from a later question on, with the system turn; None for a single exchange."""
    system = [message for message in messages[:1] if message.role == "system"]
    turns = list(messages[len(system) :])
    questions = [index for index, message in enumerate(turns) if message.role == "user"]
    if len(questions) < 2:
        return None
    start = rng.choice(questions[1:])
    ends = [index for index in questions if index > start][2:3] or [len(turns)]
    part = system + turns[start : ends[0]]
    return part if trained_bytes(part) else None


def _second_half(messages: Sequence[ChatMessage]) -> list[ChatMessage] | None:
    """The question and the masked first half of its answer, then the trained second half."""
    exchange = _first_exchange(messages)
    split = halves(exchange[1].content) if exchange else None
    if split is None or min(len(half.encode("utf-8", "replace")) for half in split) < MIN_HALF_BYTES:
        return None
    continue_prompt = "请继续。" if _is_chinese(exchange[1].content) else "Please go on."
    return [
        exchange[0],
        ChatMessage(role="assistant", content=split[0], train=False),
        ChatMessage(role="user", content=continue_prompt),
        ChatMessage(role="assistant", content=split[1]),
    ]


def _example(
    method: SyntheticMethod, row: DatasetRow, messages: list[ChatMessage], sources: list[str]
) -> SyntheticExample:
    return SyntheticExample(
        id=f"{ID_PREFIX}{method}:{row.id}",
        cluster=row.cluster,
        messages=messages,
        sources=sources,
        method=method,
    )


def _size(messages: Sequence[ChatMessage]) -> int:
    return sum(len(message.content.encode("utf-8", "replace")) for message in messages)


def _shuffled(items: Sequence[T], rng: random.Random) -> list[T]:
    mixed = list(items)
    rng.shuffle(mixed)
    return mixed
