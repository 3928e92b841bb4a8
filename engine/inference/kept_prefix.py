"""Keys and values of a beginning that many sequences share: it is read once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


class KeptPrefix:
    """The cache of one beginning for one model. Sequences that begin with it continue it, one at a time."""

    def __init__(self, ids: Sequence[int]) -> None:
        self.ids = list(ids)
        self._cache: Any = None
        self._unfit = False

    def begins(self, ids: Sequence[int]) -> bool:
        """Whether `ids` go on behind this beginning."""
        return len(ids) > len(self.ids) and list(ids[: len(self.ids)]) == self.ids

    def cache(self, model: Any) -> Any:
        """The cache with this beginning in it, for one forward pass; None for a model whose cache cannot be cut back.

        The caller holds `torch.inference_mode`.
        """
        if self._unfit or not self.ids:
            return None
        if self._cache is not None:
            added = self._cache.get_seq_length() - len(self.ids)
            if added:
                self._cache.crop(-added)
            return self._cache
        tokens = torch.tensor([self.ids], device=model.device)
        cache = model.get_decoder()(input_ids=tokens, use_cache=True).past_key_values
        # Sliding windows and recurrent states have forgotten what stood before.
        if any(type(layer).__name__ != "DynamicLayer" for layer in getattr(cache, "layers", [None])):
            self._unfit = True
            return None
        self._cache = cache
        return cache
