"""Joining adapters: exactness against dense matrices and another library's SVD, and memory with a hundred adapters.

Oracles are independent: updates are multiplied out in numpy, and torch takes the singular values. Memory is the largest
resident set of a process that joins 100 adapters of rank 16 with the matrices of a 7 B model (Mistral: hidden 4096, key
and value 1024, feed-forward 14336), read by the kernel.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from bench.result import Benchmark, BenchResult, compare
from engine.hive.aggregation.join import join_adapters
from engine.hive.aggregation.terms import Contribution, JoinMethod, JoinOptions

TOLERANCE = 1e-5
SMALL = {"model.layers.0.self_attn.q_proj": (576, 576), "model.layers.0.mlp.down_proj": (576, 1536)}
"""Matrices of SmolLM2."""
SEVEN_B = {
    "self_attn.q_proj": (4096, 4096), "self_attn.k_proj": (1024, 4096), "self_attn.v_proj": (1024, 4096),
    "self_attn.o_proj": (4096, 4096), "mlp.gate_proj": (14336, 4096), "mlp.up_proj": (14336, 4096),
    "mlp.down_proj": (4096, 14336),
}  # fmt: skip
LARGEST = "mlp.down_proj"
MEMORY_GB = 4.0
MANY, RANK = 100, 16

Matrix = NDArray[np.float64]


def write_adapter(
    folder: Path, shapes: dict[str, tuple[int, int]], rank: int, seed: int, *, a_seed: int
) -> Path:
    """A random PEFT adapter in bfloat16 where it is large, float32 otherwise."""
    folder.mkdir(parents=True)
    draw, draw_a = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(a_seed)
    dtype = torch.bfloat16 if max(map(max, shapes.values())) > 4000 else torch.float32
    tensors = {}
    for name, (rows, columns) in shapes.items():
        a = torch.randn(rank, columns, generator=draw_a) / columns**0.5
        tensors[f"base_model.model.{name}.lora_A.weight"] = a.to(dtype)
        tensors[f"base_model.model.{name}.lora_B.weight"] = (torch.randn(rows, rank, generator=draw) / 50).to(
            dtype
        )
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "target_modules": sorted(shapes)}
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def _update(folder: Path, name: str) -> Matrix:
    """The update of one matrix, multiplied out."""
    tensors = load_file(folder / "adapter_model.safetensors")
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    b, a = (tensors[f"base_model.model.{name}.lora_{one}.weight"].double().numpy() for one in "BA")
    return np.asarray(config["lora_alpha"] / config["r"] * b @ a)


def _distance(folder: Path, wanted: dict[str, Matrix]) -> float:
    gap = sum(float(((_update(folder, name) - matrix) ** 2).sum()) for name, matrix in wanted.items())
    return float(np.sqrt(gap / sum(float((matrix**2).sum()) for matrix in wanted.values())))


def _best(matrix: Matrix, rank: int) -> Matrix:
    left, values, right = torch.linalg.svd(torch.from_numpy(matrix), full_matrices=False)
    return np.asarray(((left[:, :rank] * values[:rank]) @ right[:rank]).numpy())


def exactness(full: bool) -> list[BenchResult]:
    """Stacking against the dense weighted mean, svd against the best adapter of its rank."""
    errors: dict[str, list[float]] = {"stack": [], "svd": [], "fedex": []}
    naive: dict[str, list[float]] = {"own A": [], "one A to start from": []}
    for count in (2, 5, 10) if full else (2, 5):
        for start in naive:
            with tempfile.TemporaryDirectory() as folder:
                place = Path(folder)
                adapters = _clients(place, count, shared=start != "own A")
                weights = [one.samples / sum(other.samples for other in adapters) for one in adapters]
                mean = {
                    name: np.asarray(
                        sum(w * _update(one.folder, name) for one, w in zip(adapters, weights, strict=True))
                    )
                    for name in SMALL
                }
                best = {name: _best(matrix, 8) for name, matrix in mean.items()}
                for method, wanted, rank in (("stack", mean, None), ("svd", best, 8), ("fedex", mean, None)):
                    join_adapters(adapters, place / method, JoinOptions(method=JoinMethod(method), rank=rank))
                    errors[method].append(_distance(place / method, wanted))
                join_adapters(adapters, place / "fedavg", JoinOptions(method=JoinMethod.FEDAVG))
                naive[start].append(_distance(place / "fedavg", mean))
    beside = "; ".join(f"{start}: {min(found):.2f} to {max(found):.2f}" for start, found in naive.items())
    return [
        compare(
            f"hive.exact.{method}",
            ours=max(found),
            baseline=TOLERANCE,
            target=1.0,
            unit="relative error",
            lower_is_better=True,
            notes=f"against {'the best matrix of rank 8 by torch' if method == 'svd' else 'the dense weighted mean'}, "
            f"float32, rank 4 to 8; the mean of the factors is off by ({beside})",
        )
        for method, found in errors.items()
    ]


def _clients(place: Path, count: int, *, shared: bool) -> list[Contribution]:
    """Adapters of unlike samples and, with an A of their own, of unlike ranks. With a shared start A has moved a bit."""
    made = []
    for number in range(count):
        rank = 8 if shared else 4 + number % 5
        folder = write_adapter(
            place / f"c{number}", SMALL, rank, number, a_seed=99 if shared else 1000 + number
        )
        if shared:
            file = folder / "adapter_model.safetensors"
            moved = {
                name: value
                + 0.3
                * value.std()
                * torch.randn(value.shape, generator=torch.Generator().manual_seed(number))
                if "lora_A" in name
                else value
                for name, value in load_file(file).items()
            }
            save_file(moved, file)
        made.append(Contribution(f"c{number}", folder, 1.0 + number))
    return made


def memory(full: bool) -> list[BenchResult]:
    """The largest resident set of a join of 100 adapters, by method."""
    chosen = SEVEN_B if full else {LARGEST: SEVEN_B[LARGEST]}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        shapes = {f"model.layers.0.{name}": shape for name, shape in chosen.items()}
        for number in range(MANY):
            write_adapter(place / f"c{number}", shapes, RANK, number, a_seed=1000 + number)
        results = []
        for method in ("stack", "svd") if full else ("svd",):
            began = time.monotonic()
            done = subprocess.run(
                [sys.executable, "-m", "bench.hive_aggregation", folder, method],
                capture_output=True,
                text=True,
                check=True,
            )
            report = json.loads(done.stdout)
            results.append(
                compare(
                    f"hive.memory.{method}",
                    ours=report["peak_gb"],
                    baseline=MEMORY_GB,
                    target=1.0,
                    unit="GB",
                    lower_is_better=True,
                    notes=f"{MANY} adapters of rank {RANK}, {len(shapes)} matrices of a layer of a 7 B shape, the largest among them "
                    f"(memory is that of one matrix of all adapters), "
                    f"rank of the result {report['rank']}, {report['cpu_s']:.0f} s of CPU, {time.monotonic() - began:.0f} s",
                )
            )
        return results


def _join_and_measure(folder: Path, method: str) -> None:
    """The process whose memory is measured."""
    adapters = [Contribution(f"c{number}", folder / f"c{number}", 1.0 + number) for number in range(MANY)]
    report = join_adapters(adapters, folder / f"out-{method}", JoinOptions(method=JoinMethod(method)))
    used = resource.getrusage(resource.RUSAGE_SELF)
    peak = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    figures = {"peak_gb": peak / 2**30, "rank": report.rank, "cpu_s": used.ru_utime + used.ru_stime}
    print(json.dumps(figures))


BENCHMARKS = (
    Benchmark("hive.exact", "joined adapters against dense matrices and torch's SVD", exactness, 15),
    Benchmark("hive.memory", "100 adapters of rank 16 for a 7 B shape", memory, 240),
)


def main(arguments: Sequence[str]) -> None:
    """`python -m bench.hive_aggregation FOLDER METHOD`."""
    _join_and_measure(Path(arguments[0]), arguments[1])


if __name__ == "__main__":
    main(sys.argv[1:])
