"""How much memory a run may take, and what set that figure; and how large a pass fits into it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil

from engine.models.transformer import BLOCKED_ATTENTION
from engine.training.recipe import Recipe

AVAILABLE_SHARE = 0.7
PROGRAM_MB = 400
"""Resident memory of Python with torch and an idle model, rounded up."""
_UNLIMITED = 1 << 60


@dataclass(frozen=True)
class Budget:
    """The effective budget in MB, and which bound it is: "max_memory_gb", "cgroup" or "available"."""

    mb: float
    reason: str


def effective_budget(max_memory_gb: float = 4.0, *, root: Path = Path("/")) -> Budget:
    """The smallest of the setting, the cgroup's limit and 70 % of what is available now (DESIGN 9).

    `root` stands for `/` when the files of the kernel are read.
    """
    bounds = [Budget(max_memory_gb * 1024, "max_memory_gb")]
    cgroup = cgroup_limit_bytes(root)
    if cgroup is not None:
        bounds.append(Budget(cgroup / 2**20, "cgroup"))
    # What the program holds already is no longer among the available, and belongs to its budget.
    own = psutil.Process().memory_info().rss
    bounds.append(Budget((psutil.virtual_memory().available * AVAILABLE_SHARE + own) / 2**20, "available"))
    return min(bounds, key=lambda bound: bound.mb)


def cgroup_limit_bytes(root: Path = Path("/"), *, beside: str = "") -> int | None:
    """The lowest memory limit on the way from this process's cgroup to the top, v2 or v1; None: there is none.

    A group of the name `beside` does not count: the one that this program made itself.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    limits = []
    for line in lines:
        _number, controllers, group = (*line.split(":", 2), "", "")[:3]
        if controllers == "":
            top, name = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            top, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        folder = top / group.lstrip("/")
        # Inside a container the path is the host's and may not exist; the container's own limit is at the top.
        for place in (folder, *folder.parents):
            if not place.is_relative_to(top):
                break
            if place.name != beside:
                limits += _read_limit(place / name)
    return min(limits, default=None)


def _read_limit(file: Path) -> list[int]:
    try:
        text = file.read_text(encoding="utf-8").strip()
    except OSError:
        return []
    return [int(text)] if text.isdigit() and int(text) < _UNLIMITED else []


class Shape(Protocol):
    """What of a model's configuration decides its memory."""

    @property
    def dim(self) -> int: ...
    @property
    def layers(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def head_dim(self) -> int: ...
    @property
    def ffn(self) -> int: ...
    @property
    def vocab(self) -> int: ...


def bytes_per_token(shape: Shape, context: int) -> float:
    """Memory of one token of a training pass: what the backward pass keeps, in float32, and the logits.

    Counted from the tensors a layer keeps: norms and residuals about 10 times `dim`, projections, rotations
    and attention 10 of its width, SwiGLU 5 of its own, twice the scores of half a window where attention is
    not fused; logits, their gradient and the softmax 4 vocabularies.
    """
    width = shape.heads * shape.head_dim
    scores = shape.heads * min(context, BLOCKED_ATTENTION)
    layer = 10 * shape.dim + 10 * width + 5 * shape.ffn + scores
    return 4.0 * (shape.layers * layer + 4 * shape.vocab)


def tokens_per_micro_batch(recipe: Recipe, shape: Shape, parameters: int, budget: Budget) -> int:
    """Tokens of one forward and backward pass that stay within three quarters of the budget; one window at least.

    Weights, gradients and two moments are counted at four bytes each.
    """
    room = 0.75 * budget.mb - PROGRAM_MB - 16 * parameters / 2**20
    longest = max(stage.context for stage in recipe.curriculum)
    fits = int(max(0.0, room) * 2**20 / bytes_per_token(shape, longest))
    return max(fits, longest)
