"""Which flags of `train` have no use in a mode, so that none is ignored without a word."""

from __future__ import annotations

from engine.core.errors import UsageProblem
from engine.core.i18n import _, n_
from engine.machine.cpu import allowed_cores
from engine.runs.kinds import TrainMode, TrainParams
from engine.runs.torchrun import processes_here

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
        "nproc",
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


def check_processes(nproc: int, mode: TrainMode) -> None:
    """Raises UsageProblem for more processes than this machine has cores, or a mode that trains nothing."""
    if nproc == 1:
        return
    if mode is TrainMode.MESSAGE:
        raise UsageProblem(
            _("--nproc {nproc} has nothing to compute in the mode message, which trains nothing").format(
                nproc=nproc
            ),
            hint="h2q-tui train --mode message --nproc 1",
        )
    cores, here = len(allowed_cores()), processes_here(nproc)
    if here > cores:
        raise UsageProblem(
            n_(
                "--nproc {nproc} is more than the {n} core of this machine",
                "--nproc {nproc} is more than the {n} cores of this machine",
                cores,
            ).format(nproc=here, n=cores),
            hint=f"h2q-tui train --nproc {cores}",
        )
