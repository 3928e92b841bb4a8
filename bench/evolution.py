"""Evolution on the sample that ships: what its material is made of, what a cycle takes, and how often luck would win.

The second benchmark has no model in it: candidates that are worth nothing are judged on one window again and
again by the product's own test, and every promotion is a false one.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from bench.result import Benchmark, BenchResult, compare
from engine.core.paths import Workspace, shipped
from engine.evolution.report import self_answer_summary
from engine.evolution.synthetic import REAL_FLOOR, SyntheticStats
from engine.memory.store import MemoryStore
from engine.models.registry import in_use, promote
from engine.pipeline.import_run import import_paths
from engine.runs import launch
from engine.runs.context import RunContext
from engine.runs.journal import JournalWriter
from engine.runs.kinds import EvolveParams, TrainMode, TrainParams
from engine.runs.rundir import RunDir, load_view
from engine.runs.spec import RunSpec, encode_spec, make_spec
from engine.training.recipe import CurriculumStage, ModelSize, Phase, recipe_for
from engine.training.scratch import train_scratch
from engine.validation.sequential import alpha_for
from engine.validation.statistics import Floats, sign_flip_p
from engine.workspace.open import open_workspace

CLUSTERS = 24
LOOKS = 20
LIMIT = 0.05
"""Share of windows in which any of the looks may promote by luck."""


def false_promotions(full: bool) -> list[BenchResult]:
    """Candidates without merit, look after look on one window, with gains that vary together and have heavy tails."""
    windows = 2_000 if full else 250
    looks = LOOKS if full else 12
    results = []
    for name, shared in (("independent", 0.0), ("alike", 0.7)):
        generator = np.random.default_rng(7)
        wrong = naive = 0
        for _window in range(windows):
            common = generator.standard_t(3, CLUSTERS)
            corrected = plain = False
            for look in range(1, looks + 1):
                own = generator.standard_t(3, CLUSTERS)
                gains = np.sqrt(shared) * common + np.sqrt(1 - shared) * own
                corrected = corrected or promoted(gains, alpha_for(look))
                plain = plain or promoted(gains, LIMIT)
            wrong, naive = wrong + corrected, naive + plain
        results.append(
            compare(
                f"evolution.luck.{name}",
                ours=max(least(wrong, windows), 1 / windows),
                baseline=LIMIT,
                target=1.0,
                unit="of windows, lower 95 % bound",
                lower_is_better=True,
                notes=f"{wrong} of {windows} windows ({wrong / windows:.1%}) promoted a candidate without merit in {looks} looks;"
                f" without the correction {naive} would have ({naive / windows:.0%})",
            )
        )
    return results


def least(count: int, total: int) -> float:
    """Wilson's one-sided 95 % lower bound of a share: a simulation only shows that a limit is passed beyond it."""
    z, share = 1.645, count / total
    middle = share + z * z / (2 * total)
    half = z * (share * (1 - share) / total + z * z / (4 * total * total)) ** 0.5
    return float((middle - half) / (1 + z * z / total))


def promoted(gains: Floats, alpha: float) -> bool:
    """Whether the verdict's test sees a gain; its p is only worked out where it can be below `alpha` at all."""
    error = float(gains.std(ddof=1)) / len(gains) ** 0.5
    if gains.mean() <= error:
        return False
    return sign_flip_p(gains, alpha=alpha) < alpha


def cycles(full: bool) -> list[BenchResult]:
    """A base from the sample's text, and cycles from it on the sample's conversations, all through runs.

    The short form takes a model of 2 × 64 that has seen text alone; the full one the product's own, which has
    learnt the conversations already.
    """
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        ws = open_workspace(Workspace(Path(folder) / "ws"))
        sample = shipped("data") / "sample"
        for text in sorted((sample / "text").glob("*.txt" if full else "crosswoz.txt")):
            (ws.training_data / text.name).write_bytes(text.read_bytes()[: None if full else 60_000])
        talks = (sample / "memory" / "crosswoz.jsonl").read_bytes().splitlines(keepends=True)
        memory = Path(folder) / "crosswoz.jsonl"
        memory.write_bytes(b"".join(talks if full else talks[:110]))
        with MemoryStore(ws.memory_db) as store:
            import_paths(store, [memory])
        if full:
            carry_out(ws, TrainParams(mode=TrainMode.SCRATCH, max_steps=400))
            carry_out(ws, TrainParams(mode=TrainMode.NATIVE, max_steps=400))
            asked = EvolveParams(cycles=5, answers=48, seed=1)
        else:
            small_base(ws)
            asked = EvolveParams(cycles=1, max_steps=10, answers=4, seed=1)
        base = in_use(ws)
        report = carry_out(ws, asked)
    rows = report["cycles"]
    made = sum(sum(row["material"]["made"].values()) for row in rows)
    touching = sum(row["material"]["overlap_exact"] + row["material"]["overlap_near"] for row in rows)
    seconds = [row["seconds"] for row in rows]
    gains = ", ".join(f"{100 * row['improvement']:+.1f} % ({row['decision']})" for row in rows)
    return [
        compare(
            "evolution.real_share",
            ours=min(row["material"]["real_share"] for row in rows),
            baseline=REAL_FLOOR,
            target=1.0,
            unit="of trained bytes",
            lower_is_better=False,
            notes=f"least of {len(rows)} datasets; {made} new rows; "
            f"{'; '.join(self_answer_summary(msgspec.convert(row['material'], SyntheticStats)) for row in rows)}",
        ),
        compare(
            "evolution.real_share_of_a_batch",
            ours=min(row["material"]["least_batch_share"] for row in rows),
            baseline=REAL_FLOOR,
            target=1.0,
            unit="of trained bytes",
            lower_is_better=False,
            notes="the batch with the least of it",
        ),
        compare(
            "evolution.apart_from_held_out",
            ours=1 - touching / max(made, 1),
            baseline=1.0,
            target=1.0,
            unit="of new rows",
            lower_is_better=False,
            notes=f"{touching} of {made} rows touch what is kept back, exactly, nearly or by quotation; "
            f"{sum(row['material']['overlapping'] for row in rows)} candidates for a row were left out for it",
        ),
        compare(
            "evolution.cycle_seconds",
            ours=max(seconds),
            baseline=600.0 if full else 60.0,
            target=1.0,
            unit="s",
            lower_is_better=True,
            notes=f"the longest of {len(rows)} cycles from {base}; gains {gains}",
        ),
    ]


def small_base(ws: Workspace) -> None:
    """A small model that has read some of the sample's text, put to use."""
    spec = make_spec(ws.root, TrainParams(mode=TrainMode.SCRATCH))
    spec.folder.mkdir(parents=True)
    (spec.folder / "spec.json").write_bytes(encode_spec(spec))
    run_dir = RunDir(spec.folder)
    recipe = msgspec.structs.replace(
        recipe_for(TrainParams(max_steps=40), Phase.SCRATCH),
        size=ModelSize(dim=64, layers=2, heads=2, head_dim=32, ffn=160, context=256),
        curriculum=(CurriculumStage(until=1.0, context=256, batch=4),),
        eval_every=1.0,
    )
    text = ws.training_data / "crosswoz.txt"
    context = RunContext(run_dir, JournalWriter(run_dir.events_path))
    train_scratch(context, recipe, [text], name="small", out=ws.models / "small")
    promote(ws, "small")


def carry_out(ws: Workspace, params: TrainParams | EvolveParams) -> dict[str, Any]:
    """Runs it in this process; its result. Raises RuntimeError when it does not end well."""
    spec: RunSpec = make_spec(ws.root, params)
    runs: list[RunDir] = []
    code = launch.run_in_foreground(ws, spec, on_start=runs.append)
    finished = load_view(runs[0]).finished
    if code or finished is None:
        raise RuntimeError(f"{spec.label} ended with {code}: {finished.error if finished else ''}")
    found: dict[str, Any] = msgspec.json.decode(finished.result)
    return found


BENCHMARKS = (
    Benchmark(
        "evolution.cycles", "cycles on the shipped sample: share of real data, overlap, time", cycles, 60
    ),
    Benchmark("evolution.luck", "candidates without merit, judged again and again", false_promotions, 15),
)
