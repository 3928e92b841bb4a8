"""Every process of a training but the first: computes the gradients that it is ordered to, and keeps nothing.

It has no data, no optimizer, no journal and no checkpoint: whatever happens to it, nothing is lost.
"""

from __future__ import annotations

import itertools
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import msgspec
import torch
from torch._C._distributed_c10d import FileStore, PrefixStore, Store

from engine.core.errors import H2QError, is_out_of_memory
from engine.machine.process_memory import ProcessTreeMemory
from engine.runs import network_guard, torchrun
from engine.training.batches import MicroBatch
from engine.training.distributed.exchange import (
    IDLE_TIMEOUT,
    ConnectionLost,
    ProcessGroup,
    StepReport,
    stay_on_loopback,
)
from engine.training.distributed.processes import next_group, torchrun_store
from engine.training.distributed.setup import RankSetup, build
from engine.training.objective import Objective, TrainableModel

SETUP = "setup"
"""Key of the store under which the first process puts the `RankSetup`."""
OVER = "over"
"""There instead of it when no phase follows."""


def ready_key(rank: int) -> str:
    """Key of the store under which a process says that it is ready."""
    return f"ready/{rank}"


class Introduction(msgspec.Struct, frozen=True):
    """What a process says of itself when it is ready."""

    pid: int
    host: str


def this_process() -> Introduction:
    return Introduction(os.getpid(), socket.gethostname())


def main(store_path: Path, rank: int, count: int) -> int:
    """A process that the first one has started; it ends with that one, however that ends. Returns the exit code."""
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # They are for the first process, which ends this one.
        signal.signal(number, signal.SIG_IGN)
    stay_on_loopback()
    try:
        with network_guard.loopback_only():
            serve(FileStore(str(store_path), count), rank, count)
    except ConnectionLost as problem:
        print(f"rank {rank}: {problem}", file=sys.stderr)
        return 1
    except H2QError as problem:
        print(f"rank {rank}: {problem}", file=sys.stderr)
        return problem.exit_code
    return 0


def serve_torchrun() -> int:
    """A process of torchrun but the first one: computes in every phase until the first one ends its run."""
    rank, count = torchrun.rank(), torchrun.world_size()
    whole = torchrun_store()
    for number in itertools.count(1):
        store = PrefixStore(str(number), whole)
        store.wait([SETUP], IDLE_TIMEOUT)
        if store.get(SETUP).decode() == OVER:
            return 0
        try:
            serve(store, rank, count)
        except ConnectionLost as problem:
            print(f"rank {rank}: {problem}", file=sys.stderr)
            return 1
    return 0


def release_torchrun() -> None:
    """Ends the other processes of torchrun when the first one has ended its run."""
    next_group(torchrun_store()).set(SETUP, OVER)


def serve(store: Store, rank: int, count: int) -> None:
    """Builds the model, joins the group and computes until the end is ordered.

    Raises ConnectionLost, and BadInput when the model cannot be built.
    """
    setup = RankSetup.decode(store.get(SETUP))
    if torch.cuda.is_available():
        # "cuda" means this one from here on; the first process has the first.
        torch.cuda.set_device(torchrun.rank_here(rank))
    model, objective = build(setup)
    store.set(ready_key(rank), msgspec.json.encode(this_process()).decode())
    group = ProcessGroup(store, rank, count, cuda=objective.device.name == "cuda")
    try:
        memory = ProcessTreeMemory()
        while True:
            order, parts = group.receive_order()
            if order.ends:
                return
            model.model.activation_checkpointing = order.activation_checkpointing
            step(group, model, objective, parts, order.seed, memory)
    finally:
        group.close()


def step(
    group: ProcessGroup,
    model: TrainableModel,
    objective: Objective,
    parts: list[MicroBatch],
    seed: int | None,
    memory: ProcessTreeMemory,
) -> tuple[list[StepReport], BaseException | None]:
    """This process's part of a step, the same in all of them: takes the weights, computes, and adds its gradients up.

    In the first process the parameters then have the gradients of all `parts`, but only if every process had memory
    for its own. Returns the reports of all, and this process's allocation failure.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    group.share_weights(parameters)
    begin, loss, failure = time.perf_counter(), 0.0, None
    try:
        loss = objective.accumulate(model, parts, seed=None if seed is None else seed + (group.rank << 24))
    except (MemoryError, RuntimeError) as problem:
        if not is_out_of_memory(problem):
            raise
        failure = problem.with_traceback(None)
    report = StepReport(
        fits=failure is None,
        loss=loss,
        seconds=time.perf_counter() - begin,
        tokens=sum(part.ids.numel() for part in parts),
        used_mb=memory.own_mb(),
    )
    reports, trained = group.exchange_reports(report, parameters)
    if all(one.fits for one in reports):
        group.sum_gradients([parameter for parameter, has in zip(parameters, trained, strict=True) if has])
    if group.rank != 0:
        for parameter in parameters:
            parameter.grad = None
    return reports, failure


def _end_with_parent() -> None:
    """Ends this process when the pipe from the first one closes, as it does even after `kill -9`."""
    while os.read(0, 4096):
        pass
    os._exit(1)
