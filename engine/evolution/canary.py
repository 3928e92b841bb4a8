"""A canary over cycles: fixed texts and prompts that no training sees, and the bounds beyond which evolution stops.

Models that learn from what models wrote lose the tails of the language first, then collapse (Shumailov et al.
2024, Nature 631). A verdict compares with the champion of the day, so small losses could add up unseen; the
canary compares with the model that evolution began with.
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
from engine.inference.backends.native import NativeModel
from engine.inference.language_model import Sampling, generate_text
from engine.inference.sampling import single_threaded

SAMPLING = Sampling(temperature=0.8, top_p=0.95, max_bytes=160, seed=0)
# Chosen from what `python -m bench evolution.canary` and cycles on the shipped sample spread over. Of three cycles (one
# from the demo's model, two from its successor, about 280 steps each) the verdict was for the first two; they came to
# 1.01, 1.09 and 1.20 times the perplexity and 0.13, 0.27 and 0.42 more overconfidence. Training the demo's model on its
# own text at temperature 0.3 came to 1.11, 1.23, 1.40, 1.57 and 1.79 times and 0.23, 0.41, 0.61, 0.78 and 0.96 more in
# five generations, so it is seen in the third. The calibration in full came to a little over 1.25 in a cycle that cost
# unseen conversations 3 %, and to over 1.42 in one that cost them 12 %. What is milder is left to the verdict.
PERPLEXITY_UP = 1.35
"""Times the perplexity of the fixed texts may rise since evolution began."""
OVERCONFIDENT_UP = 0.6
"""Nats per byte by which overconfidence may rise."""
DISTINCT_DOWN = 0.6
"""Share of the first model's different pairs of characters that must stay. Eight answers vary: healthy models kept 0.84
to 1.05 of it, and so did most that collapse slowly, so this and the next bound are for loops alone. The entropy of
the characters did not separate (4.8 to 5.5 bits healthy, 4.8 to 5.1 collapsing) and is only recorded."""
REPETITION_UP = 0.25
"""How much more of the generated text may repeat itself; healthy models moved by 0.02."""


@dataclass(frozen=True)
class CanarySet:
    """What is asked and read, always the same."""

    prompts: tuple[str, ...]
    texts: tuple[str, ...]


class Canary(msgspec.Struct, frozen=True, kw_only=True):
    """One model against the set."""

    perplexity: float | None
    """exp of the nats per byte of the fixed texts; None when the model gives no number."""
    distinct_2: float
    """Different pairs of characters over all, in what it generates."""
    repetition: float
    """Share of 4-grams that repeat within an answer."""
    entropy: float
    """Bits per character of what it generates."""
    characters: int
    """How much it generated."""
    overconfidence: float | None = None
    """Nats per byte by which the fixed texts surprise it more than it expects: its NLL of them less the mean
    entropy of its predictions. None when it gives no number, and in records from before it was measured."""


def load_set() -> CanarySet:
    """The set that ships."""
    found = json.loads((shipped("data") / "canary" / "canary.json").read_text(encoding="utf-8"))
    return CanarySet(tuple(found["prompts"]), tuple(found["texts"]))


def measure(model: NativeModel, canaries: CanarySet, *, step: Callable[[], None] | None = None) -> Canary:
    """Reads the texts and answers the prompts, with a fixed seed. `step()` may raise to stop."""
    nll, expected = surprise(model, canaries.texts)
    texts: list[str] = []
    with single_threaded():
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
        distinct_2=text_metrics.distinct(texts, 2),
        repetition=sum(map(text_metrics.repetition, texts)) / max(1, len(texts)),
        entropy=text_metrics.entropy(texts),
        characters=sum(map(len, texts)),
    )


def surprise(model: NativeModel, texts: Sequence[str]) -> tuple[float, float]:
    """(NLL, expected NLL) over all texts in nats per byte; the expected NLL is the entropy of the predictions."""
    parts = [model.nll_and_entropy(text) for text in texts]
    size = sum(part[2] for part in parts)
    return sum(part[0] for part in parts) / size, sum(part[1] for part in parts) / size


def collapse(now: Canary, first: Canary) -> list[str]:
    """Why a model counts as collapsing against the one that evolution began with, each a sentence; [] when not."""
    reasons = []
    if now.perplexity is None:
        reasons.append(_("it gives no likelihood for the fixed texts"))
    elif first.perplexity is not None and now.perplexity > PERPLEXITY_UP * first.perplexity:
        reasons.append(
            _("the fixed texts surprise it more (perplexity {now}, {first} at first)").format(
                now=f"{now.perplexity:.2f}", first=f"{first.perplexity:.2f}"
            )
        )
    if now.distinct_2 < DISTINCT_DOWN * first.distinct_2:
        reasons.append(
            _(
                "it says less that is different ({now} % distinct pairs of characters, {first} % at first)"
            ).format(now=round(100 * now.distinct_2), first=round(100 * first.distinct_2))
        )
    surer, surer_first = now.overconfidence, first.overconfidence
    if surer is not None and surer_first is not None and surer > surer_first + OVERCONFIDENT_UP:
        reasons.append(
            _(
                "it is surer of what it says than it should be (the fixed texts surprise it by {now} nats per byte"
                " more than it expects, {first} at first)"
            ).format(now=f"{surer:.2f}", first=f"{surer_first:.2f}")
        )
    if now.repetition > first.repetition + REPETITION_UP:
        reasons.append(
            _("it repeats itself ({now} % of its text, {first} % at first)").format(
                now=round(100 * now.repetition), first=round(100 * first.repetition)
            )
        )
    return reasons
