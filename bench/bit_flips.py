"""Detection of single flipped bits in checkpoints, finished models, datasets and `models.json`."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import torch

from bench.durability import save, scratch_folder
from bench.result import Benchmark, BenchResult, compare
from engine.core.errors import BadInput
from engine.core.files import file_sha256
from engine.core.paths import Workspace
from engine.models.card import ModelCard
from engine.models.native_format import load_model, save_model
from engine.models.registry import find_model, in_use, promote
from engine.models.transformer import ModelConfig, Transformer
from engine.training import checkpoint
from engine.training.checkpoint import MANIFEST, OPTIMIZER, RANDOM, STATE, WEIGHTS


@dataclass
class BitFlips:
    """The number of flipped bits in files of one kind, and the undetected ones."""

    count: int = 0
    missed: list[str] = field(default_factory=list)


def flip(path: Path, chance: random.Random, is_detected: Callable[[], bool], flips: BitFlips) -> None:
    """Flips one random bit of `path`, checks whether it is detected, and restores the file."""
    data = path.read_bytes()
    bit = chance.randrange(8 * len(data))
    corrupted = bytearray(data)
    corrupted[bit // 8] ^= 1 << bit % 8
    path.write_bytes(corrupted)
    flips.count += 1
    if not is_detected():
        flips.missed.append(f"{path.name} bit {bit}")
    path.write_bytes(data)


def of_checkpoints(root: Path, count: int, chance: random.Random) -> BitFlips:
    """The newer of two checkpoints: it must be reported as damaged, and the older one loaded."""
    for number in (1, 2):
        save(root, number)
    newest = checkpoint.list_checkpoints(root, "scratch")[0]

    def is_detected() -> bool:
        search = checkpoint.find_newest(root, "scratch")
        return (
            search.checkpoint is not None and search.checkpoint.state.step == 1 and len(search.damaged) == 1
        )

    flips = BitFlips()
    for number in range(count):
        name = (WEIGHTS, OPTIMIZER, RANDOM, STATE, MANIFEST)[number % 5]
        flip(newest / name, chance, is_detected, flips)
    return flips


def _model(ws: Workspace, name: str) -> Path:
    torch.manual_seed(1)
    model = Transformer(ModelConfig(dim=32, layers=1, heads=2, head_dim=16, ffn=32, max_positions=64))
    card = ModelCard(
        name=name, mode="scratch", run_id="r", created_at=1.0, parameters=model.parameters_count(), context=64
    )
    save_model(ws.models / name, model, card)
    return ws.models / name


def of_models(root: Path, count: int, chance: random.Random) -> BitFlips:
    """The weights of a finished model: loading must fail."""
    folder = _model(Workspace(root), "m")

    def is_detected() -> bool:
        try:
            load_model(folder)
        except BadInput:
            return True
        return False

    flips = BitFlips()
    for _number in range(count):
        flip(folder / "model.safetensors", chance, is_detected, flips)
    return flips


def of_datasets(root: Path, count: int, chance: random.Random) -> BitFlips:
    """A dataset: its hash, which a resumed run checks, must differ."""
    path = root / "train_data.jsonl"
    rows = [
        {"id": f"c{number}", "messages": [{"role": "user", "content": "x" * number}]} for number in range(60)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    expected = sha256(path.read_bytes()).hexdigest()
    flips = BitFlips()
    for _number in range(count):
        flip(path, chance, lambda: file_sha256(path) != expected, flips)
    return flips


def of_the_model_in_use(root: Path, count: int, chance: random.Random) -> BitFlips:
    """`models.json`, which other programs write too and which has no hash: no other model may be used."""
    ws = Workspace(root)
    for name in ("native-20260101", "native-20260102"):
        _model(ws, name)
        promote(ws, name)

    def is_detected() -> bool:
        try:
            name = in_use(ws)
            return name is None or find_model(ws, name).name == "native-20260102"
        except BadInput:
            return True

    flips = BitFlips()
    for _number in range(count):
        flip(ws.models_json, chance, is_detected, flips)
    return flips


KINDS = (
    (
        "checkpoints",
        of_checkpoints,
        0.6,
        "weights, optimizer, random states, state and manifest of the newer of two",
    ),
    ("models", of_models, 0.2, "weights of a finished model"),
    ("datasets", of_datasets, 0.1, "rows of a dataset"),
    ("model_in_use", of_the_model_in_use, 0.1, "models.json; the same model, none, or an error is correct"),
)


def bit_flips(full: bool, *, total: int | None = None) -> list[BenchResult]:
    """One result per kind of file; 1,000 flips in total at full length."""
    chance, results = random.Random(5), []
    for name, flip_bits, share, about in KINDS:
        count = round(share * (total or (1000 if full else 300)))
        with scratch_folder() as root:
            flips = flip_bits(root, count, chance)
        results.append(
            compare(
                f"durability.bit_flips.{name}",
                ours=1 - len(flips.missed) / flips.count,
                baseline=1.0,
                target=1.0,
                unit="share detected",
                lower_is_better=False,
                notes=f"{len(flips.missed)} of {flips.count} missed {', '.join(flips.missed[:3])} ({about})",
            )
        )
    return results


BENCHMARKS = (Benchmark("durability.bit_flips", "detection of single flipped bits", bit_flips, 10),)
