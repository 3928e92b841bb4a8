"""Evolution on the shipped sample: composition of the datasets, time per cycle, and the rate of false promotions.

The second benchmark has no model: candidates without merit are tested on one window repeatedly by the product's own
test, and every promotion is a false positive.
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
from engine.validation.statistics import Floats, paired_p
from engine.workspace.open import open_workspace

CLUSTERS = 24
LOOKS = 20
LIMIT = 0.05
"""Upper limit of the share of windows with a false promotion at any interim look."""


def false_promotions(full: bool) -> list[BenchResult]:
    """Candidates without merit at successive looks on one window, with correlated, heavy-tailed gains."""
    windows = 2_000 if full else 250
    looks = LOOKS if full else 12
    results = []
    for name, shared in (("independent", 0.0), ("alike", 0.7)):
        generator = np.random.default_rng(7)
        corrected_errors = plain_errors = 0
        for _window in range(windows):
            common = generator.standard_t(3, CLUSTERS)
            corrected = plain = False
            for look in range(1, looks + 1):
                own = generator.standard_t(3, CLUSTERS)
                gains = np.sqrt(shared) * common + np.sqrt(1 - shared) * own
                corrected = corrected or promoted(gains, alpha_for(look))
                plain = plain or promoted(gains, LIMIT)
            corrected_errors, plain_errors = corrected_errors + corrected, plain_errors + plain
        results.append(
            compare(
                f"evolution.luck.{name}",
                ours=max(wilson_lower_bound(corrected_errors, windows), 1 / windows),
                baseline=LIMIT,
                target=1.0,
                unit="of windows, lower 95 % bound",
                lower_is_better=True,
                notes=f"{corrected_errors} of {windows} windows ({corrected_errors / windows:.1%}) promoted a candidate without"
                f" merit in {looks} looks; without the correction {plain_errors} would have ({plain_errors / windows:.0%})",
            )
        )
    return results


def wilson_lower_bound(count: int, total: int) -> float:
    """Wilson's one-sided 95 % lower bound of a share: only above it does a simulation show that a limit is exceeded."""
    z, share = 1.645, count / total
    middle = share + z * z / (2 * total)
    half = z * (share * (1 - share) / total + z * z / (4 * total * total)) ** 0.5
    return float((middle - half) / (1 + z * z / total))


def promoted(gains: Floats, alpha: float) -> bool:
    """Whether the verdict's test is significant; its p value is only computed where it can be below `alpha`."""
    error = float(gains.std(ddof=1)) / len(gains) ** 0.5
    if gains.mean() <= error:
        return False
    return paired_p(gains, alpha=alpha) < alpha


def cycles(full: bool) -> list[BenchResult]:
    """A base from the sample's text, and evolution cycles on the sample's conversations, all as runs.

    The short form uses a model of 2 × 64 trained on text only; the full form the product's own size, also trained on
    the conversations.
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
            run_to_end(ws, TrainParams(mode=TrainMode.SCRATCH, max_steps=400))
            run_to_end(ws, TrainParams(mode=TrainMode.NATIVE, max_steps=400))
            params = EvolveParams(cycles=5, answers=48, seed=1)
        else:
            small_base(ws)
            params = EvolveParams(cycles=1, max_steps=10, answers=4, seed=1)
        base = in_use(ws)
        report = run_to_end(ws, params)
    rows = report["cycles"]
    synthetic = sum(sum(row["material"]["made"].values()) for row in rows)
    overlapping = sum(row["material"]["overlap_exact"] + row["material"]["overlap_near"] for row in rows)
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
            notes=f"minimum of {len(rows)} datasets; {synthetic} synthetic rows; "
            f"{'; '.join(self_answer_summary(msgspec.convert(row['material'], SyntheticStats)) for row in rows)}",
        ),
        compare(
            "evolution.real_share_of_a_batch",
            ours=min(row["material"]["least_batch_share"] for row in rows),
            baseline=REAL_FLOOR,
            target=1.0,
            unit="of trained bytes",
            lower_is_better=False,
            notes="the batch with the smallest share",
        ),
        compare(
            "evolution.apart_from_held_out",
            ours=1 - overlapping / max(synthetic, 1),
            baseline=1.0,
            target=1.0,
            unit="of synthetic rows",
            lower_is_better=False,
            notes=f"{overlapping} of {synthetic} rows equal, nearly equal or quote held-out text; "
            f"{sum(row['material']['overlapping'] for row in rows)} candidate rows were dropped for that",
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
    """Trains a small model on some of the sample's text and promotes it."""
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


def run_to_end(ws: Workspace, params: TrainParams | EvolveParams) -> dict[str, Any]:
    """Runs it in this process and returns its result. Raises RuntimeError when it fails."""
    spec: RunSpec = make_spec(ws.root, params)
    runs: list[RunDir] = []
    code = launch.run_in_foreground(ws, spec, on_start=runs.append)
    finished = load_view(runs[0]).finished
    if code or finished is None:
        raise RuntimeError(f"{spec.label} ended with {code}: {finished.error if finished else ''}")
    result: dict[str, Any] = msgspec.json.decode(finished.result)
    return result


BENCHMARKS = (
    Benchmark(
        "evolution.cycles",
        "cycles on the shipped sample: share of real data, overlap, time",
        cycles,
        60,
        long=True,
    ),
    Benchmark("evolution.luck", "false promotions of candidates without merit", false_promotions, 15),
)
