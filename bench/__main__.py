"""`python -m bench [NAME…] [--json] [--full] [--save] [--list]`: ratios against named baselines."""

from __future__ import annotations

import argparse
import os
import sys
import time

import msgspec

from bench.harness import choose, save
from bench.result import BenchResult


def _line(result: BenchResult) -> str:
    verdict = "met" if result.met else "MISSED"
    figures = f"{result.ours:.4g} against {result.baseline:.4g} {result.unit}"
    return f"{result.name:<28} {result.ratio:7.2f}x (target {result.target:g}x, {verdict})  {figures}  {result.notes}"


def main() -> int:
    """Exit code 0 when every ratio meets its target, 1 when one misses it, 2 for an unknown name."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="name or prefix of a benchmark")
    parser.add_argument("--json", action="store_true", help="one JSON line per result")
    parser.add_argument("--full", action="store_true", help="full length, as for quoted figures")
    parser.add_argument("--save", action="store_true", help="append the results to bench/results.jsonl")
    parser.add_argument("--minutes", type=float, help="duration of memory.long and soak")
    parser.add_argument("--list", action="store_true", help="list the benchmarks and exit")
    options = parser.parse_args()
    try:
        chosen = choose(options.names, full=options.full or options.list)
    except KeyError as unknown:
        print(f"no benchmark named {unknown.args[0]} → python -m bench --list", file=sys.stderr)
        return 2
    if options.list:
        for benchmark in chosen:
            kind = ", with --full or by name" if benchmark.long else ""
            print(f"{benchmark.name:<28} about {benchmark.seconds:.0f} s{kind}  {benchmark.about}")
        return 0
    if options.minutes:
        os.environ["H2Q_BENCH_MINUTES"] = str(options.minutes)
    missed = False
    for benchmark in chosen:
        load = os.getloadavg()[0]
        print(f"{benchmark.name}: {benchmark.about}", file=sys.stderr, flush=True)
        began = time.monotonic()
        for result in benchmark.run(options.full):
            missed = missed or not result.met
            print(msgspec.json.encode(result).decode() if options.json else _line(result), flush=True)
            if options.save:
                save(result, full=options.full, load=load)
        print(f"{benchmark.name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
