"""Arithmetic on products of factors, for any shapes, against dense matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.hive.aggregation import robust
from engine.hive.aggregation.low_rank import inner_products, merge_equal_a, squared_norm, stack, truncate
from engine.hive.aggregation.tensor_io import Matrix, decode, encode

Blocks = list[tuple[Matrix, Matrix]]


@st.composite
def blocks(draw: st.DrawFn) -> Blocks:
    """Factors of one to five adapters of one matrix, of unlike ranks and sizes, some with the same A, some zero."""
    rows, columns = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    random = np.random.default_rng(draw(st.integers(0, 2**16)))
    made: Blocks = []
    for _one in range(draw(st.integers(1, 5))):
        rank = draw(st.integers(1, 6))
        a = random.standard_normal((rank, columns))
        same: bool = draw(st.booleans())
        if same and made:
            a = made[0][1]
        b = random.standard_normal((rows, len(a))) * draw(st.sampled_from([0.0, 1e-6, 1.0, 1e6]))
        made.append((b, a))
    return made


@given(blocks())
@settings(max_examples=60, deadline=None)
def test_inner_products_are_those_of_the_dense_matrices(made: Blocks) -> None:
    dense = [b @ a for b, a in made]
    wanted = np.array([[np.vdot(one, other) for other in dense] for one in dense])
    size = max(1.0, float(np.abs(wanted).max()))
    assert inner_products(stack(made), stack(made)) == pytest.approx(wanted, abs=1e-9 * size)
    assert squared_norm(*made[0]) == pytest.approx(wanted[0, 0], abs=1e-9 * size)


@given(blocks(), st.integers(1, 8))
@settings(max_examples=60, deadline=None)
def test_truncation_is_the_best_of_its_rank(made: Blocks, rank: int) -> None:
    joined = stack(made)
    dense = joined.b @ joined.a
    assert sum((b @ a for b, a in merge_equal_a(made)), np.zeros(1)) == pytest.approx(
        dense, rel=1e-9, abs=1e-9
    )
    found = truncate(joined.b, joined.a, rank)
    left, values, right = np.linalg.svd(dense, full_matrices=False)
    best = (left[:, :rank] * values[:rank]) @ right[:rank]
    size = max(1.0, float(np.linalg.norm(dense)))
    assert np.linalg.norm(dense - found.b @ found.a) == pytest.approx(
        np.linalg.norm(dense - best), abs=1e-8 * size
    )
    assert found.total == pytest.approx(float((dense**2).sum()), rel=1e-8)
    assert found.b.shape[1] == found.a.shape[0] <= rank


@given(blocks())
@settings(max_examples=40, deadline=None)
def test_factors_in_another_gauge_are_the_same_update(made: Blocks) -> None:
    turned = []
    for b, a in made:
        q, _r = np.linalg.qr(np.random.default_rng(1).standard_normal((len(a), len(a))))
        turned.append((b @ q, q.T @ a))
    wanted = inner_products(stack(made), stack(made))
    size = max(1.0, float(np.abs(wanted).max()))
    assert inner_products(stack(turned), stack(turned)) == pytest.approx(wanted, abs=1e-9 * size)


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=30))
@settings(deadline=None)
def test_bfloat16_is_rounded_as_torch_does(values: list[float]) -> None:
    single = torch.tensor(values, dtype=torch.float32)
    for name, dtype in (("BF16", torch.bfloat16), ("F16", torch.float16), ("F32", torch.float32)):
        with np.errstate(over="ignore"):
            ours = decode(encode(single.double().numpy(), name), name)
        assert np.array_equal(ours, single.to(dtype).double().numpy())


def test_two_adapters_only_disagree() -> None:
    gram = np.array([[1.0, -1.0], [-1.0, 1.0]])
    assert robust.against_the_others(gram) == [False, False]
    assert robust.flags(gram) == [[], []]


def test_unrelated_adapters_are_not_flagged() -> None:
    assert robust.flags(np.eye(6)) == [[]] * 6


def test_copies_are_flagged() -> None:
    gram = np.eye(4)
    gram[0, 1] = gram[1, 0] = 0.995
    assert [("copy" in one) for one in robust.flags(gram)] == [True, True, False, False]


def test_krum_looks_at_more_neighbours_than_hostile_adapters_have_among_them() -> None:
    random = np.random.default_rng(0)
    honest = np.ones(30) + 0.1 * random.standard_normal((7, 30))
    # Two that agree to the last bit have a nearest neighbour at distance 0.
    vectors = np.concatenate([honest, np.tile(-np.ones(30), (2, 1))])
    gram = vectors @ vectors.T
    assert robust.multi_krum(gram, 2) == list(range(7))
