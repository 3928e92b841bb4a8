"""The settings that an adapter was made with, read from its adapter_config.json, and what a run that continues it asks.

The command line reads it, so it imports nothing heavy.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.core.errors import BadInput, UsageProblem
from engine.core.filenames import shell_command
from engine.core.i18n import _
from engine.models.base_models import adapter_source
from engine.models.card import ADAPTER_CONFIG
from engine.runs.kinds import TrainParams


@dataclass(frozen=True)
class AdapterSettings:
    """Settings of an adapter that training it further cannot change: they are the shape and scale of its matrices."""

    rank: int
    alpha: float
    dropout: float
    targets: tuple[str, ...]
    """Names of the adapted modules without their layers, sorted; one pattern where the file has a pattern."""
    rslora: bool


def read_adapter_settings(folder: Path) -> AdapterSettings:
    """The settings of the adapter in `folder`; what the file leaves out is PEFT's default. Raises BadInput."""
    file = folder / ADAPTER_CONFIG
    try:
        config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        targets = config.get("target_modules") or []
        return AdapterSettings(
            rank=int(config.get("r", 8)),
            alpha=float(config.get("lora_alpha", 8)),
            dropout=float(config.get("lora_dropout", 0.0)),
            targets=(targets,) if isinstance(targets, str) else _module_names(targets),
            rslora=bool(config.get("use_rslora", False)),
        )
    except (OSError, ValueError, TypeError, AttributeError) as problem:
        raise BadInput(_("the adapter's configuration is broken"), path=file) from problem


def check_continued(folder: Path, params: TrainParams) -> None:
    """Raises UsageProblem when `params` asks for other settings than those of the adapter in `folder`, which the run
    would continue, and BadInput for a broken adapter."""
    old = read_adapter_settings(folder)
    for flag, asked, have in (
        ("--rank", params.rank, old.rank),
        ("--alpha", params.alpha, old.alpha),
        ("--target-modules", _module_names(params.target_modules) or None, old.targets),
        ("--rslora", params.rslora or None, old.rslora),
    ):
        if asked is not None and asked != have:
            raise UsageProblem(
                _(
                    "{flag} does not fit: {name}, which this run would continue, was made with {settings}; "
                    "continue it without the flag, or make a new adapter on its base"
                ).format(flag=flag, name=folder.name, settings=_flags(old)),
                hint=shell_command("h2q-tui", "train", "--mode", "lora", "--model", adapter_source(folder)),
            )


def _module_names(names: Iterable[object]) -> tuple[str, ...]:
    """The last parts of module names: PEFT stores `model.layers.0.mlp.up_proj` of every layer where none were named."""
    return tuple(sorted({str(name).rpartition(".")[2] for name in names}))


def _flags(settings: AdapterSettings) -> str:
    """The settings as the flags that make an adapter like it."""
    scale = " --rslora" if settings.rslora else ""
    return f"--rank {settings.rank} --alpha {settings.alpha:g}{scale} --target-modules {','.join(settings.targets)}"
