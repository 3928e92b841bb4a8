"""Tiny native models for tests, trained for a few steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F

from engine.core.chat import ChatMessage
from engine.models.card import Lineage, ModelCard
from engine.models.chatml import windows
from engine.models.native_format import save_model
from engine.models.transformer import ModelConfig, Transformer

torch.set_num_threads(1)

TINY = ModelConfig(dim=32, layers=2, heads=2, kv_heads=2, head_dim=16, ffn=64, context=256, max_positions=512)


def talk(question: str, answer: str) -> list[ChatMessage]:
    """A conversation of one question and its answer."""
    return [ChatMessage(role="user", content=question), ChatMessage(role="assistant", content=answer)]


def tiny_model(
    talks: Sequence[list[ChatMessage]], *, steps: int = 30, seed: int = 0, config: ModelConfig = TINY
) -> Transformer:
    """A model trained on every byte of `talks` for `steps` steps of AdamW."""
    model = Transformer(config)
    model.initialise(seed)
    rows = [torch.tensor([w.ids]) for messages in talks for w in windows(messages, config.context)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(steps):
        ids = rows[step % len(rows)]
        loss = F.cross_entropy(model(ids[:, :-1]).transpose(1, 2), ids[:, 1:])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model.eval()


def write_tiny(
    folder: Path,
    talks: Sequence[list[ChatMessage]],
    *,
    steps: int = 30,
    seed: int = 0,
    config: ModelConfig = TINY,
    lineage: Lineage | None = None,
    base: str = "",
    created_at: float = 0.0,
) -> ModelCard:
    """`tiny_model` saved in a folder of its name."""
    model = tiny_model(talks, steps=steps, seed=seed, config=config)
    card = ModelCard(
        name=folder.name,
        mode="native" if base else "scratch",
        base=base,
        created_at=created_at,
        parameters=model.parameters_count(),
        context=config.context,
        lineage=lineage or Lineage(),
    )
    return save_model(folder, model, card)
