"""What a training job minimises, and its gradients: the same in every process that computes a part of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.models.transformer import Transformer
from engine.training.batches import MicroBatch
from engine.training.devices import Device

if TYPE_CHECKING:
    from engine.models.adapters import AdapterModel

TrainableModel: TypeAlias = "Transformer | AdapterModel"
"""The trained model: a whole model, or an adapter on a frozen one."""


class Objective:
    """The weighted sum of the losses of a native model."""

    def __init__(self, device: Device) -> None:
        self.device = device

    def accumulate(
        self, model: TrainableModel, parts: Sequence[MicroBatch], *, seed: int | None = None
    ) -> float:
        """Adds the gradients of `parts` to the parameters; returns their reported loss in nats per byte.

        `seed` is that of dropout; None: a job without dropout.
        """
        if seed is not None:
            torch.manual_seed(seed)
        reported = torch.zeros((), device=self.device.name)
        for part in parts:
            losses, more = self.minimised(model, part)
            torch.autograd.backward((losses * part.weights.to(losses.device)).sum() + more)
            reported += (losses.detach() * part.report_weights.to(losses.device)).sum()
        return float(reported)

    def loss_of(self, model: TrainableModel, parts: Sequence[MicroBatch]) -> float:
        """The reported loss of `parts` under the current weights. Call it without gradients."""
        return sum(
            float((self.losses(model, part) * part.report_weights.to(self.device.name)).sum())
            for part in parts
        )

    def minimised(self, model: TrainableModel, part: MicroBatch) -> tuple[Tensor, Tensor | float]:
        """(loss of each prediction, `(windows, length)`; what is minimised besides their weighted sum)."""
        return self.losses(model, part), 0.0

    def losses(self, model: TrainableModel, part: MicroBatch) -> Tensor:
        """Loss of each prediction, `(windows, length)`."""
        with self.device.autocast():
            logits = model(part.ids.to(self.device.name))
        flat = F.cross_entropy(
            logits.float().flatten(0, 1), part.targets.to(self.device.name).flatten(), reduction="none"
        )
        return flat.view(part.targets.shape)
