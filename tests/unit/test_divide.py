"""Dividing the micro-batches of a step among processes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.training.batches import MicroBatch
from engine.training.distributed.divide import cut, divide
from engine.training.distributed.exchange import Order, _decode, _encode, buckets


def padded(rows: int, length: int, first: int = 0) -> MicroBatch:
    """Rows of distinct ids, so that each can be found again."""
    ids = torch.arange(first, first + rows * length).view(rows, length)
    weights = torch.full(ids.shape, 1.0)
    return MicroBatch(ids, ids + 1, weights, weights * 2)


def joined(lengths: list[int], padding: int, first: int = 0) -> MicroBatch:
    total = sum(lengths) + padding
    ids = torch.arange(first, first + total)[None]
    positions = torch.cat([torch.arange(length) for length in (*lengths, padding)])[None]
    weights = (ids - first < sum(lengths)).float()
    return MicroBatch(
        ids, ids + 1, weights, weights, positions=positions, joined=len(lengths), hold_weights=weights
    )


shapes = st.one_of(
    st.tuples(st.integers(1, 9), st.integers(1, 12)),
    st.tuples(st.lists(st.integers(1, 12), min_size=1, max_size=9), st.integers(0, 5)),
)


@given(st.lists(shapes, min_size=1, max_size=5), st.integers(1, 5))
def test_every_token_is_computed_exactly_once(kinds: list[tuple[int | list[int], int]], ranks: int) -> None:
    parts: list[MicroBatch] = []
    for size, more in kinds:
        first = sum(part.ids.numel() for part in parts)
        parts.append(padded(size, more, first) if isinstance(size, int) else joined(size, more, first))
    shares = divide(parts, ranks)
    assert len(shares) == ranks
    seen = torch.cat([part.ids.flatten() for share in shares for part in share])
    assert torch.equal(seen.sort().values, torch.arange(sum(part.ids.numel() for part in parts)))
    for share in shares:
        for part in share:
            assert torch.equal(part.targets, part.ids + 1)
            if part.joined:
                assert part.positions is not None and part.positions[0, 0] == 0
                assert part.joined <= int((part.positions == 0).sum()) <= part.joined + 1
    windows = sum(part.parts for part in parts)
    assert sum(part.parts for share in shares for part in share) == windows
    if windows >= ranks:
        assert sum(1 for share in shares if share) >= min(ranks, max(part.parts for part in parts))


@pytest.mark.parametrize(
    ("part", "pieces", "sizes"),
    [
        (padded(4, 8), 2, [16, 16]),
        (padded(5, 8), 2, [16, 24]),
        (padded(1, 8), 2, [8]),
        (joined([10, 10, 10, 10], 0), 2, [20, 20]),
        (joined([30, 5, 5], 2), 2, [30, 12]),
        (joined([5, 5, 30], 2), 3, [5, 5, 32]),
    ],
)
def test_a_micro_batch_is_cut_into_about_equal_pieces(
    part: MicroBatch, pieces: int, sizes: list[int]
) -> None:
    assert sorted(piece.ids.numel() for piece in cut(part, pieces)) == sorted(sizes)


def test_whole_micro_batches_are_not_cut() -> None:
    parts = [padded(4, 8), padded(2, 8), padded(4, 8, 64), padded(2, 8, 96)]
    first, second = divide(parts, 2)
    assert [part.ids.shape[0] for part in first] == [part.ids.shape[0] for part in second] == [4, 2]


def test_an_order_arrives_as_it_was_sent() -> None:
    parts = [padded(2, 4), joined([3, 2], 1)]
    order, received = _decode(_encode(Order(seed=7, activation_checkpointing=True), parts))
    assert order == Order(seed=7, activation_checkpointing=True)
    for sent, got in zip(parts, received, strict=True):
        assert sent.joined == got.joined
        for name in ("ids", "targets", "weights", "report_weights", "positions", "hold_weights"):
            one, other = getattr(sent, name), getattr(got, name)
            assert (one is None and other is None) or torch.equal(one, other)
    assert _decode(_encode(Order(ends=True), [])) == (Order(ends=True), [])


def test_small_tensors_travel_together_and_types_apart() -> None:
    tensors = [torch.zeros(2), torch.zeros(2), torch.zeros(2, dtype=torch.bfloat16), torch.zeros(9)]
    assert [[len(one) for one in bucket] for bucket in buckets(tensors, most=16)] == [[2, 2], [2], [9]]
