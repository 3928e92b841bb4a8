"""Dropout of a layer's input whose mask is not kept: the backward pass computes the same random numbers again."""

from __future__ import annotations

import weakref

import torch
from torch import Tensor

from engine.models.kernels.fused import kernels

LEVELS = 256
"""Dropout compares random bytes, so its rate is a multiple of 1 / 256."""
_FORMATS = (torch.float32, torch.bfloat16)


class DropMask:
    """Which elements of tensors of one shape are dropped; drawn from torch's generator."""

    def __init__(self, x: Tensor, rate: float, *, fused: bool) -> None:
        self.level = min(LEVELS - 1, round(rate * LEVELS))
        self.kept = 1 - self.level / LEVELS
        """Share of the elements that is kept. They are not scaled."""
        self._random: Tensor | None = None
        self._seed = 0
        if fused and x.device.type == "cpu" and x.dtype in _FORMATS:
            self._seed = int(torch.randint(2**31, ()))
        else:
            self._random = _random_bytes(x)

    def drop(self, x: Tensor) -> Tensor:
        """`x` with the dropped elements set to 0."""
        if self._random is not None:
            return x.masked_fill(self._random.view(x.shape) < self.level, 0)
        source = x.contiguous()
        out = torch.empty_like(source)
        kernels().call("drop", x.dtype, source, out, x.numel(), self._seed, self.level)
        return out

    def add_kept(self, into: Tensor, change: Tensor) -> None:
        """Adds to `into` the elements of `change` that are kept; both contiguous and of one format."""
        if self._random is not None:
            into.add_(self.drop(change))
            return
        kernels().call("drop_add", into.dtype, change, into, into.numel(), self._seed, self.level)


class SharedDropout:
    """Drops elements of an input once for all layers that it enters: q, k and v, or gate and up."""

    def __init__(self, *, fused: bool = False) -> None:
        """`fused`: with the kernels of `engine.models.kernels.build`, on a CPU."""
        self.fused = fused
        self._last: tuple[weakref.ref[Tensor], float, Tensor, DropMask] | None = None

    def __call__(self, x: Tensor, rate: float) -> tuple[Tensor, DropMask]:
        """`x` with about `rate` of its elements dropped, without a gradient, and the mask."""
        if self._last is not None and self._last[0]() is x and self._last[1] == rate:
            return self._last[2:]
        mask = DropMask(x, rate, fused=self.fused)
        with torch.no_grad():
            dropped = mask.drop(x)
        self._last = weakref.ref(x), rate, dropped, mask
        return dropped, mask

    def forget(self) -> None:
        """Frees the last input."""
        self._last = None

    def __deepcopy__(self, memo: dict[int, object]) -> SharedDropout:
        made = SharedDropout(fused=self.fused)
        memo[id(self)] = made
        return made


def _random_bytes(x: Tensor) -> Tensor:
    """A random byte for each element, from torch's generator: eight at a time."""
    words = torch.empty(-(-x.numel() // 8), dtype=torch.int64, device=x.device)
    words.random_(-(2**63), None)
    return words.view(torch.uint8)[: x.numel()].view(x.shape)
