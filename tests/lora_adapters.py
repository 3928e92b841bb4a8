"""LoRA adapters of any shape, written with the safetensors library, and their updates as plain matrices."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file

Matrix = NDArray[np.float64]
SHAPES = {
    "model.layers.0.self_attn.q_proj": (24, 20),
    "model.layers.0.mlp.down_proj": (20, 48),
    "model.layers.1.self_attn.q_proj": (24, 20),
}


def factors(
    seed: int, rank: int, shapes: Mapping[str, tuple[int, int]] = SHAPES, *, a_seed: int | None = None
) -> dict[str, tuple[Matrix, Matrix]]:
    """Random (b, a) of each module; `a_seed`: a is drawn from this seed."""
    draw = np.random.default_rng(seed)
    draw_a = draw if a_seed is None else np.random.default_rng(a_seed)
    return {
        name: (draw.standard_normal((rows, rank)) / 8, draw_a.standard_normal((rank, columns)) / 4)
        for name, (rows, columns) in shapes.items()
    }


def write_adapter(
    folder: Path,
    made: Mapping[str, tuple[Matrix, Matrix]],
    *,
    alpha: float | None = None,
    dtype: torch.dtype = torch.float32,
    **config: Any,
) -> Path:
    """A PEFT folder; alpha is twice the rank unless given. More of its configuration by name."""
    folder.mkdir(parents=True, exist_ok=True)
    rank = len(next(iter(made.values()))[1])
    tensors = {}
    for name, (b, a) in made.items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = torch.from_numpy(a).to(dtype).contiguous()
        tensors[f"base_model.model.{name}.lora_B.weight"] = torch.from_numpy(b).to(dtype).contiguous()
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "tiny",
        "r": rank,
        "lora_alpha": 2 * rank if alpha is None else alpha,
        "target_modules": sorted({name.rpartition(".")[2] for name in made}),
        **config,
    }
    (folder / "adapter_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def updates(folder: Path) -> dict[str, Matrix]:
    """`scale * b @ a` of each module as read by the safetensors library, without patterns of rank or alpha."""
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    scale = config["lora_alpha"] / (config["r"] ** (0.5 if config.get("use_rslora") else 1))
    found: dict[str, dict[str, Matrix]] = {}
    with safe_open(folder / "adapter_model.safetensors", "pt") as tensors:
        for key in tensors.keys():  # noqa: SIM118  not a dict
            name, _dot, part = key.removeprefix("base_model.model.").partition(".lora_")
            found.setdefault(name, {})[part[0]] = tensors.get_tensor(key).double().numpy()
    return {name: scale * parts["B"] @ parts["A"] for name, parts in found.items()}


def relative(one: Mapping[str, Matrix], other: Mapping[str, Matrix]) -> float:
    """Relative Frobenius distance over all modules."""
    gap = sum(float(((one[name] - other[name]) ** 2).sum()) for name in other)
    return float(np.sqrt(gap / sum(float((value**2).sum()) for value in other.values())))
