"""Number format, threads, kernels and cores of a CPU, each chosen by timing a training step of one layer."""

from __future__ import annotations

import contextlib
import ctypes
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from statistics import median

import torch

from engine.core.i18n import _, n_
from engine.machine.cpu import allowed_cores, bind_threads, one_per_core
from engine.models.kernels.build import load_kernels
from engine.models.transformer import ModelConfig, Transformer

MIN_SPEEDUP = 1.05
"""Minimum speed-up for a change from the default, so that repeated measurements agree."""
FEWER_THREADS_MIN_SPEEDUP = 1.15
"""The same for fewer threads: other load makes them look better, and a phase keeps the choice."""
PAIRS = 3
"""Two candidates are timed alternately and the median ratio decides: the machine's speed may change in
between."""
ROUNDS, MIN_MEASURE_S = 2, 0.03
"""Repetitions of a timing, and the seconds after which it ends early."""
TOKENS = 1024
MAX_WIDTH = 512
"""Wider layers are measured at this width: the result carries over, and the measurement stays short."""
MAX_MEASURE_S = 3.0
"""On a busy machine measuring ends after this long; what was not measured stays at its default."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""From glibc's malloc.h."""


@dataclass(frozen=True)
class CpuTuning:
    """The fastest CPU configuration, and the measurements."""

    threads: int
    bf16: bool = False
    fused: bool = False
    """Uses the kernels of `engine.models.kernels.build`."""
    cores: tuple[int, ...] = ()
    """Cores the process is bound to; empty: no binding."""
    reason: str = ""


def tune_cpu(
    width: int, threads: int, *, fixed: CpuTuning | None = None, measured_threads: bool = True
) -> CpuTuning:
    """The configuration for layers of `width`; applies threads and cores. Takes 0.1 to 3 s.

    Freed memory is kept for reuse. Returning it is no candidate: one layer does not show what it costs, a LoRA step on a
    model of 135 M parameters takes 1.8 times as long. It is for a short budget.

    `threads` is the maximum, and the number used unless `measured_threads`. `fixed` is the format, kernels
    and threads of a resumed phase: only what cannot change a result is measured then.
    """
    chosen = fixed or _measure(min(MAX_WIDTH, max(32, width // 32 * 32)), threads, measured_threads)
    torch.set_num_threads(chosen.threads)
    if chosen.cores:
        bind_threads(chosen.cores)
    keep_freed_memory(keep=True)
    return chosen


@cache
def _measure(width: int, threads: int, measured_threads: bool) -> CpuTuning:
    began = time.perf_counter()
    step = LayerProbe(width)
    best = CpuTuning(threads=threads, fused=load_kernels() is not None)
    reasons: list[str] = []

    def consider(
        name: str,
        candidate: CpuTuning,
        *,
        clock: Callable[[], float] = time.thread_time,
        least: float = MIN_SPEEDUP,
    ) -> None:
        nonlocal best
        pair, gains = [best, candidate], list[float]()
        if clock is time.thread_time:
            # CPU time of one thread, which other load on the machine hardly changes.
            pair = [replace(one, threads=1) for one in pair]
        # Other threads need a warm-up step each time.
        needs_warmup = clock is not time.thread_time
        while len(gains) < PAIRS:
            if time.perf_counter() - began > MAX_MEASURE_S and (gains or reasons):
                break
            ordinary, other = (step.seconds(one, clock, warm=needs_warmup or not gains) for one in pair)
            gains.append(ordinary / other)
            if max(sum(gain >= least for gain in gains), sum(gain < least for gain in gains)) > PAIRS / 2:
                break  # more pairs cannot move the median across the limit
        if not gains:
            return
        reasons.append(f"{name} {median(gains):.2f}x")
        if median(gains) >= least:
            best = candidate

    consider("bf16", replace(best, bf16=True))
    if best.fused:
        consider(_("no kernels"), replace(best, fused=False))
    wall = time.perf_counter
    for fewer in sorted({threads // 2, 1}, reverse=True) if measured_threads else ():
        if 0 < fewer < best.threads:
            consider(
                n_("{n} thread", "{n} threads", fewer).format(n=fewer),
                replace(best, threads=fewer),
                clock=wall,
                least=FEWER_THREADS_MIN_SPEEDUP,
            )
    cores = one_per_core(allowed_cores())
    if measured_threads and len(cores) < len(allowed_cores()):
        consider(_("one thread per core"), replace(best, threads=len(cores), cores=cores), clock=wall)
    return replace(best, reason=_(", ").join(reasons))


class LayerProbe:
    """A training step of one layer of a given width on random bytes."""

    def __init__(self, width: int) -> None:
        config = ModelConfig(
            dim=width, layers=1, heads=width // 32, kv_heads=width // 32, head_dim=32,
            ffn=-(-8 * width // 3 // 32) * 32, context=128,
        )  # fmt: skip
        with torch.random.fork_rng():
            self._model = Transformer(config)
        self._model.initialise(0)
        generator = torch.Generator().manual_seed(0)
        self._ids = torch.randint(0, 256, (TOKENS // 128, 128), generator=generator)

    def seconds(self, tuning: CpuTuning, clock: Callable[[], float], *, warm: bool = True) -> float:
        """Minimum seconds by `clock` of a forward and backward pass with `tuning`; `warm`: after a warm-up
        step."""
        with _applied(tuning):
            if warm:
                self._step(tuning)
            times: list[float] = []
            while not times or (len(times) < ROUNDS and sum(times) < MIN_MEASURE_S):
                begin = clock()
                self._step(tuning)
                times.append(clock() - begin)
        return min(times)

    def _step(self, tuning: CpuTuning) -> None:
        self._model.model.fused = tuning.fused
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=tuning.bf16):
            out = self._model(self._ids)
        torch.autograd.backward(out.float().square().mean())
        for parameter in self._model.parameters():
            parameter.grad = None


@contextlib.contextmanager
def _applied(tuning: CpuTuning) -> Iterator[None]:
    """Applies the threads and cores of `tuning`, and restores them afterwards."""
    before, allowed = torch.get_num_threads(), allowed_cores()
    torch.set_num_threads(tuning.threads)
    if tuning.cores:
        bind_threads(tuning.cores)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        if tuning.cores:
            bind_threads(allowed)


def keep_freed_memory(keep: bool) -> None:
    """Makes glibc reuse freed memory, or return it to the kernel. No effect with other C libraries.

    The peak resident memory is the same.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20 if keep else 128 << 10)
        libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1 if keep else 128 << 10)
        if not keep:  # returns what was kept until now
            libc.malloc_trim(0)
