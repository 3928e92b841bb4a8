"""Tiny native models for tests: one that knows a few answers, shared by all tests, and others of a few steps."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch
import torch.nn.functional as F

from engine.core.chat import ChatMessage
from engine.core.files import write_bytes
from engine.models.card import CARD_FILE, Lineage, ModelCard, encode_card, read_card
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


KNOWING_STEPS = 250
KNOWN = (
    ("数到三", "一二三。"),
    ("你叫什么？", "我是小Q。"),
    ("Two and two?", "Four."),
    ("What is your name?", "Tom."),
    ("x", "\x1b[2J\x07ok"),
)
"""The questions and answers that the model of the fixture `knowing` has memorised."""


def write_knowing(folder: Path) -> ModelCard:
    """A model that gives the answers of `KNOWN`."""
    return write_tiny(folder, [talk(question, answer) for question, answer in KNOWN], steps=KNOWING_STEPS)


def copy_model(source: Path, folder: Path, **changes: Any) -> ModelCard:
    """A copy of a model under another name that may be changed; `changes` are fields of its card."""
    folder.mkdir(parents=True)
    for file in source.iterdir():
        shutil.copyfile(file, folder / file.name)
    card = msgspec.structs.replace(read_card(source), name=folder.name, **changes)
    write_bytes(folder / CARD_FILE, encode_card(card))
    return card
