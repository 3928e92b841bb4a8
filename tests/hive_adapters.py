"""Tiny adapters in a workspace, without torch: what the tests of the hive share and fetch."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from engine.core.files import write_bytes
from engine.core.paths import Workspace
from engine.models.card import ADAPTER_CONFIG, ADAPTER_WEIGHTS, CARD_FILE, Lineage, ModelCard, encode_card

FINGERPRINT = "ab" * 32
SHAPES = {"q_proj": (32, 48), "o_proj": (48, 32)}
"""(out, in) of the adapted matrices; those of `tests.hf_models.write_hf`."""


def add_adapter(
    ws: Workspace,
    name: str,
    *,
    seed: int = 0,
    rank: int = 2,
    base_path: str = "/home/somebody/models/tiny.gguf",
    base_sha256: str = FINGERPRINT,
    conversations: tuple[str, ...] = ("c1", "c2", "c3"),
    metadata: dict[str, str] | None = None,
    scale: float = 1.0,
) -> Path:
    """A LoRA adapter with random matrices and a card."""
    random = np.random.default_rng(seed)
    tensors = {}
    for module, (out, into) in SHAPES.items():
        path = f"base_model.model.model.layers.0.self_attn.{module}"
        tensors[f"{path}.lora_A.weight"] = random.normal(size=(rank, into)).astype("float32") * 0.1
        tensors[f"{path}.lora_B.weight"] = random.normal(size=(out, rank)).astype("float32") * scale
    weights = save(tensors, metadata={"format": "pt"} if metadata is None else metadata)
    folder = ws.adapters / name
    write_bytes(folder / ADAPTER_WEIGHTS, weights)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_path,
        "r": rank,
        "lora_alpha": 2 * rank,
        "target_modules": list(SHAPES),
    }
    write_bytes(folder / ADAPTER_CONFIG, json.dumps(config).encode())
    card = ModelCard(
        name=name,
        mode="lora",
        base="tiny",
        base_path=base_path,
        base_sha256=base_sha256,
        created_at=1.0 + seed,
        parameters=1,
        context=64,
        weights_sha256=sha256(weights).hexdigest(),
        lineage=Lineage(conversations=list(conversations), clusters=[f"k-{one}" for one in conversations]),
    )
    write_bytes(folder / CARD_FILE, encode_card(card))
    return folder
