"""Training tokens per second, compared with `nn.TransformerEncoder` as in H2Q-Evo's local trainer.

The baseline is float32 with AdamW. Ours has the same size and the measured number format; it is measured
again with bfloat16 off, because only CPUs with matrix units gain much from it.
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
"""Our steps per step of the baseline, so that both are timed for about as long and meet the same changes of
the machine's speed."""


class EncoderModel(nn.Module):
    """H2Q-Evo's local model: `nn.TransformerEncoder` with 6 layers of width 256, 8 heads, feed-forward 2,048
    (8.0 M parameters)."""

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
    """Tokens per second of whole training steps, ours and the baseline's alternating.

    Each round gives a ratio of neighbouring timings; the median of the rounds is reported with its range.
    """
    rounds = rounds or (9 if full else 5)
    torch.manual_seed(0)
    recipe = recipe_for(TrainParams(recipe="h2q-local"), Phase.SCRATCH)
    # Half the heads, twice as wide: equal parameters and products, half the attention weights.
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
            # The stream's end-of-text token is not a byte; the baseline has 256 tokens.
            tokens = torch.from_numpy(stream.windows(number, batch, context + 1).astype(np.int64))
            tokens.clamp_(max=255)
            for name, step in steps.items():
                times = 1 if name == "baseline" else SHARE
                begin = time.perf_counter()
                for _time in range(times):
                    step(tokens, number, rounds + 1)
                seconds[name].append((time.perf_counter() - begin) / times)
    # The first round warms up kernels and the allocator.
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
    """Whether the CPU has bfloat16 matrix tiles (AMX), by its name in Linux."""
    try:
        return "amx_bf16" in cpuinfo.read_text(encoding="utf-8")
    except OSError:
        return False


BENCHMARKS = (
    Benchmark("training.speed", "tokens per second against nn.TransformerEncoder 6x256", speed, 40),
)
