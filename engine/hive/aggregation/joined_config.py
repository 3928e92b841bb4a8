"""`adapter_config.json` of a joined adapter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.hive.lora_file import LoraConfig, LoraFile


def joined_config(adapters: Sequence[LoraFile], modules: Sequence[str], rank: int) -> dict[str, Any]:
    """The configuration of an adapter on `modules` whose update is `b @ a` with `rank` columns and rows: scale 1.

    The layers are named as the adapters name them where all agree, else one by one.
    """
    configs = [adapter.config for adapter in adapters]
    first = configs[0]
    agree = all(_places(one) == _places(first) for one in configs) and all(
        list(adapter.modules) == list(modules) for adapter in adapters
    )
    named = first.target_modules if agree and first.target_modules else list(modules)
    return {
        "peft_type": "LORA",
        "task_type": next((one.task_type for one in configs if one.task_type), "CAUSAL_LM"),
        "base_model_name_or_path": next(
            (one.base_model_name_or_path for one in configs if one.base_model_name_or_path), None
        ),
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "use_rslora": False,
        "target_modules": sorted(named) if isinstance(named, list) else named,
        "exclude_modules": first.exclude_modules if agree else None,
        "layers_to_transform": first.layers_to_transform if agree else None,
        "layers_pattern": first.layers_pattern if agree else None,
        "rank_pattern": {},
        "alpha_pattern": {},
        "fan_in_fan_out": first.fan_in_fan_out,
        "bias": "none",
        "modules_to_save": None,
        "init_lora_weights": True,
        "inference_mode": True,
    }


def _places(config: LoraConfig) -> tuple[Any, ...]:
    """What says where a configuration puts its matrices; the order of names does not."""
    targets = config.target_modules
    return (
        tuple(sorted(targets)) if isinstance(targets, list) else targets,
        config.exclude_modules,
        config.layers_to_transform,
        config.layers_pattern,
    )
