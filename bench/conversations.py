"""Memory and speed of training on conversations of all lengths, in a child process.

oneDNN compiles a kernel for each bfloat16 matrix shape. The baseline gives every micro-batch the length of its
longest window; ours pads it to one of a few lengths (`engine.training.batches.padded_length`).
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import msgspec
import psutil
import torch
import torch.nn.functional as F

from bench.result import Benchmark, BenchResult, compare
from bench.training import how, model_of
from engine.core.paths import shipped
from engine.runs.kinds import TrainParams
from engine.training import chat_batches as source
from engine.training.chat_batches import NativeBatches, read_windows
from engine.training.devices import choose_device
from engine.training.lr_schedule import lr_factor, momentum
from engine.training.optim import Optimizer
from engine.training.recipe import Phase, recipe_for
from engine.training.text_stream import TextStream

GROWTH_MB = 60.0
"""Allowed after the first third of the steps, when new lengths may still occur."""


class ConversationFigures(msgspec.Struct, frozen=True):
    """One training: MB after a third of its steps and at its end, tokens per second, number of micro-batch shapes."""

    early_mb: float
    late_mb: float
    tokens_per_s: float
    shapes: int
    how: str


def train(steps: int, *, shared: bool) -> ConversationFigures:
    """Trains the native recipe on the sample dialogues; `shared`: micro-batches share a few lengths."""
    sample = shipped("data") / "sample"
    recipe = recipe_for(TrainParams(), Phase.NATIVE)
    context = recipe.curriculum[-1].context
    device = choose_device(recipe.size.dim)
    model = model_of(recipe.size, context)
    model.model.fused = device.fused
    optimizer = Optimizer(model, recipe, bf16=device.bf16)
    process, tokens, early = psutil.Process(), 0, 0.0
    shapes: set[tuple[int, ...]] = set()
    texts = sorted((sample / "text").glob("*.txt"))
    with ExitStack() as stack:
        if not shared:
            stack.enter_context(patch.object(source, "padded_length", lambda length, _context: length))
            stack.enter_context(patch.object(source, "pad_multiple", lambda _length: 1))
        stream = stack.enter_context(TextStream.training(texts, seed=0, shortest=64))
        data = read_windows(sample / "memory" / "crosswoz.jsonl", context)
        drawn = NativeBatches(data, stream, recipe, context, 2 * context)
        begin = time.perf_counter()
        for step in range(steps):
            batch = drawn.batch_at(step, steps)
            tokens += batch.tokens
            for one in batch.micro_batches:
                shapes.add(tuple(one.ids.shape))
                with device.autocast():
                    logits = model(one.ids)
                losses = F.cross_entropy(logits.float().transpose(1, 2), one.targets, reduction="none")
                torch.autograd.backward((losses * one.weights).sum())
            optimizer.step(lr_factor(recipe.schedule, step, steps, recipe.warmup), momentum(step))
            optimizer.zero_grad()
            batch.release()
            if step == steps // 3:
                early = process.memory_info().rss / 2**20
        seconds = time.perf_counter() - begin
    late = process.memory_info().rss / 2**20
    return ConversationFigures(early, late, tokens / seconds, len(shapes), how(device))


def conversations(full: bool) -> list[BenchResult]:
    """Memory and speed, ours against the baseline."""
    steps = 300 if full else 60
    ours, baseline = (_in_child(steps, shared=shared) for shared in (True, False))
    shapes = f"{ours.shapes} shapes of micro-batches against {baseline.shapes} in {steps} steps, {ours.how}"
    return [
        compare(
            "training.conversations.memory",
            ours=ours.late_mb,
            baseline=baseline.late_mb,
            target=1.3,
            unit="MB",
            lower_is_better=True,
            notes=f"resident at the end; {shapes}",
        ),
        compare(
            "training.conversations.growth",
            ours=max(0.1, ours.late_mb - ours.early_mb),
            baseline=GROWTH_MB,
            target=1.0,
            unit="MB",
            lower_is_better=True,
            notes=f"after a third of the steps; {baseline.late_mb - baseline.early_mb:.0f} MB with exact lengths",
        ),
        compare(
            "training.conversations.speed",
            ours=ours.tokens_per_s,
            baseline=baseline.tokens_per_s,
            target=1.0,
            unit="tokens/s",
            lower_is_better=False,
            notes=shapes,
        ),
    ]


def _in_child(steps: int, *, shared: bool) -> ConversationFigures:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "figures.json"
        code = (
            "import sys; from pathlib import Path; import msgspec; from bench import conversations as c; "
            "figures = c.train(int(sys.argv[2]), shared=sys.argv[3] == 'shared'); "
            "Path(sys.argv[1]).write_bytes(msgspec.json.encode(figures))"
        )
        kind = "shared" if shared else "own"
        subprocess.run([sys.executable, "-c", code, str(out), str(steps), kind], check=True)
        return msgspec.json.decode(out.read_bytes(), type=ConversationFigures)


BENCHMARKS = (
    Benchmark(
        "training.conversations", "memory and speed with conversations of all lengths", conversations, 40
    ),
)
