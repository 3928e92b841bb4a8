"""Tokens per second of training, against `nn.TransformerEncoder` as H2Q-Evo's local trainer used it.

The baseline is float32 with AdamW. Ours has its size and computes as measured; with bfloat16 off it is
measured a second time, because only processors with matrix units for it gain by a multiple.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import msgspec
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.result import Benchmark, BenchResult, compare
from bench.training import TEXT, Stepper, how, model_of
from engine.runs.kinds import TrainParams
from engine.training.devices import choose_device
from engine.training.recipe import Phase, recipe_for
from engine.training.text_stream import TextStream

MATRIX_UNITS_TARGET, PLAIN_TARGET = 8.0, 3.0
SHARE = 3
"""Steps of ours for one of the baseline, so that both are timed for about as long: a machine whose speed changes
within seconds is then met by both alike."""


class EncoderModel(nn.Module):
    """H2Q-Evo's local model: `nn.TransformerEncoder` 6 × 256, 8 heads, feed-forward 2,048 (8.0 M parameters)."""

    def __init__(self, *, dim: int, layers: int, heads: int, ffn: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(256, dim)
        layer = nn.TransformerEncoderLayer(dim, heads, ffn, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(dim, 256)

    def forward(self, ids: Tensor) -> Tensor:
        out: Tensor = self.head(self.encoder(self.embedding(ids)))
        return out


def speed(full: bool, *, batch: int = 8, context: int = 512, rounds: int | None = None) -> list[BenchResult]:
    """Tokens per second of whole training steps, ours and the baseline's taken in turn.

    The ratio of a round is that of neighbours in time; the median of the rounds is reported, with its range.
    """
    rounds = rounds or (9 if full else 5)
    torch.manual_seed(0)
    recipe = recipe_for(TrainParams(recipe="h2q-local"), Phase.SCRATCH)
    # Half the heads, twice as wide: as many parameters and products, and half the attention weights.
    size = msgspec.structs.replace(recipe.size, heads=4, head_dim=64, context=context)
    muon = msgspec.structs.replace(recipe_for(TrainParams(context=context), Phase.SCRATCH), size=size)
    measured = choose_device(size.dim)
    devices = {"training.tokens_per_s": measured, "training.tokens_per_s_fp32": replace(measured, bf16=False)}
    baseline = EncoderModel(dim=size.dim, layers=size.layers, heads=8, ffn=2048)
    optimizer = torch.optim.AdamW(baseline.parameters(), lr=1e-4)
    steppers = {name: Stepper(model_of(size, context), muon, device) for name, device in devices.items()}

    def baseline_step(tokens: Tensor, _step: int, _steps: int) -> None:
        optimizer.zero_grad()
        loss = F.cross_entropy(baseline(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(baseline.parameters(), 1.0)
        optimizer.step()

    steps: dict[str, Callable[[Tensor, int, int], object]] = {"baseline": baseline_step} | {
        name: stepper.step for name, stepper in steppers.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    with TextStream.training([TEXT], seed=0, shortest=context) as stream:
        for number in range(rounds + 1):
            # The end-of-text token of the stream is no byte; the baseline has 256 of them.
            tokens = torch.from_numpy(stream.windows(number, batch, context + 1).astype(np.int64))
            tokens.clamp_(max=255)
            for name, step in steps.items():
                times = 1 if name == "baseline" else SHARE
                begin = time.perf_counter()
                for _time in range(times):
                    step(tokens, number, rounds + 1)
                seconds[name].append((time.perf_counter() - begin) / times)
    # The first round warms kernels and the allocator up.
    speeds = {name: [batch * context / taken for taken in one[1:]] for name, one in seconds.items()}
    ratios = {name: _ratios(one, speeds["baseline"]) for name, one in speeds.items()}
    parameters = sum(parameter.numel() for parameter in baseline.parameters())
    return [
        compare(
            name,
            ours=median(speeds["baseline"]) * median(ratios[name]),
            baseline=median(speeds["baseline"]),
            target=MATRIX_UNITS_TARGET if device.bf16 and has_matrix_units() else PLAIN_TARGET,
            unit="tokens/s",
            lower_is_better=False,
            notes=f"nn.TransformerEncoder 6x256, batch {batch}x{context}, {parameters / 1e6:.2f} M parameters "
            f"(fp32, AdamW); ours {steppers[name].model.parameters_count() / 1e6:.2f} M, causal, Muon, "
            f"{how(device)}, {rounds} rounds of {min(ratios[name]):.1f} to {max(ratios[name]):.1f} times; bf16 matrix units: {'yes' if has_matrix_units() else 'no'}",
        )
        for name, device in devices.items()
    ]


def _ratios(ours: list[float], baseline: list[float]) -> list[float]:
    return [one / other for one, other in zip(ours, baseline, strict=True)]


def has_matrix_units(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor multiplies whole tiles of bfloat16 (AMX), as Linux names it."""
    try:
        return "amx_bf16" in cpuinfo.read_text(encoding="utf-8")
    except OSError:
        return False


BENCHMARKS = (
    Benchmark("training.speed", "tokens per second against nn.TransformerEncoder 6x256", speed, 40),
)
