"""Base and new model on the same held-out conversations: opened together, cut into the same cases, scored by likelihood."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from engine.core.errors import BadInput, H2QError
from engine.core.i18n import _
from engine.core.paths import Workspace
from engine.corpus.dataset import DatasetRow
from engine.corpus.features import language_of
from engine.inference.language_model import LanguageModel, OnTokens
from engine.inference.loader import open_pair, open_together
from engine.models.resolve import ModelKind, kind_of
from engine.validation.cases import EvaluationCase, GeneralBlock, cut_cases, score_general
from engine.validation.general import GeneralScores
from engine.validation.report import CaseScore

UNIFORM = math.log(256)
"""NLL per byte of a uniform distribution over bytes."""


def paired_cases(
    base: LanguageModel, new: LanguageModel, held: Sequence[DatasetRow], context: int
) -> tuple[list[EvaluationCase], list[EvaluationCase]]:
    """The cases of both models in the same order; a conversation that only one of them can read is dropped."""
    base_cases = cut_cases(held, context, base.windows)
    new_cases = {case.conversation: case for case in cut_cases(held, context, new.windows)}
    pairs = [(case, new_cases[case.conversation]) for case in base_cases if case.conversation in new_cases]
    return [case for case, _new in pairs], [case for _base, case in pairs]


def require_better_than_uniform(
    name: str, folder: Path, cases: Sequence[EvaluationCase], scores: Sequence[float]
) -> None:
    """Raises BadInput for a base worse than uniform bytes: beating it would prove nothing."""
    finite = [(score, case.bytes) for score, case in zip(scores, cases, strict=True) if math.isfinite(score)]
    if not finite:
        return
    mean = sum(score * size for score, size in finite) / sum(size for _score, size in finite)
    if mean > UNIFORM:
        raise BadInput(
            _("the base {name} is worse than guessing ({mean:.2f} of {uniform:.2f} nats per byte)").format(
                name=name, mean=mean, uniform=UNIFORM
            ),
            hint="h2q-tui train --mode scratch"
            if kind_of(folder) is ModelKind.NATIVE
            else "h2q-tui train --mode lora --model DIR",
        )


def open_models(ws: Workspace, base: Path, new: Path, first: Path | None) -> list[LanguageModel]:
    """Base and new model, and the first of its line where there is another one that can be read."""
    if first is not None:
        with suppress(H2QError):
            return open_together(ws, [base, new, first])
    return list(open_pair(ws, base, new))


def score_general_set(
    models: Sequence[LanguageModel],
    blocks: Sequence[GeneralBlock],
    context: int,
    first_name: str,
    on_tokens: OnTokens,
) -> GeneralScores:
    """Base, new model and, where it is another one, the first of its line."""
    scores = [score_general(model, blocks, context, on_tokens=on_tokens) for model in models]
    return GeneralScores(
        base=scores[0],
        new=scores[1],
        texts=[block.name for block in blocks],
        languages=[language_of(block.text.decode("utf-8", "ignore")) for block in blocks],
        first=scores[2] if len(scores) > 2 else None,
        first_name=models[2].name if len(models) > 2 else first_name,
    )


def case_scores(
    cases: Sequence[EvaluationCase], base: Sequence[float], new: Sequence[float]
) -> list[CaseScore]:
    """The cases that both models have a finite score for."""
    return [
        CaseScore(
            conversation=case.conversation,
            cluster=case.cluster,
            bytes=case.bytes,
            base=old,
            new=fresh,
            cut=case.cut > 0,
        )
        for case, old, fresh in zip(cases, base, new, strict=True)
        if math.isfinite(old) and math.isfinite(fresh)
    ]
