"""Seeds of any value: generators, JSON and Ollama take different ranges of whole numbers."""

from __future__ import annotations

_USABLE_SEEDS = 1 << 63


def usable_seed(seed: int) -> int:
    """`seed` as it is from 0 to 2**63 - 1, else its remainder: the same whole number always gives the same seed."""
    return seed % _USABLE_SEEDS
