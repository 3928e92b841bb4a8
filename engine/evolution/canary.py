"""A canary over cycles: fixed texts and prompts that no training sees, and the bounds beyond which evolution stops.

Models that learn from what models wrote lose the tails of the language first, then collapse (Shumailov et al.
2024, Nature 631). A verdict compares with the champion of the day, so small losses could add up unseen; the
canary compares with the model that evolution began with.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import torch

from engine.errors import RunFailed
from engine.evolution import quality
from engine.i18n import _
from engine.inference.protocol import ChatMessage, Sampling
from engine.inference.torch_backend import NativeModel
from engine.paths import shipped
from engine.validation.scores import Piece, nll_sums

SAMPLING = Sampling(temperature=0.8, top_p=0.95, max_bytes=160, seed=0)
PERPLEXITY_UP = 1.3
"""Times the perplexity of the fixed texts may rise since evolution began. Learning a person's own matters costs
some of it (1.7 % in a short cycle on the sample), and the verdict bounds each step; a collapse is far beyond."""
DISTINCT_DOWN, ENTROPY_DOWN = 0.6, 0.75
"""Shares of the first model's diversity that must stay."""
REPETITION_UP = 0.25
"""How much more of the generated text may repeat itself."""


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


def load_set() -> CanarySet:
    """The set that ships."""
    found = json.loads((shipped("data") / "canary" / "canary.json").read_text(encoding="utf-8"))
    return CanarySet(tuple(found["prompts"]), tuple(found["texts"]))


def measure(model: NativeModel, canaries: CanarySet, *, step: Callable[[], None] | None = None) -> Canary:
    """Reads the texts and answers the prompts, with a fixed seed. `step()` may raise to stop."""
    pieces = [Piece(list(text.encode()), [True] * len(text.encode())) for text in canaries.texts]
    total = sum(nll_sums(model.model, pieces))
    scored = sum(len(piece.ids) - 1 for piece in pieces)
    texts: list[str] = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for number, prompt in enumerate(canaries.prompts):
            sampling = msgspec.structs.replace(SAMPLING, seed=number)
            try:
                texts.append(model.answer([ChatMessage(role="user", content=prompt)], sampling)[0])
            except RunFailed:
                texts.append("")
            if step is not None:
                step()
    finally:
        torch.set_num_threads(threads)
    return Canary(
        perplexity=math.exp(total / scored) if math.isfinite(total) and total / scored < 50 else None,
        distinct_2=quality.distinct(texts, 2),
        repetition=sum(map(quality.repetition, texts)) / max(1, len(texts)),
        entropy=quality.entropy(texts),
        characters=sum(map(len, texts)),
    )


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
    if now.entropy < ENTROPY_DOWN * first.entropy:
        reasons.append(
            _("its text is poorer ({now} bits per character, {first} at first)").format(
                now=f"{now.entropy:.2f}", first=f"{first.entropy:.2f}"
            )
        )
    if now.repetition > first.repetition + REPETITION_UP:
        reasons.append(
            _("it repeats itself ({now} % of its text, {first} % at first)").format(
                now=round(100 * now.repetition), first=round(100 * first.repetition)
            )
        )
    return reasons
