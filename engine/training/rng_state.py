"""Random states of every library that a step may use, as tensors and plain values."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

CPU, DEVICE, NUMPY = "torch", "device", "numpy"


@dataclass(frozen=True)
class RngStates:
    """Random states of torch (CPU and accelerator), Python and NumPy at one moment."""

    tensors: dict[str, Tensor]
    """`CPU`, `NUMPY` (its 624 words as int64), and `DEVICE` where torch uses an accelerator."""
    python: list[Any]
    """`random.getstate()` in JSON types."""
    numpy: dict[str, Any]
    """Name of NumPy's generator, and its state except the words."""

    @classmethod
    def capture(cls) -> RngStates:
        name, keys, *rest = np.random.get_state(legacy=True)
        tensors = {CPU: torch.get_rng_state(), NUMPY: torch.from_numpy(np.asarray(keys).astype(np.int64))}
        if torch.accelerator.is_available():
            tensors[DEVICE] = torch.get_device_module().get_rng_state().cpu()
        version, numbers, gauss = random.getstate()
        return cls(tensors, [version, list(numbers), gauss], {"name": name, "rest": rest})

    @staticmethod
    def seed_all(seed: int) -> None:
        """Seeds every library: two runs of one recipe draw the same numbers."""
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)

    def restore(self) -> None:
        """Restores them. Call it right before the first step: measurements draw numbers too. Raises
        ValueError."""
        torch.set_rng_state(self.tensors[CPU])
        if DEVICE in self.tensors and torch.accelerator.is_available():
            torch.get_device_module().set_rng_state(self.tensors[DEVICE])
        version, numbers, gauss = self.python
        random.setstate((version, tuple(numbers), gauss))
        words = self.tensors[NUMPY].numpy().astype(np.uint32)
        np.random.set_state((self.numpy["name"], words, *self.numpy["rest"]))
