"""What the process that joins the adapters of a round is asked, and what it answers.

The server holds no weights: the work is done by `python -m engine.hive.round_work`, which reads an order from its input
and writes one outcome to its output. It ends with the server.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from pathlib import Path

import msgspec

from engine.core.errors import H2QError, RunFailed, error_text
from engine.core.i18n import _
from engine.hive.aggregation.terms import Contribution, JoinMethod, JoinOptions, JoinReport
from engine.hive.child_process import end_with_stdin
from engine.runs.own_process import engine_environment


class WorkOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Which adapters are joined, how, and where the result is written."""

    names: list[str]
    folders: list[str]
    samples: list[float]
    destination: str
    method: JoinMethod
    rank: int | None


class WorkOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """The report, or why there is none."""

    report: JoinReport | None = None
    problem: str = ""
    """A sentence without paths of this machine."""


async def run_order(order: WorkOrder) -> WorkOutcome:
    """The outcome of an order, from a process of its own, which ends when this is cancelled. Raises RunFailed when it
    dies."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        "engine.hive.round_work",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=engine_environment(),
    )
    try:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(msgspec.json.encode(order) + b"\n")
        out = await process.stdout.read()
    finally:
        with suppress(ProcessLookupError):
            process.kill()
    try:
        return msgspec.json.decode(out, type=WorkOutcome)
    except msgspec.DecodeError as problem:
        raise RunFailed(_("the process that joins adapters ended without a result")) from problem


def work(order: WorkOrder) -> WorkOutcome:
    """Joins the adapters. Never raises an expected failure."""
    from engine.hive.aggregation.join import join_adapters

    contributions = [
        Contribution(name=name, folder=Path(folder), samples=samples)
        for name, folder, samples in zip(order.names, order.folders, order.samples, strict=True)
    ]
    options = JoinOptions(method=order.method, rank=order.rank)
    try:
        return WorkOutcome(report=join_adapters(contributions, Path(order.destination), options))
    except H2QError as problem:
        return WorkOutcome(problem=problem.message)
    except OSError as problem:
        return WorkOutcome(problem=error_text(problem).partition(":")[0])


def main() -> None:
    """Reads an order, writes an outcome."""
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=WorkOrder)
    end_with_stdin()
    sys.stdout.buffer.write(msgspec.json.encode(work(order)))


if __name__ == "__main__":
    main()
