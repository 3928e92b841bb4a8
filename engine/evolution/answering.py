"""The champion's own answers to real questions, and the filter that lets only sound ones into a dataset."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from engine.errors import RunFailed
from engine.evolution import quality
from engine.evolution.made import PREFIX, Made, Way
from engine.evolution.material import first_question
from engine.inference import protocol
from engine.inference.protocol import Finish, Sampling
from engine.inference.torch_backend import NativeModel
from engine.models.template import ChatMessage
from engine.training.conversations import DatasetRow

LEAST_BYTES = 12
LENGTHS = (0.25, 2.5)
"""Shares of the real answer's bytes between which an answer is taken for whole."""
MOST_REPETITION = 0.25
LEAST_CONSISTENCY = 0.5
"""Share of an answer's 3-grams that must stand in its source: the question, the real answer, what is near."""
MOST_SURPRISE = 1.25
"""An answer's NLL per byte under the champion, at most so many times that of the real answer."""
LONGEST = 240
"""Bytes that an answer may take."""


@dataclass(frozen=True)
class Given:
    """One answer of the champion, with all that the filter looks at. NLL in nats per byte."""

    text: str
    source: str
    wanted: str
    stopped: bool
    nll: float
    wanted_nll: float


def fault(given: Given) -> str:
    """Why an answer is left out: "cut", "length", "repetition", "source", "unlikely", "copy"; "" when it is sound."""
    size, wanted = len(given.text.encode("utf-8", "replace")), len(given.wanted.encode("utf-8", "replace"))
    if not given.stopped:
        return "cut"
    if size < LEAST_BYTES or not LENGTHS[0] * wanted <= size <= LENGTHS[1] * wanted:
        return "length"
    if quality.repetition(given.text) > MOST_REPETITION:
        return "repetition"
    if "\ufffd" in given.text or quality.contained(given.text, given.source) < LEAST_CONSISTENCY:
        return "source"
    if given.nll > MOST_SURPRISE * given.wanted_nll:
        return "unlikely"
    return "copy" if quality.grams(given.text) == quality.grams(given.wanted) else ""


def answered(
    model: NativeModel,
    rows: Sequence[DatasetRow],
    most: int,
    chance: random.Random,
    *,
    step: Callable[[int, int], None] | None = None,
) -> tuple[list[Made], int]:
    """(sound answers as rows, answers given): one answer to each of `most` real questions.

    `step(done, total)` may raise to stop. The source of an answer is its whole real conversation.
    """
    asked = [(row, found) for row in rows if (found := first_question(row))]
    chance.shuffle(asked)
    made: list[Made] = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for number, (row, (prompt, wanted)) in enumerate(asked[:most]):
            sampling = Sampling(temperature=0.5, top_p=0.9, max_bytes=LONGEST, seed=chance.getrandbits(31))
            given = _ask(model, row, prompt, wanted, sampling)
            if given is not None and not fault(given):
                answer = ChatMessage(role="assistant", content=given.text)
                context = [
                    ChatMessage(role=message.role, content=message.content, train=False) for message in prompt
                ]
                made.append(
                    Made(
                        id=f"{PREFIX}{Way.ANSWERED}:{row.id}",
                        cluster=row.cluster,
                        messages=[*context, answer],
                        made_from=[row.id],
                        way=Way.ANSWERED,
                    )
                )
            if step is not None:
                step(number + 1, min(most, len(asked)))
    finally:
        torch.set_num_threads(threads)
    return made, min(most, len(asked))


def _ask(
    model: NativeModel, row: DatasetRow, prompt: Sequence[ChatMessage], wanted: str, sampling: Sampling
) -> Given | None:
    """None where the model gives no numbers."""
    asked = [protocol.ChatMessage(role=message.role, content=message.content) for message in prompt]
    try:
        text, how = model.answer(asked, sampling)
    except RunFailed:
        return None
    own, real = (nll_of(model, prompt, answer) for answer in (text, wanted))
    if own is None or real is None:
        return None
    source = "\n".join(message.content for message in row.messages)
    return Given(text.strip(), source, wanted, how.finish is Finish.STOP, own, real)


def nll_of(model: NativeModel, prompt: Sequence[ChatMessage], answer: str) -> float | None:
    """Nats per byte of an answer to `prompt`; None where the model gives no number."""
    turns = [protocol.ChatMessage(role=message.role, content=message.content) for message in prompt]
    before = model.loglikelihood(turns)
    whole = model.loglikelihood([*turns, protocol.ChatMessage(role="assistant", content=answer)])
    if before.loglikelihood is None or whole.loglikelihood is None or whole.bytes <= before.bytes:
        return None
    return -(whole.loglikelihood - before.loglikelihood) / (whole.bytes - before.bytes)
