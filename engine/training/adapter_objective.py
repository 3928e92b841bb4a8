"""The objective of the `lora` phase: losses of answers, and the distance from the base where nothing is answered."""

from __future__ import annotations

from torch import Tensor

from engine.models.adapters import AdapterModel
from engine.training.batches import MicroBatch
from engine.training.objective import Objective, TrainableModel


class LoraObjective(Objective):
    """The weighted sum of the losses of an adapter on its base, and its divergence from the base."""

    def minimised(self, model: TrainableModel, part: MicroBatch) -> tuple[Tensor, Tensor | float]:
        """Adds the divergence of the adapter from its base where nothing is answered: the adapter is to change answers
        alone (docs/adr/0008)."""
        if part.hold_weights is None:
            return self.losses(model, part), 0.0
        assert isinstance(model, AdapterModel)
        device = self.device.name
        positions = None if part.positions is None else part.positions.to(device)
        weights = part.hold_weights.to(device)
        losses, drift = model.losses_and_drift(
            part.ids.to(device),
            part.targets.to(device),
            (part.weights != 0).to(device),
            weights != 0,
            positions,
            joined=part.joined > 0,
        )
        return losses, (drift * weights).sum()

    def losses(self, model: TrainableModel, part: MicroBatch) -> Tensor:
        assert isinstance(model, AdapterModel)
        device = self.device.name
        positions = None if part.positions is None else part.positions.to(device)
        mask = (part.weights != 0) | (part.report_weights != 0)
        return model.losses(
            part.ids.to(device), part.targets.to(device), mask.to(device), positions, joined=part.joined > 0
        )
