"""The processes of a training, as the run's parameters and its environment say."""

from __future__ import annotations

import torch

from engine.core.errors import UsageProblem
from engine.core.i18n import _
from engine.models.transformer import Transformer
from engine.runs.rundir import RunDir
from engine.runs.torchrun import processes_here, started_by_torchrun
from engine.training.adapter_source import LoraSetup
from engine.training.devices import Device
from engine.training.distributed.processes import Processes, SpawnedProcesses, TorchrunProcesses
from engine.training.distributed.ranks import Ranks
from engine.training.distributed.setup import RankSetup
from engine.training.objective import TrainableModel


def open_ranks(
    run: RunDir, nproc: int, device: Device, model: TrainableModel, lora: LoraSetup | None
) -> Ranks:
    """`nproc` processes that compute on devices like `device`; they start with the first step.

    Raises UsageProblem for a device that several processes cannot use.
    """
    gpus = torch.cuda.device_count() if device.name == "cuda" else 0
    check_device(device.name, gpus, processes_here(nproc))
    processes: Processes = TorchrunProcesses() if started_by_torchrun() else SpawnedProcesses(run.path, nproc)
    setup = RankSetup(
        threads=device.threads,
        bf16=device.bf16,
        fused=device.fused,
        model=model.config if isinstance(model, Transformer) else None,
        lora=lora,
    )
    return Ranks(processes, setup)


def check_device(name: str, gpus: int, here: int) -> None:
    """Raises UsageProblem when `here` processes of this machine cannot compute on the device `name`, of which there
    are `gpus`."""
    if name == "cpu" or (name == "cuda" and here <= gpus):
        return
    if name == "cuda":
        raise UsageProblem(
            _("--nproc {nproc} needs a GPU for each process, and this machine has {gpus}").format(
                nproc=here, gpus=gpus
            ),
            hint=f"h2q-tui train --nproc {max(1, gpus)}",
        )
    raise UsageProblem(
        _("--nproc {nproc} works on processors and on CUDA, not on {device}").format(nproc=here, device=name),
        hint="h2q-tui train --nproc 1",
    )
