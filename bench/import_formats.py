"""Talks through every import format: what a program wrote is what is read."""

from __future__ import annotations

import random

from bench.result import Benchmark, BenchResult, compare
from bench.round_trips import WAYS, share_read_back
from bench.writers.registry import GROUPS
from bench.writers.talks import random_talks

_TALKS = 6


def all_formats(full: bool) -> list[BenchResult]:
    results = []
    rounds = 40 if full else 4
    for group, shapes in GROUPS.items():
        shares = []
        for shape in shapes:
            for seed in range(rounds):
                chance = random.Random(seed)
                talks = random_talks(chance, _TALKS)
                shares.append(share_read_back(shape, talks, WAYS[seed % len(WAYS)], chance))
        results.append(
            compare(
                f"import.formats.{group.replace(' ', '_')}",
                ours=sum(shares) / len(shares),
                baseline=1.0,
                target=1.0,
                unit="share of talks",
                lower_is_better=False,
                notes=f"{rounds * _TALKS} talks in {len(shapes)} shapes of {group}, as files, folder and zip: "
                "roles, texts, times and alternatives as written",
            )
        )
    return results


BENCHMARKS = (
    Benchmark("import.formats", "talks in the shape of every program, read back exactly", all_formats, 12.0),
)
