"""Joins LoRA adapters into one, matrix by matrix: memory is that of one matrix of all adapters.

What is wanted is the mean of the updates `scale * b @ a`, weighted by samples. The mean of the factors is another thing:
it multiplies everybody's b with everybody's a (FLoRA, arXiv 2409.05976; FedEx-LoRA, arXiv 2410.09432).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from engine.core.errors import NotEnoughData, UsageProblem
from engine.core.files import write_json
from engine.core.i18n import _
from engine.core.outputs import ADAPTER_FOLDER, new_folder
from engine.hive.aggregation import robust
from engine.hive.aggregation.admitted import Adapter, admit
from engine.hive.aggregation.joined_config import joined_config
from engine.hive.aggregation.low_rank import (
    Stack,
    inner_products,
    mean_of_factors,
    merge_equal_a,
    padded,
    squared_norm,
    stack,
)
from engine.hive.aggregation.recipes import JoinRecipe, Made, RoundRanks, join_recipe
from engine.hive.aggregation.tensor_io import Matrix, Progress, SafetensorsWriter
from engine.hive.aggregation.terms import (
    AdapterShare,
    Contribution,
    JoinMethod,
    JoinOptions,
    JoinReport,
    RefusedAdapter,
)
from engine.hive.lora_file import PREFIX
from engine.hive.privacy import privacy_report
from engine.models.card import ADAPTER_CONFIG, ADAPTER_WEIGHTS


def join_adapters(
    contributions: Sequence[Contribution],
    destination: Path,
    options: JoinOptions,
    on_progress: Progress | None = None,
    *,
    add_files: Callable[[Path, JoinReport], None] | None = None,
) -> JoinReport:
    """Joins the adapters that can be joined and writes the result as a PEFT folder.

    The result has the number format of the adapters, or F32 where they differ, one rank for all matrices, and scale 1.

    Args:
        destination: missing, empty, or an adapter, which is replaced.
        add_files: may write more files into the folder before it gets its name.
        on_progress: called with steps done and all of them; may raise to stop, and nothing is written then.

    Raises UsageProblem for options that do not fit, NotEnoughData when no adapter can be joined, OSError.
    """
    _check(contributions)
    adapters, refused = admit(contributions, frozen_a=options.frozen_a)
    if not adapters:
        reasons = "; ".join(f"{one.adapter}: {one.reason}" for one in refused[:3])
        raise NotEnoughData(_("no adapter can be joined ({reasons})").format(reasons=reasons))
    progress = _Steps(on_progress, 2 * len(_modules(adapters)))
    survey = _survey(adapters, progress)
    recipe = join_recipe(options, survey.gram, survey.weights, survey.ranks)
    with new_folder(destination, ADAPTER_FOLDER) as folder:
        written = _write(adapters, survey, recipe, folder / ADAPTER_WEIGHTS, progress)
        config = joined_config([one.lora for one in adapters], survey.modules, recipe.rank)
        write_json(folder / ADAPTER_CONFIG, config)
        report = _report(options, adapters, refused, survey, recipe, written)
        if add_files is not None:
            add_files(folder, report)
    return report


@dataclass
class _Steps:
    """Counts for the caller's progress."""

    call: Progress | None
    total: int
    done: int = 0

    def advance(self) -> None:
        self.done += 1
        if self.call is not None:
            self.call(self.done, self.total)


@dataclass(frozen=True)
class _Survey:
    """What a first pass over all adapters found."""

    modules: list[str]
    weights: Matrix
    """Of samples, sum 1."""
    gram: Matrix
    """Inner products of the updates."""
    ranks: RoundRanks
    shared_a: bool
    dtype: str


@dataclass
class _WrittenSums:
    """Sums over the matrices of the written adapter."""

    count: int
    """Of adapters."""
    sha256: str = ""
    parameters: int = 0
    kept: float = 0.0
    total: float = 0.0
    square: float = 0.0
    """Squared norm of what was written."""
    naive_square: float = 0.0
    residual: float = 0.0
    """Squared norm."""
    dense_gap: float = 0.0
    """Squared distance from the full matrices of a rule that works entry by entry."""
    dense_total: float = 0.0
    entries: int = 0
    """Values that noise was added to."""
    products: Matrix = field(init=False)
    """Inner products of what was written with the updates."""
    naive_products: Matrix = field(init=False)

    def __post_init__(self) -> None:
        self.products, self.naive_products = np.zeros(self.count), np.zeros(self.count)


def _check(contributions: Sequence[Contribution]) -> None:
    names = [one.name for one in contributions]
    if len(set(names)) < len(names):
        raise UsageProblem(_("two adapters have the same name"))
    if not all(0 < one.samples < math.inf for one in contributions):
        raise UsageProblem(_("the weight of an adapter must be above 0"))


def _modules(adapters: Sequence[Adapter]) -> list[str]:
    return sorted({name for adapter in adapters for name in adapter.lora.modules})


def _stacked(adapters: Sequence[Adapter], module: str) -> Stack:
    """The updates of one matrix; of an adapter that lacks it a zero."""
    blocks = [adapter.factors(module) for adapter in adapters]
    b, a = next(block for block in blocks if block is not None)
    zero = np.zeros((b.shape[0], 1)), np.zeros((1, a.shape[1]))
    return stack([block or zero for block in blocks])


def _survey(adapters: Sequence[Adapter], progress: _Steps) -> _Survey:
    modules = _modules(adapters)
    samples = np.array([adapter.contribution.samples for adapter in adapters])
    gram = np.zeros((len(adapters), len(adapters)))
    stacked = full = 0
    for module in modules:
        found = _stacked(adapters, module)
        gram += inner_products(found, found)
        merged = merge_equal_a([block for block in _blocks(found) if block[0].any()])
        ranks = sum(len(a) for _b, a in merged)
        stacked, full = max(stacked, ranks), max(full, min(found.shape))
        progress.advance()
    dtypes = {dtype for adapter in adapters for dtype in adapter.lora.dtypes}
    return _Survey(
        modules=modules,
        weights=samples / samples.sum(),
        gram=gram,
        ranks=RoundRanks(
            largest=max(module.rank for one in adapters for module in one.lora.modules.values()),
            stacked=stacked,
            full=full,
        ),
        shared_a=len(adapters) > 1 and len({adapter.a_digest for adapter in adapters}) == 1,
        dtype=dtypes.pop() if len(dtypes) == 1 else "F32",
    )


def _blocks(stacked: Stack) -> list[tuple[Matrix, Matrix]]:
    return [stacked.block(number) for number in range(len(stacked.starts))]


def _write(
    adapters: Sequence[Adapter], survey: _Survey, recipe: JoinRecipe, path: Path, progress: _Steps
) -> _WrittenSums:
    """Makes and writes every matrix, and measures what was written against the updates."""
    shapes: dict[str, tuple[int, ...]] = {}
    for module in survey.modules:
        rows, columns = next(one.lora.modules[module].shape for one in adapters if module in one.lora.modules)
        shapes[f"{PREFIX}{module}.lora_A.weight"] = (recipe.rank, columns)
        shapes[f"{PREFIX}{module}.lora_B.weight"] = (rows, recipe.rank)
    sums = _WrittenSums(len(adapters))
    with path.open("wb") as file:
        writer = SafetensorsWriter(file, shapes, survey.dtype)
        for module in survey.modules:
            found = _stacked(adapters, module)
            made = recipe.make(found)
            b, a = padded(made.b, made.a, recipe.rank)
            a = writer.add(f"{PREFIX}{module}.lora_A.weight", a)
            b = writer.add(f"{PREFIX}{module}.lora_B.weight", b)
            _measure(sums, found, made, b, a, survey.weights)
            progress.advance()
        sums.sha256 = writer.close()
    return sums


def _measure(sums: _WrittenSums, found: Stack, made: Made, b: Matrix, a: Matrix, weights: Matrix) -> None:
    """Adds one written matrix `b @ a` to the sums."""
    square = squared_norm(b, a)
    sums.square += square
    sums.parameters += b.size + a.size
    sums.products += inner_products(Stack(b, a, (0,)), found)[0]
    naive = Stack(*mean_of_factors(_blocks(found), weights.tolist()), (0,))
    sums.naive_square += squared_norm(naive.b, naive.a)
    sums.naive_products += inner_products(naive, found)[0]
    sums.kept, sums.total = sums.kept + made.kept, sums.total + made.total
    sums.residual += made.residual
    sums.entries += made.entries
    if made.full is not None:
        total = float(np.vdot(made.full, made.full))
        sums.dense_gap += square - 2 * float(np.sum((b.T @ made.full) * a)) + total
        sums.dense_total += total


def _report(
    options: JoinOptions,
    adapters: Sequence[Adapter],
    refused: Sequence[RefusedAdapter],
    survey: _Survey,
    recipe: JoinRecipe,
    sums: _WrittenSums,
) -> JoinReport:
    gram, weights = survey.gram, survey.weights
    from_mean = robust.distance(sums.square, sums.products, gram, weights.tolist())
    if sums.dense_total:
        error = math.sqrt(max(sums.dense_gap, 0.0) / sums.dense_total)
    else:
        error = robust.distance(sums.square, sums.products, gram, recipe.factors.tolist())
    of_factors = options.method in (JoinMethod.FEDAVG, JoinMethod.FEDEX)
    energy = max(0.0, 1 - error**2) if of_factors else (sums.kept / sums.total if sums.total else 1.0)
    mean = float(weights @ gram @ weights)
    shares = zip(
        adapters, weights, recipe.factors, robust.norms(gram), robust.cosines_to_others(gram), robust.flags(gram),
        strict=True,
    )  # fmt: skip
    return JoinReport(
        num_adapters=len(adapters),
        method=options.method.value,
        rank=recipe.rank,
        dtype=survey.dtype,
        energy=energy,
        error_vs_exact=error,
        naive_error=robust.distance(sums.naive_square, sums.naive_products, gram, weights.tolist()),
        distance_from_mean=from_mean,
        shared_a=survey.shared_a,
        residual_rank=recipe.residual_rank,
        residual=math.sqrt(sums.residual / mean) if mean > 0 else 0.0,
        adapters=[
            AdapterShare(
                adapter=adapter.contribution.name,
                weight=float(weight),
                used=float(used),
                norm=float(norm),
                cosine=float(cosine),
                flags=flags,
            )
            for adapter, weight, used, norm, cosine, flags in shares
        ],
        refused=list(refused),
        sha256=sums.sha256,
        parameters=sums.parameters,
        privacy=None if options.noise is None else privacy_report(options.noise, sums.entries, len(adapters)),
    )
