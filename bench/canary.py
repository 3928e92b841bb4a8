"""Sensitivity and specificity of the canary of evolution on healthy cycles and on graded collapses.

Healthy: cycles as the product trains them, with several seeds, one sequence of several cycles, and one from a model
trained on text only. Collapses: training on generated text only (Shumailov et al. 2024, Nature 631) at several
temperatures, on one phrase, on one conversation, and with too high a learning rate. A model counts as harmed when the
NLL per byte of conversations that neither training nor the canary uses rises by `HARM`.
"""

from __future__ import annotations

import copy
import random
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import msgspec
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.result import Benchmark, BenchResult, compare
from bench.training import model_of
from engine.core.chat import ChatMessage
from engine.core.paths import shipped
from engine.corpus.dataset import DatasetRow
from engine.evolution import augmentation, canary
from engine.evolution.canary import Canary
from engine.evolution.mixture import MixedBatches
from engine.inference.backends.native import NativeModel
from engine.inference.language_model import Sampling, generate_text
from engine.models.chatml import windows
from engine.models.transformer import Transformer
from engine.pipeline.evolve import LR
from engine.runs.kinds import TrainParams
from engine.training.devices import choose_device
from engine.training.lr_schedule import lr_factor, momentum
from engine.training.optim import Optimizer
from engine.training.recipe import ModelSize, Phase, recipe_for
from engine.training.text_stream import TextStream
from engine.training.token_windows import TokenWindows

HARM = 0.1
"""Relative rise of the NLL of unseen conversations above which a model counts as harmed. Smaller losses are left to the
verdict, which rejects worse candidates; the canary is for losses that add up unnoticed."""
FIGURES = ("perplexity", "overconfidence", "distinct_2", "repetition")
"""The bounded measurements of the canary."""
PHRASE = "好吃的。" * 12


@dataclass(frozen=True)
class Scale:
    """Size of the calibration."""

    size: ModelSize
    rows: int
    text_steps: int
    talk_steps: int
    cycle_steps: int
    """Steps of a healthy cycle: three epochs in the full form."""
    dose: int
    """Steps of a harmful generation."""
    seeds: int
    line: int
    """Cycles of the longest healthy sequence."""
    generations: int
    answers: int


SHORT = Scale(
    ModelSize(dim=64, layers=2, heads=2, head_dim=32, ffn=160, context=512),
    rows=100, text_steps=120, talk_steps=60, cycle_steps=24, dose=12, seeds=3, line=2, generations=3, answers=12,
)  # fmt: skip
FULL = Scale(
    ModelSize(context=1024),
    rows=240, text_steps=300, talk_steps=110, cycle_steps=250, dose=45, seeds=3, line=3, generations=4, answers=24,
)  # fmt: skip


@dataclass(frozen=True)
class Grade:
    """One model of the calibration with its measurements."""

    kind: str
    number: int
    """Generation, cycle or dose, from 1."""
    harm: float
    """Relative rise of the NLL of unseen conversations relative to the first model."""
    canary: Canary
    flags: list[str]
    """Those of `FIGURES` beyond their bound."""

    def __str__(self) -> str:
        found = self.canary
        return (
            f"{self.kind} {self.number}: harm {self.harm:+.1%}, perplexity {found.perplexity or 0:.2f}, overconfidence "
            f"{found.overconfidence or 0:.2f}, distinct {found.distinct_2:.2f}, entropy {found.entropy:.2f}, "
            f"repetition {found.repetition:.2f}{', FLAGGED by ' + ' and '.join(self.flags) if self.flags else ''}"
        )


class Calibration:
    """A base model and the trainings of its copies."""

    def __init__(self, scale: Scale, folder: Path) -> None:
        self.scale = scale
        sample = shipped("data") / "sample"
        self.texts = [folder / text.name for text in sorted((sample / "text").glob("*.txt"))]
        for text in self.texts:
            text.write_bytes((sample / "text" / text.name).read_bytes()[:200_000])
        lines = (sample / "memory" / "crosswoz.jsonl").read_bytes().splitlines()
        rows = [_first_turns(msgspec.json.decode(line, type=DatasetRow)) for line in lines]
        # A tiny model is slower with the options that the device is chosen for.
        self.device = choose_device(scale.size.dim) if scale is FULL else None
        self.rows, self.unseen = rows[: scale.rows], rows[-40:]
        fresh = model_of(scale.size, scale.size.context)
        self.text_model = self.train(fresh, [], scale.text_steps, lr=0.02)
        """Trained on text only."""
        self.base = self.train(self.text_model, self.rows, scale.talk_steps, lr=0.01)
        self.canaries = canary.load_set()

    def train(
        self, model: Transformer, rows: Sequence[DatasetRow], steps: int, *, lr: float = LR, seed: int = 0,
        replay: bool = True,
    ) -> Transformer:  # fmt: skip
        """A copy of `model` after `steps` steps of the native recipe on `rows`; without rows, on text."""
        model = copy.deepcopy(model).train()
        device = self.device
        model.model.fused = device is not None and device.fused
        context = self.scale.size.context
        recipe = recipe_for(TrainParams(lr=lr, seed=seed, context=context), Phase.NATIVE)
        optimizer = Optimizer(model, recipe, bf16=device is not None and device.bf16)
        named = [(w, row.id) for row in rows for w in windows(row.messages, context) if any(w.loss_mask[1:])]
        data = TokenWindows.of([window for window, _id in named], [name for _window, name in named])
        with TextStream.training(self.texts, seed=seed, shortest=64) as stream:
            batches = MixedBatches(data, stream if replay else None, recipe, context, 1 << 14)
            for step in range(steps):
                if rows:
                    for one in batches.batch_at(step, steps).micro_batches:
                        losses = self._losses(model, one.ids, one.targets)
                        torch.autograd.backward((losses * one.weights).sum())
                else:
                    ids = torch.from_numpy(stream.windows(step, 24, 129).astype("int64"))
                    torch.autograd.backward(self._losses(model, ids[:, :-1], ids[:, 1:]).mean())
                optimizer.grad_norm(recipe.clip)
                optimizer.step(lr_factor(recipe.schedule, step, steps, recipe.warmup), momentum(step))
                optimizer.zero_grad()
        model.model.fused = False
        return model.eval()

    def _losses(self, model: Transformer, ids: Tensor, targets: Tensor) -> Tensor:
        with self.device.autocast() if self.device is not None else nullcontext():
            logits = model(ids)
        return F.cross_entropy(logits.float().transpose(1, 2), targets, reduction="none")

    def cycle(self, model: Transformer, seed: int) -> Transformer:
        """One cycle as the product trains it: real rows and two fifths as many synthetic ones."""
        rng = random.Random(seed)
        synthetic = [*islice(augmentation.retrieve(self.rows, rng), len(self.rows) // 5)]
        synthetic += islice(augmentation.recombine(self.rows, rng), len(self.rows) // 5)
        new = [DatasetRow(id=row.id, messages=row.messages) for row in synthetic]
        return self.train(model, [*self.rows, *new], self.scale.cycle_steps, seed=seed)

    def generated(self, model: Transformer, temperature: float, seed: int) -> list[DatasetRow]:
        """Real questions with the model's answers, unfiltered."""
        rng = random.Random(seed)
        native = NativeModel(model)
        rows = []
        for row in rng.sample(self.rows, self.scale.answers):
            prompt = row.messages[:1]
            sampling = Sampling(temperature=temperature, max_bytes=120, seed=rng.getrandbits(31))
            text, _stats = generate_text(
                native, [ChatMessage(role="user", content=prompt[0].content)], sampling
            )
            rows.append(
                DatasetRow(id=row.id, messages=[*prompt, ChatMessage(role="assistant", content=text or "。")])
            )
        return rows

    def unseen_nll(self, model: Transformer) -> float:
        """Nats per byte of answers that no model was trained on."""
        context = self.scale.size.context
        rendered = [window for row in self.unseen for window in windows(row.messages, context)]
        losses = NativeModel(model).nll(rendered)
        return sum(loss.nats for loss in losses) / sum(sum(window.loss_mask) for window in rendered)

    def grades(self, on_grade: Callable[[Grade], None]) -> list[Grade]:
        """Every model of the calibration."""
        grades = []
        for base, models in ((self.base, self._all()), (self.text_model, self._from_text())):
            first, before = canary.measure_canary(NativeModel(base), self.canaries), self.unseen_nll(base)
            for kind, number, model in models:
                now = canary.measure_canary(NativeModel(model), self.canaries)
                harm = self.unseen_nll(model) / before - 1
                flags = [name for name in FIGURES if exceeds_bound(name, now, first)]
                grades.append(Grade(kind, number, harm, now, flags))
                on_grade(grades[-1])
        return grades

    def _from_text(self) -> Iterator[tuple[str, int, Transformer]]:
        yield "healthy from text", 1, self.cycle(self.text_model, 50)

    def _all(self) -> Iterator[tuple[str, int, Transformer]]:
        scale = self.scale
        for seed in range(scale.seeds):
            model = self.base
            for number in range(1, 1 + (scale.line if seed == 0 else 1)):
                model = self.cycle(model, 10 * seed + number)
                yield f"healthy seed {seed}", number, model
        for temperature in (1.0, 0.7, 0.3):
            model = self.base
            for number in range(1, scale.generations + 1):
                own = self.generated(model, temperature, number)
                model = self.train(model, own, scale.dose, seed=number, replay=False)
                yield f"own text at {temperature}", number, model
        phrase = [
            DatasetRow(id=row.id, messages=[row.messages[0], ChatMessage(role="assistant", content=PHRASE)])
            for row in self.rows[: scale.answers]
        ]
        for kind, rows in (("one phrase", phrase), ("one conversation", self.rows[:1])):
            model = self.base
            for number in range(1, 4):
                model = self.train(model, rows, scale.dose, seed=number, replay=False)
                yield kind, number, model
        for number, factor in enumerate((5, 25, 100), start=1):
            model = self.train(self.base, self.rows, scale.cycle_steps, lr=LR * factor)
            yield "rate too high", number, model


def exceeds_bound(figure: str, now: Canary, first: Canary) -> bool:
    """Whether one measurement alone is beyond its bound."""
    alone = msgspec.structs.replace(first, **{figure: getattr(now, figure)})
    return bool(canary.collapse_reasons(alone, first))


def _first_turns(row: DatasetRow) -> DatasetRow:
    """The first turns of a conversation, which fit into a small window."""
    return DatasetRow(id=row.id, messages=row.messages[:4])


def separation(full: bool) -> list[BenchResult]:
    """False alarms on healthy models, and detected harmed models."""
    if not full:
        torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        grades = Calibration(FULL if full else SHORT, Path(folder)).grades(
            lambda grade: print(grade, file=sys.stderr, flush=True)
        )
    # A cycle trained as in the product may still do harm, by memorising a small corpus.
    healthy = [grade for grade in grades if grade.kind.startswith("healthy") and grade.harm <= HARM]
    harmed = [grade for grade in grades if grade.harm > HARM]
    alarms = [grade for grade in healthy if grade.flags]
    seen = [grade for grade in harmed if grade.flags]
    kinds = dict.fromkeys(grade.kind for grade in harmed)
    by = ", ".join(f"{name} in {sum(name in grade.flags for grade in seen)}" for name in FIGURES)
    firsts = []
    for kind in kinds:
        line = [grade for grade in grades if grade.kind == kind]
        harm = next((grade.number for grade in line if grade.harm > HARM), None)
        flag = next((grade.number for grade in line if grade.flags), None)
        firsts.append(f"{kind}: harmed at {harm or '–'}, flagged at {flag or '–'} of {len(line)}")
    return [
        compare(
            "evolution.canary.healthy",
            ours=1 - len(alarms) / len(healthy),
            baseline=1.0,
            target=1.0,
            unit="of healthy models pass",
            lower_is_better=False,
            notes=f"{len(alarms)} false alarms on {len(healthy)} unharmed models trained as in a cycle",
        ),
        compare(
            "evolution.canary.harmed",
            ours=len(seen) / max(1, len(harmed)),
            baseline=1.0,
            target=0.8,
            unit="of harmed models flagged",
            lower_is_better=False,
            notes=f"{len(seen)} of {len(harmed)} whose NLL of unseen conversations is up by {HARM:.0%}, by {by}; "
            + "; ".join(firsts),
        ),
    ]


BENCHMARKS = (
    Benchmark(
        "evolution.canary",
        "the canary on healthy cycles and on collapses of graded strength",
        separation,
        40,
        long=True,
    ),
)
