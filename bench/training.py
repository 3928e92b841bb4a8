"""How quickly the built-in model learns and steps, against a GPT-2 of transformers and `nn.TransformerEncoder`.

Both baselines run as their users run them: float32, AdamW. Ours runs as `h2q-tui train` runs it: bfloat16
where a measurement says that it pays, Muon and AdamW. Tiny Shakespeare in bytes; losses are nats per byte on
every non-overlapping window of its last 10 %.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.result import Benchmark, BenchResult, compare
from engine.models.transformer import ModelConfig, Transformer
from engine.paths import shipped
from engine.runs.spec import TrainParams
from engine.training.devices import Device, choose_device
from engine.training.optim import Optimizer
from engine.training.schedule import lr_factor, momentum
from engine.training.settings import Phase, Recipe, recipe_for
from engine.training.stream import TextStream, general_windows

CONTEXT, BATCH, STEPS = 64, 12, 2000
"""Of the baseline: the CPU recipe of nanoGPT."""
OUR_BATCH = 16
PLANS = (160, 170, 180, 200, 230, 270, 320, 400, 600)
"""Lengths of our run for the full baseline, in steps; the first that ends at its loss or below counts.

The decay of the learning rate has to be planned, so a run cannot simply be cut where the loss is reached.
"""
TIME_TARGET, TOKENS_TARGET, SPEED_TARGET = 10.0, 8.0, 8.0
SHORT_TOKENS_TARGET = 4.0
"""A baseline that stops early has wasted less of its bytes on the last hundredths of its loss."""

TEXT = shipped("data") / "sample" / "text" / "tinyshakespeare.txt"


@dataclass(frozen=True)
class Outcome:
    """A training run: its final validation loss, seconds without evaluation, and bytes seen."""

    loss: float
    seconds: float
    tokens: int


def to_loss(full: bool, *, steps: int | None = None) -> list[BenchResult]:
    """Time and tokens to the final loss of a GPT-2 of transformers (4 × 128, context 64, batch 12, AdamW)."""
    steps = steps or (STEPS if full else 300)
    device = choose_device(128)
    baseline = train_gpt2(steps)
    ours, plan = None, 0
    for length in PLANS:
        plan = max(5, round(length * steps / STEPS))
        ours = train_ours(plan, device)
        if ours.loss <= baseline.loss:
            break
    assert ours is not None
    reached = ours.loss <= baseline.loss
    notes = (
        f"GPT2LMHeadModel {steps} steps to {baseline.loss:.3f}; ours {plan} steps to {ours.loss:.3f}"
        f"{'' if reached else ' (NOT reached)'}, {'bf16' if device.bf16 else 'fp32'}, {device.threads} threads"
    )
    seconds, tokens = (ours.seconds, float(ours.tokens)) if reached else (1e9, 1e12)
    return [
        compare(
            "training.time_to_loss",
            ours=seconds,
            baseline=baseline.seconds,
            target=TIME_TARGET,
            unit="s",
            lower_is_better=True,
            notes=notes,
        ),
        compare(
            "training.tokens_to_loss",
            ours=tokens,
            baseline=float(baseline.tokens),
            target=TOKENS_TARGET if steps >= STEPS else SHORT_TOKENS_TARGET,
            unit="tokens",
            lower_is_better=True,
            notes=notes,
        ),
    ]


def train_gpt2(steps: int) -> Outcome:
    """The baseline: AdamW 1e-3 (0.9, 0.99), decay 0.1 of weights, warm-up 100, cosine to a tenth."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=256,
        n_positions=CONTEXT,
        n_embd=128,
        n_layer=4,
        n_head=4,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        use_cache=False,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = GPT2LMHeadModel(config)
    matrices = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    others = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
        lr=1e-3,
        betas=(0.9, 0.99),
    )
    warmup = min(100, steps // 10)
    seconds = 0.0
    with TextStream.training([TEXT], seed=0, shortest=CONTEXT) as stream:
        for step in range(steps):
            begin = time.perf_counter()
            tokens = torch.from_numpy(stream.windows(step, BATCH, CONTEXT + 1).astype(np.int64))
            done = max(0.0, (step - warmup) / max(1, steps - warmup))
            rate = (
                1e-3 * min(1.0, (step + 1) / max(1, warmup)) * (0.1 + 0.45 * (1 + math.cos(math.pi * done)))
            )
            for group in optimizer.param_groups:
                group["lr"] = rate
            # The end-of-text token of the stream is no byte; the baseline has 256 of them.
            logits = model(tokens[:, :-1].clamp(max=255)).logits
            loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].clamp(max=255).flatten())
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            seconds += time.perf_counter() - begin
    return Outcome(validate(lambda ids: model(ids).logits), seconds, steps * BATCH * CONTEXT)


def train_ours(steps: int, device: Device) -> Outcome:
    """Our 4 × 128 with the fast recipe at the baseline's context."""
    recipe = recipe_for(TrainParams(context=CONTEXT, batch_size=OUR_BATCH), Phase.SCRATCH)
    size = recipe.size
    model = Transformer(
        ModelConfig(
            dim=size.dim,
            layers=size.layers,
            heads=size.heads,
            kv_heads=size.heads,
            head_dim=size.head_dim,
            ffn=size.ffn,
            context=CONTEXT,
        )
    )
    model.initialise(0)
    seconds = 0.0
    stepper = Stepper(model, recipe, device)
    with TextStream.training([TEXT], seed=0, shortest=CONTEXT) as stream:
        for step in range(steps):
            begin = time.perf_counter()
            tokens = torch.from_numpy(stream.windows(step, OUR_BATCH, CONTEXT + 1).astype(np.int64))
            stepper.step(tokens, step, steps)
            seconds += time.perf_counter() - begin

    def logits(ids: Tensor) -> Tensor:
        with device.autocast():
            out: Tensor = model(ids)
        return out.float()

    return Outcome(validate(logits), seconds, steps * OUR_BATCH * CONTEXT)


class Stepper:
    """An optimizer step as `engine.training.loop` takes it, without journal and checkpoints."""

    def __init__(self, model: Transformer, recipe: Recipe, device: Device) -> None:
        self.model, self.recipe, self.device = model, recipe, device
        self.optimizer = Optimizer(model, recipe, bf16=device.bf16)

    def step(self, tokens: Tensor, step: int, steps: int) -> float:
        """Takes windows `(count, length + 1)`; returns their loss."""
        with self.device.autocast():
            logits = self.model(tokens[:, :-1])
        loss = F.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten())
        torch.autograd.backward(loss)
        self.optimizer.grad_norm(self.recipe.clip)
        factor = lr_factor(self.recipe.schedule, step, steps, self.recipe.warmup)
        self.optimizer.step(factor, momentum(step))
        self.optimizer.zero_grad()
        return float(loss.detach())


@torch.no_grad()
def validate(logits: Callable[[Tensor], Tensor]) -> float:
    """Mean loss over every non-overlapping window of the last 10 % of the text."""
    total, count = 0.0, 0
    windows = [window for window in general_windows([TEXT], CONTEXT, 1 << 30) if len(window) == CONTEXT + 1]
    for start in range(0, len(windows), 64):
        group = windows[start : start + 64]
        tokens = torch.from_numpy(np.stack(group).astype(np.int64))
        losses = F.cross_entropy(
            logits(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten(), reduction="sum"
        )
        total, count = total + float(losses), count + tokens[:, 1:].numel()
    return total / count


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
    """Tokens per second of whole training steps, ours and the baseline's taken in turn."""
    rounds = rounds or (6 if full else 2)
    torch.manual_seed(0)
    recipe = recipe_for(TrainParams(recipe="h2q-local"), Phase.SCRATCH)
    muon = msgspec.structs.replace(recipe_for(TrainParams(context=context), Phase.SCRATCH), size=recipe.size)
    size = recipe.size
    device = choose_device(size.dim)
    baseline = EncoderModel(dim=size.dim, layers=size.layers, heads=size.heads, ffn=2048)
    optimizer = torch.optim.AdamW(baseline.parameters(), lr=1e-4)
    ours = Transformer(
        ModelConfig(
            dim=size.dim,
            layers=size.layers,
            heads=size.heads,
            kv_heads=size.heads,
            head_dim=size.head_dim,
            ffn=size.ffn,
            context=context,
        )
    )
    ours.initialise(0)
    stepper = Stepper(ours, muon, device)

    def baseline_step(tokens: Tensor) -> None:
        optimizer.zero_grad()
        loss = F.cross_entropy(baseline(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(baseline.parameters(), 1.0)
        optimizer.step()

    taken = {"baseline": 0.0, "ours": 0.0}
    with TextStream.training([TEXT], seed=0, shortest=context) as stream:
        for step in range(rounds + 1):
            tokens = torch.from_numpy(stream.windows(step, batch, context + 1).astype(np.int64)).clamp(
                max=255
            )
            begin = time.perf_counter()
            baseline_step(tokens)
            middle = time.perf_counter()
            stepper.step(tokens, step, rounds + 1)
            if step > 0:  # the first one warms kernels and the allocator up
                taken["baseline"] += middle - begin
                taken["ours"] += time.perf_counter() - middle
    seen = rounds * batch * context
    parameters = sum(parameter.numel() for parameter in baseline.parameters())
    return [
        compare(
            "training.tokens_per_s",
            ours=seen / taken["ours"],
            baseline=seen / taken["baseline"],
            target=SPEED_TARGET,
            unit="tokens/s",
            lower_is_better=False,
            notes=f"nn.TransformerEncoder 6x256, batch {batch}x{context}, {parameters / 1e6:.2f} M parameters "
            f"(fp32, AdamW); ours {ours.parameters_count() / 1e6:.2f} M, causal, "
            f"{'bf16' if device.bf16 else 'fp32'}, Muon; {device.threads} threads",
        )
    ]


BENCHMARKS = (
    Benchmark("training.to_loss", "time and tokens to the loss of a GPT-2 of transformers", to_loss, 40),
    Benchmark("training.speed", "tokens per second against nn.TransformerEncoder 6x256", speed, 40),
)
