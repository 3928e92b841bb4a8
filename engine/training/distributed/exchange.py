"""What processes exchange during a step, over one process group of torch: orders, weights, figures and gradients.

Nothing is pickled: an order is a safetensors file in memory, its settings are JSON in the header.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import timedelta

import msgspec
import torch
import torch.distributed as dist
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor
from torch._C._distributed_c10d import Store

from engine.core.errors import is_out_of_memory
from engine.core.i18n import _
from engine.training.batches import MicroBatch

STEP_TIMEOUT = timedelta(minutes=30)
"""A process that does not answer within a step for this long is lost. torch's own default."""
IDLE_TIMEOUT = timedelta(days=365)
"""Orders may take as long: a run can be paused."""
BUCKET_BYTES = 16 << 20
"""Tensors are sent together up to this size, so that small ones do not cost a message each."""


class ConnectionLost(Exception):
    """Another process has ended, or does not answer."""


class Order(msgspec.Struct, frozen=True):
    """What a process does next."""

    ends: bool = False
    """No further step: the process ends."""
    seed: int | None = None
    """Seed of dropout."""
    activation_checkpointing: bool = False


@dataclass(frozen=True)
class StepReport:
    """A process's figures of a step."""

    fits: bool
    """False: it has run out of memory, and its gradients are incomplete."""
    loss: float
    """Its part of the reported loss."""
    seconds: float
    """That it computed."""
    tokens: int
    """That it computed, padding included."""
    used_mb: float
    """Its resident memory."""


class ProcessGroup:
    """The default process group of torch while it lasts: gloo for tensors in memory, NCCL for those on GPUs."""

    def __init__(self, store: Store, rank: int, count: int, *, cuda: bool) -> None:
        """Waits for all processes. Raises ConnectionLost."""
        self.rank, self.count = rank, count
        with _lost_if_it_fails():
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if cuda else "gloo",
                store=store,
                rank=rank,
                world_size=count,
                timeout=STEP_TIMEOUT,
            )
            self._orders = dist.new_group(timeout=IDLE_TIMEOUT)

    def close(self) -> None:
        """Ends the group; also one that has lost a process."""
        dist.destroy_process_group()

    def send_order(self, order: Order, parts: Sequence[MicroBatch], to: int) -> None:
        """Raises ConnectionLost, as everything below."""
        payload = torch.frombuffer(bytearray(_encode(order, parts)), dtype=torch.uint8)
        with _lost_if_it_fails():
            dist.send(torch.tensor([payload.numel()]), to, group=self._orders)
            dist.send(payload, to, group=self._orders)

    def receive_order(self) -> tuple[Order, list[MicroBatch]]:
        """The next order of the first process; waits for it as long as it takes."""
        size = torch.zeros(1, dtype=torch.int64)
        with _lost_if_it_fails():
            dist.recv(size, 0, group=self._orders)
            payload = torch.empty(int(size), dtype=torch.uint8)
            dist.recv(payload, 0, group=self._orders)
        return _decode(payload.numpy().tobytes())

    @torch.no_grad()
    def share_weights(self, weights: Sequence[Tensor]) -> None:
        """Gives the first process's `weights` to the others."""
        for bucket in buckets(weights):
            flat = torch.cat([tensor.detach().reshape(-1) for tensor in bucket])
            with _lost_if_it_fails():
                dist.broadcast(flat, 0)
            if self.rank != 0:
                _copy_from(flat, bucket)

    def exchange_reports(
        self, report: StepReport, parameters: Sequence[Tensor]
    ) -> tuple[list[StepReport], list[bool]]:
        """Every process's report, and whether any of them has a gradient for each of `parameters`."""
        values = [float(getattr(report, field.name)) for field in fields(StepReport)]
        row = torch.tensor(
            [*values, *(float(one.grad is not None) for one in parameters)], dtype=torch.float64
        )
        gathered = [torch.empty_like(row) for _process in range(self.count)]
        with _lost_if_it_fails():
            dist.all_gather(gathered, row)
        rows = torch.stack(gathered)
        reports = [
            StepReport(bool(fits), loss, seconds, int(tokens), used)
            for fits, loss, seconds, tokens, used in rows[:, : len(values)].tolist()
        ]
        return reports, (rows[:, len(values) :].amax(0) > 0).tolist()

    @torch.no_grad()
    def sum_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Adds the gradients of all processes up in the first one. One that a process lacks counts as zero."""
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        for bucket in buckets(gradients):
            flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
            with _lost_if_it_fails():
                dist.reduce(flat, 0)
            if self.rank == 0:
                _copy_from(flat, bucket)


def buckets(tensors: Iterable[Tensor], most: int = BUCKET_BYTES) -> Iterator[list[Tensor]]:
    """Neighbours of one type, together at most `most` bytes, or a single larger one."""
    waiting: list[Tensor] = []
    size = 0
    for tensor in tensors:
        nbytes = tensor.numel() * tensor.element_size()
        if waiting and (size + nbytes > most or tensor.dtype != waiting[0].dtype):
            yield waiting
            waiting, size = [], 0
        waiting.append(tensor)
        size += nbytes
    if waiting:
        yield waiting


def stay_on_loopback() -> None:
    """Makes gloo listen on loopback only. What the user has set stays."""
    loopback = next((name for _number, name in socket.if_nameindex() if name.startswith("lo")), None)
    if loopback is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)


@contextmanager
def _lost_if_it_fails() -> Iterator[None]:
    """torch reports a lost connection, a timeout and a failed rendezvous as RuntimeErrors of several classes."""
    try:
        yield
    except RuntimeError as problem:
        if is_out_of_memory(problem):
            raise
        print(f"process group: {problem}", file=sys.stderr)  # torch's words, into engine.log
        silent = "timed out" in str(problem).lower() or "timeout" in str(problem).lower()
        raise ConnectionLost(
            _("it did not answer for {minutes} minutes").format(minutes=STEP_TIMEOUT.seconds // 60)
            if silent
            else _("the connection to it broke")
        ) from problem


def _copy_from(flat: Tensor, bucket: Sequence[Tensor]) -> None:
    for tensor, values in zip(bucket, torch.split(flat, [one.numel() for one in bucket]), strict=True):
        tensor.copy_(values.view_as(tensor))


_OPTIONAL = ("positions", "hold_weights")


def _encode(order: Order, parts: Sequence[MicroBatch]) -> bytes:
    tensors = {
        f"{number}.{name}": tensor.clone(
            memory_format=torch.contiguous_format
        )  # ids and targets share memory
        for number, part in enumerate(parts)
        for name in ("ids", "targets", "weights", "report_weights", *_OPTIONAL)
        if (tensor := getattr(part, name)) is not None
    }
    header = {
        "order": msgspec.json.encode(order).decode(),
        "joined": json.dumps([part.joined for part in parts]),
    }
    return save_tensors(tensors, metadata=header)


def _decode(payload: bytes) -> tuple[Order, list[MicroBatch]]:
    size = int.from_bytes(payload[:8], "little")
    header = json.loads(payload[8 : 8 + size])["__metadata__"]
    tensors = load_tensors(payload)
    parts = [
        MicroBatch(
            tensors[f"{number}.ids"],
            tensors[f"{number}.targets"],
            tensors[f"{number}.weights"],
            tensors[f"{number}.report_weights"],
            positions=tensors.get(f"{number}.positions"),
            joined=joined,
            hold_weights=tensors.get(f"{number}.hold_weights"),
        )
        for number, joined in enumerate(json.loads(header["joined"]))
    ]
    return msgspec.json.decode(header["order"], type=Order), parts
