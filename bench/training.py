"""How quickly the built-in model learns, compared with a GPT-2 of transformers.

The baseline runs as its users run it: float32, AdamW. Ours runs as `h2q-tui train` does: measured number
format, threads and kernels, Muon and AdamW. The data is Tiny Shakespeare in bytes; losses are nats per byte
on every non-overlapping window of its last 10 %.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import msgspec
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.result import Benchmark, BenchResult, compare
from engine.core.paths import shipped
from engine.models.transformer import Transformer
from engine.runs.kinds import TrainParams
from engine.training.devices import Device, choose_device
from engine.training.lr_schedule import lr_factor, momentum
from engine.training.optim import Optimizer
from engine.training.recipe import CurriculumStage, ModelSize, Phase, Recipe, recipe_for
from engine.training.scratch import model_config
from engine.training.text_stream import TextStream, general_windows

CONTEXT, BATCH, STEPS = 64, 12, 2000
"""Steps of the baseline: the CPU recipe of nanoGPT."""
PLANS = (190, 200, 210, 220, 235, 250, 270, 300, 350, 400, 600)
"""Lengths of our runs for the full baseline, in steps; the first one that reaches its loss counts. The decay
of the learning rate depends on the length, so a run cannot be stopped when the loss is reached."""
TIME_TARGET, TOKENS_TARGET = 10.0, 8.0
SHORT_TIME_TARGET, SHORT_TOKENS_TARGET = 5.0, 4.0
"""Shorter baselines waste fewer bytes on the last hundredths of their loss."""
QUALITY_LOSS = 1.50
"""Target of the "quality" recipe in the time of two baseline runs, in nats per byte."""
QUALITY_CONTEXT, QUALITY_BATCH = 512, 12
"""As `h2q-tui train --recipe quality --context 512 --batch-size 12`: three quarters of the steps on windows
of 128 bytes, the rest on windows of 512 with equal bytes per step; validated with windows of 512."""
PACED_STEPS = 30
"""Steps timed to plan the length of the run."""
SHORT_S = 12.0
"""Seconds of the "quality" recipe in a short benchmark, which only shows that it learns."""

TEXT = shipped("data") / "sample" / "text" / "tinyshakespeare.txt"


@dataclass(frozen=True)
class TrainingOutcome:
    """Result of a training run: final validation loss, seconds without evaluation, and bytes seen."""

    loss: float
    seconds: float
    tokens: int


def to_loss(full: bool, *, steps: int | None = None) -> list[BenchResult]:
    """Time and tokens to the final loss of a GPT-2 of transformers (4 layers of width 128, context 64, batch
    12, AdamW)."""
    steps = steps or (STEPS if full else 300)
    device = choose_device(128)
    baseline = gpt2(steps)
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
        f"{'' if reached else ' (NOT reached)'}, {how(device)}"
    )
    seconds, tokens = (ours.seconds, float(ours.tokens)) if reached else (1e9, 1e12)
    return [
        compare(
            "training.time_to_loss",
            ours=seconds,
            baseline=baseline.seconds,
            target=TIME_TARGET if steps >= STEPS else SHORT_TIME_TARGET,
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


def train_gpt2(steps: int) -> TrainingOutcome:
    """The baseline: AdamW 1e-3 (0.9, 0.99), weight decay 0.1, warm-up 100, cosine to a tenth."""
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
            # The stream's end-of-text token is not a byte; the baseline has 256 tokens.
            logits = model(tokens[:, :-1].clamp(max=255)).logits
            loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].clamp(max=255).flatten())
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            seconds += time.perf_counter() - begin
    return TrainingOutcome(validate(lambda ids: model(ids).logits), seconds, steps * BATCH * CONTEXT)


def quality(full: bool) -> list[BenchResult]:
    """The loss of the "quality" recipe (4 layers of width 256) in the time of two baseline runs."""
    baseline = gpt2(STEPS if full else 300)
    device = choose_device(256)
    seconds = 2 * baseline.seconds if full else SHORT_S
    recipe = recipe_for(
        TrainParams(recipe="quality", context=QUALITY_CONTEXT, batch_size=QUALITY_BATCH), Phase.SCRATCH
    )
    steps = max(5, round(0.96 * seconds / _seconds_per_step(recipe, device)))
    ours = train(recipe, steps, device)
    late = full and ours.seconds > seconds
    return [
        compare(
            "training.quality",
            # A run that took longer proves nothing: it counts as one without learning.
            ours=math.log(256) if late else ours.loss,
            baseline=baseline.loss,
            target=baseline.loss / QUALITY_LOSS if full else 0.5,
            unit="nats/byte",
            lower_is_better=True,
            notes=f"4x256, {steps} steps of {recipe.tokens_per_step} bytes in {ours.seconds:.0f} s "
            f"(two baseline runs: {2 * baseline.seconds:.0f} s), loss {ours.loss:.3f}"
            f"{' TOO LATE' if late else ''}, {how(device)}; "
            f"target {QUALITY_LOSS} nats per byte{'' if full else ' at full length only'}",
        )
    ]


def _seconds_per_step(recipe: Recipe, device: Device) -> float:
    """The faster of two measurements without their first steps: other load only slows down."""
    taken = []
    for _round in range(2):
        begun, paced = (train(recipe, n, device, validated=False).seconds for n in (5, 5 + PACED_STEPS))
        taken.append((paced - begun) / PACED_STEPS)
    return max(1e-4, min(taken))


def how(device: Device) -> str:
    """Device and number format of a figure."""
    kernels = "kernels" if device.fused else "no kernels"
    return f"{'bf16' if device.bf16 else 'fp32'}, {kernels}, {device.threads} threads"


@cache
def gpt2(steps: int) -> TrainingOutcome:
    """The baseline, trained once for all benchmarks of a process."""
    return train_gpt2(steps)


def train_ours(steps: int, device: Device) -> TrainingOutcome:
    """Our model of 4 layers of width 128 with the fast recipe, at the baseline's context and batch."""
    return train(_recipe("fast", CONTEXT, BATCH), steps, device)


def _recipe(name: str, context: int, batch: int) -> Recipe:
    recipe = recipe_for(TrainParams(recipe=name, context=context), Phase.SCRATCH)
    return msgspec.structs.replace(
        recipe, curriculum=(CurriculumStage(until=1.0, context=context, batch=batch),)
    )


def model_of(size: ModelSize, context: int) -> Transformer:
    """A new model of a given size."""
    model = Transformer(msgspec.structs.replace(model_config(size), context=context))
    model.initialise(0)
    return model


def train(recipe: Recipe, steps: int, device: Device, *, validated: bool = True) -> TrainingOutcome:
    """Trains a new model for `steps` on the windows of the recipe's curriculum; validates with its context."""
    context = recipe.size.context
    model = model_of(recipe.size, context)
    seconds, tokens = 0.0, 0
    stepper = Stepper(model, recipe, device)
    shortest = min(stage.context for stage in recipe.curriculum)
    with TextStream.training([TEXT], seed=0, shortest=shortest) as stream:
        for step in range(steps):
            begin = time.perf_counter()
            now = recipe.stage_at(step, steps)
            windows = stream.windows(step, now.batch, now.context + 1)
            stepper.step(torch.from_numpy(windows.astype(np.int64)), step, steps)
            tokens += now.batch * now.context
            seconds += time.perf_counter() - begin

    def logits(ids: Tensor) -> Tensor:
        with device.autocast():
            out: Tensor = model(ids)
        return out.float()

    loss = validate(logits, context) if validated else math.nan
    return TrainingOutcome(loss, seconds, tokens)


class Stepper:
    """An optimizer step as in `engine.training.loop`, without journal and checkpoints."""

    def __init__(self, model: Transformer, recipe: Recipe, device: Device) -> None:
        self.model, self.recipe, self.device = model, recipe, device
        model.model.fused = device.fused
        self.optimizer = Optimizer(model, recipe, bf16=device.bf16)

    def step(self, tokens: Tensor, step: int, steps: int) -> float:
        """Trains on windows `(count, length + 1)`; returns their loss."""
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
def validate(logits: Callable[[Tensor], Tensor], context: int = CONTEXT) -> float:
    """Mean loss over every non-overlapping window of the last 10 % of the text."""
    total, count = 0.0, 0
    windows = [window for window in general_windows([TEXT], context, 1 << 30) if len(window) == context + 1]
    for start in range(0, len(windows), 64):
        group = windows[start : start + 64]
        tokens = torch.from_numpy(np.stack(group).astype(np.int64))
        losses = F.cross_entropy(
            logits(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten(), reduction="sum"
        )
        total, count = total + float(losses), count + tokens[:, 1:].numel()
    return total / count


BENCHMARKS = (
    Benchmark("training.to_loss", "time and tokens to the loss of a GPT-2 of transformers", to_loss, 40),
    Benchmark("training.quality", "the loss of the quality recipe in the time of two baselines", quality, 30),
)
