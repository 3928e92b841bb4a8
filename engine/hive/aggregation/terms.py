"""What an aggregation is asked for and what it says afterwards. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import msgspec

from engine.hive.privacy import NoiseOptions, PrivacyReport


class JoinMethod(StrEnum):
    """How adapters become one; `docs/HIVE.md` says which one when."""

    STACK = "stack"
    """The weighted mean of the updates, exact: the matrices of all adapters side by side. Ranks add up."""
    SVD = "svd"
    """The best approximation of that mean of the wanted rank."""
    FEDEX = "fedex"
    """The mean of the factors, with what it gets wrong in further ranks (FedEx-LoRA, arXiv 2410.09432)."""
    FEDAVG = "fedavg"
    """The mean of the factors alone, which is not the mean of the updates; its error is reported."""
    CLIP = "clip"
    """`SVD` of updates scaled down to the median norm, without those that point away from the others."""
    TRIMMED = "trimmed"
    """In each entry of a matrix, the mean without the largest and the smallest values."""
    MEDIAN = "median"
    """In each entry of a matrix, the median."""
    KRUM = "krum"
    """The mean of the updates that lie closest to their neighbours (multi-Krum, arXiv 1703.02757)."""


@dataclass(frozen=True)
class Contribution:
    """One adapter of a round."""

    name: str
    """Unique among the contributions; it names the adapter in the report."""
    folder: Path
    """PEFT's layout: `adapter_model.safetensors` and `adapter_config.json`."""
    samples: float = 1.0
    """Its weight before all are divided by their sum; above 0."""


@dataclass(frozen=True)
class JoinOptions:
    """How to join."""

    method: JoinMethod = JoinMethod.CLIP
    rank: int | None = None
    """Rank of the result; None: exact with `STACK` and `FEDEX`, else the largest rank of the adapters."""
    hostile: int | None = None
    """Adapters that may be hostile, for `TRIMMED` and `KRUM`; None: a quarter of them, at least one."""
    frozen_a: bool = False
    """The adapters were trained with one A, fixed beforehand (FFA-LoRA, arXiv 2403.12313); others are refused."""
    noise: NoiseOptions | None = None


class RefusedAdapter(msgspec.Struct, frozen=True, kw_only=True):
    """An adapter that took no part."""

    adapter: str
    rule: str
    """An `engine.hive.protocol.Rule`."""
    reason: str


class AdapterShare(msgspec.Struct, frozen=True, kw_only=True):
    """What one adapter contributed."""

    adapter: str
    weight: float
    """Of its samples; those of all adapters add up to 1."""
    used: float
    """Factor of its update in the result; less than `weight` when it was clipped, 0 when it was left out. With a
    median or a trimmed mean, which have no such factor, the same as `weight`."""
    norm: float
    """Frobenius norm of its update over all matrices."""
    cosine: float
    """Between its update and the sum of the others."""
    flags: list[str] = []
    """Why it looks unlike the others: "norm", "against", "direction", "copy"."""


class JoinReport(msgspec.Struct, frozen=True, kw_only=True):
    """The result of an aggregation; JSON of `hive aggregate --json`."""

    version: str = ""
    num_adapters: int
    """Adapters that took part."""
    method: str
    rank: int
    dtype: str
    energy: float
    """Share of the squared norm of what the method makes of the updates that the rank retains, 0 to 1."""
    error_vs_exact: float
    """Relative Frobenius distance of the written adapter from what the method makes of the updates without a limit of
    rank, noise and rounding; with `fedavg` and `fedex` from the mean of the updates."""
    naive_error: float | None = None
    """The same distance from the mean of the updates for the mean of the factors; None when it is not defined."""
    distance_from_mean: float
    """Relative distance of the written adapter from the weighted mean of the updates as they were sent."""
    shared_a: bool = False
    """All adapters have the same A: the mean of B is exact, and the rank does not grow."""
    residual_rank: int = 0
    """Ranks of the result that hold the residual of `fedex`."""
    residual: float = 0.0
    """Norm of that residual, relative to the mean of the updates, before it is cut to those ranks."""
    adapters: list[AdapterShare] = []
    refused: list[RefusedAdapter] = []
    sha256: str = ""
    """Of the written weights."""
    parameters: int = 0
    """Values of the written adapter."""
    privacy: PrivacyReport | None = None
