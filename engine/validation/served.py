"""The served-path check: whether the program that answers computes what the verdict was computed from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import nlargest
from itertools import islice

from engine.core.chat import ChatMessage
from engine.core.errors import BadInput, H2QError
from engine.inference.language_model import LanguageModel
from engine.inference.served_model import ServedModel
from engine.validation.cases import EvaluationCase
from engine.validation.report import ServedCheck

POSITIONS = 12
"""Positions whose next tokens are compared."""
_OFFSETS = (0, 1, 4, 16)
"""Tokens of the answer before them."""
MOST = 20
"""Likeliest tokens that are compared at each position."""
MEAN_LIMIT = 0.02
"""Mean |Δ log p| of the best tokens, from a file of whole numbers: llama.cpp's arithmetic alone."""
MEAN_LIMIT_QUANTIZED = 0.3
"""The same where llama.cpp also rounds activations: up to 0.1 was measured for 4 bits."""
CLEAR = 4.0
"""The best token is clear where it leads by this many times the mean's limit."""


def check_served(
    model: LanguageModel, cases: Sequence[EvaluationCase], questions: Sequence[EvaluationCase]
) -> ServedCheck | None:
    """Compares torch with the serving program; None for a model that torch itself answers.

    `questions` are cases with a prompt. A check that cannot be made says why in `problem`.
    """
    if not isinstance(model, ServedModel):
        return None
    try:
        return _check(model, model, cases, [case.prompt for case in questions])
    except H2QError as problem:
        return ServedCheck(problem=problem.message)


def _check(
    model: LanguageModel,
    served: ServedModel,
    cases: Sequence[EvaluationCase],
    prompts: Sequence[list[ChatMessage]],
) -> ServedCheck:
    limit = MEAN_LIMIT_QUANTIZED if served.quantized else MEAN_LIMIT
    differences, clear, same_best = [], 0, 0
    for prefix in islice(position_prefixes(cases), POSITIONS):
        expected = model.next_token_log_probs(prefix)
        found = served.served_log_probs(prefix, MOST)
        best, second = nlargest(2, range(len(expected)), key=expected.__getitem__)
        # A token that is not among the likeliest there is at most as likely as the last of them.
        differences.append(abs(found.get(best, min(found.values())) - expected[best]))
        if expected[best] - expected[second] > CLEAR * limit:
            clear += 1
            same_best += max(found, key=lambda token: found[token]) == best
    return ServedCheck(
        prompts=len(prompts),
        same_prompts=sum(_same_ids(served, prompt) for prompt in prompts),
        stops=served.stop_token_ends(),
        positions=len(differences),
        mean_difference=sum(differences) / len(differences) if differences else 0.0,
        limit=limit,
        clear=clear,
        same_best=same_best,
    )


def _same_ids(served: ServedModel, messages: list[ChatMessage]) -> bool:
    try:
        return served.served_prompt(messages) == served.prompt(messages)
    except BadInput:
        return False


def position_prefixes(cases: Sequence[EvaluationCase]) -> Iterator[list[int]]:
    """Beginnings of conversations up to the beginning of an answer and into it, one case after the other."""
    for offset in _OFFSETS:
        for case in cases:
            window = case.windows[0]
            first = window.loss_mask.index(True) if True in window.loss_mask else 0
            if first > 0 and first + offset < len(window.ids):
                yield window.ids[: first + offset]
