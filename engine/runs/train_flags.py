"""Which flags of `train` have no use in a mode, so that none is ignored without a word."""

from __future__ import annotations

from engine.runs.kinds import TrainMode, TrainParams

_NEUTRAL = TrainParams()
_LORA_ONLY = ("rank", "alpha", "target_modules", "rslora", "packing", "four_bit", "training_dir")
_FLAGS = {"packing": "--no-packing", "four_bit": "--no-4bit"}
_UNUSED: dict[TrainMode, tuple[str, ...]] = {
    TrainMode.SCRATCH: (*_LORA_ONLY, "model"),
    TrainMode.NATIVE: _LORA_ONLY,
    TrainMode.LORA: ("recipe",),
    TrainMode.MESSAGE: (
        *_LORA_ONLY,
        "recipe",
        "data",
        "output",
        "epochs",
        "batch_size",
        "accumulation",
        "max_steps",
        "lr",
        "clip",
        "time_budget_s",
        "resume",
    ),
    TrainMode.AUTO: (),
}


def unused_flags(params: TrainParams, mode: TrainMode) -> list[str]:
    """The flags that `params` sets and `mode` does not read; a parameter with its default counts as not set."""
    return [
        _FLAGS.get(name, f"--{name.replace('_', '-')}")
        for name in _UNUSED[mode]
        if getattr(params, name) != getattr(_NEUTRAL, name)
    ]
