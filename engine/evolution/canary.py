"""Detects model collapse over cycles on fixed texts and prompts that no training sees.

Models trained on generated text lose the tails of the distribution first, then collapse (Shumailov et al. 2024,
Nature 631). A verdict compares with the current champion, so that small losses could add up unnoticed; the canary
compares with the model that evolution started from.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from engine.core.chat import ChatMessage
from engine.core.errors import RunFailed
from engine.core.i18n import _
from engine.core.paths import shipped
from engine.evolution import text_metrics
from engine.inference.language_model import LanguageModel, Sampling, generate_text

SAMPLING = Sampling(temperature=0.8, top_p=0.95, max_bytes=160, seed=0)
# Chosen from `python -m bench evolution.canary` and from cycles on the shipped sample. Of three cycles (one from the
# demo's model, two from its successor, about 280 steps each) the first two were promoted; the perplexity rose 1.01, 1.09
# and 1.20 times and overconfidence by 0.13, 0.27 and 0.42. Training the demo's model on its own text at temperature 0.3
# raised them 1.11, 1.23, 1.40, 1.57 and 1.79 times and by 0.23, 0.41, 0.61, 0.78 and 0.96 in five generations: detected
# in the third. In the full calibration the perplexity rose a little over 1.25 times in a cycle that cost unseen
# conversations 3 %, and over 1.42 times in one that cost them 12 %. Milder damage is left to the verdict.
MAX_PERPLEXITY_RATIO = 1.35
"""Upper limit of the perplexity of the fixed texts, relative to the first model."""
MAX_OVERCONFIDENCE_RISE = 0.6
"""Upper limit of the rise in overconfidence, nats per byte."""
MIN_DISTINCT_RATIO = 0.6
"""Lower limit of distinct-2, relative to the first model. Eight answers vary: healthy models kept 0.84 to 1.05 of it, and
so did most that collapse slowly, so this and the next bound only detect loops. The entropy of the characters did not
separate them (4.8 to 5.5 bits healthy, 4.8 to 5.1 collapsing) and is only recorded."""
MAX_REPETITION_RISE = 0.25
"""Upper limit of the rise in repetition; healthy models moved by 0.02."""


@dataclass(frozen=True)
class CanarySet:
    """The fixed prompts and texts."""

    prompts: tuple[str, ...]
    texts: tuple[str, ...]


class Canary(msgspec.Struct, frozen=True, kw_only=True):
    """Measurements of one model on the set."""

    perplexity: float | None
    """Perplexity per byte of the fixed texts; None where the model gives no finite value."""
    distinct_2: float
    """Distinct character bigrams over all, in the generated text."""
    repetition: float
    """Mean share of repeated 4-grams in an answer."""
    entropy: float
    """Bits per character of the generated text."""
    characters: int
    """Length of the generated text."""
    overconfidence: float | None = None
    """NLL of the fixed texts minus the mean entropy of the predictions, nats per byte. None where the model gives no
    finite value, and in old records."""


def load_set() -> CanarySet:
    """The shipped set."""
    data = json.loads((shipped("data") / "canary" / "canary.json").read_text(encoding="utf-8"))
    return CanarySet(tuple(data["prompts"]), tuple(data["texts"]))


def measure_canary(
    model: LanguageModel, canaries: CanarySet, *, step: Callable[[], None] | None = None
) -> Canary:
    """Scores the texts and answers the prompts with fixed seeds. `step()` follows each answer and may raise to stop."""
    nll, expected = calibration(model, canaries.texts)
    texts: list[str] = []
    with model.reproducible():
        for number, prompt in enumerate(canaries.prompts):
            sampling = msgspec.structs.replace(SAMPLING, seed=number)
            try:
                texts.append(generate_text(model, [ChatMessage(role="user", content=prompt)], sampling)[0])
            except RunFailed:
                texts.append("")
            if step is not None:
                step()
    return Canary(
        perplexity=math.exp(nll) if math.isfinite(nll) and nll < 50 else None,
        overconfidence=nll - expected if math.isfinite(nll - expected) else None,
        distinct_2=text_metrics.distinct_n(texts, 2),
        repetition=sum(map(text_metrics.repetition, texts)) / max(1, len(texts)),
        entropy=text_metrics.entropy(texts),
        characters=sum(map(len, texts)),
    )


def calibration(model: LanguageModel, texts: Sequence[str]) -> tuple[float, float]:
    """(NLL, expected NLL) over all texts in nats per byte; the expected NLL is the entropy of the predictions."""
    parts = [model.nll_and_entropy(text) for text in texts]
    size = sum(part.bytes for part in parts)
    return sum(part.nats for part in parts) / size, sum(part.entropy for part in parts) / size


def collapse_reasons(now: Canary, first: Canary) -> list[str]:
    """Why a model counts as collapsing, compared with the one that evolution started from; [] when it does not."""
    reasons = []
    if now.perplexity is None:
        reasons.append(_("no finite likelihood for the fixed texts"))
    elif first.perplexity is not None and now.perplexity > MAX_PERPLEXITY_RATIO * first.perplexity:
        reasons.append(
            _("higher perplexity on the fixed texts ({now}, initially {first})").format(
                now=f"{now.perplexity:.2f}", first=f"{first.perplexity:.2f}"
            )
        )
    if now.distinct_2 < MIN_DISTINCT_RATIO * first.distinct_2:
        reasons.append(
            _("lower diversity ({now} % distinct character bigrams, initially {first} %)").format(
                now=round(100 * now.distinct_2), first=round(100 * first.distinct_2)
            )
        )
    overconfidence, initial = now.overconfidence, first.overconfidence
    if (
        overconfidence is not None
        and initial is not None
        and overconfidence > initial + MAX_OVERCONFIDENCE_RISE
    ):
        reasons.append(
            _(
                "overconfidence (the NLL of the fixed texts is {now} nats per byte above the expected NLL,"
                " initially {first})"
            ).format(now=f"{overconfidence:.2f}", first=f"{initial:.2f}")
        )
    if now.repetition > first.repetition + MAX_REPETITION_RISE:
        reasons.append(
            _("more repetition ({now} % of the text, initially {first} %)").format(
                now=round(100 * now.repetition), first=round(100 * first.repetition)
            )
        )
    return reasons
