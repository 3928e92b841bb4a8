"""Divides the micro-batches of a step among processes: every window exactly once, about as many tokens for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from engine.training.batches import MicroBatch


def divide(parts: Sequence[MicroBatch], processes: int) -> list[list[MicroBatch]]:
    """The micro-batches of each of `processes` processes; their weights still sum to 1 over all of them.

    Whole micro-batches are dealt while there is one for each process, the rest are cut between windows. A process may
    be left without any when there are fewer windows than processes.
    """
    largest_first = sorted(parts, key=lambda part: -part.ids.numel())
    whole = len(largest_first) // processes * processes
    pieces = largest_first[:whole] + [
        piece for part in largest_first[whole:] for piece in cut(part, processes)
    ]
    shares: list[list[MicroBatch]] = [[] for _process in range(processes)]
    tokens = [0] * processes
    for piece in sorted(pieces, key=lambda one: -one.ids.numel()):
        least = tokens.index(min(tokens))
        shares[least].append(piece)
        tokens[least] += piece.ids.numel()
    return shares


def cut(part: MicroBatch, pieces: int) -> list[MicroBatch]:
    """`part` in up to `pieces` pieces of about equal tokens, cut between its windows."""
    if part.joined:
        return _cut_joined(part, pieces)
    rows = part.ids.shape[0]
    return [
        _taken(part, slice(begin, end), slice(None))
        for begin, end in _even_spans([1] * rows, min(pieces, rows))
    ]


def _cut_joined(part: MicroBatch, pieces: int) -> list[MicroBatch]:
    """Cuts the only row of `part` where a conversation begins; padding at its end stays with the last one."""
    assert part.positions is not None
    starts = (part.positions[0] == 0).nonzero()[: part.joined, 0].tolist()
    ends = [*starts[1:], part.ids.shape[1]]
    spans = _even_spans(
        [end - start for start, end in zip(starts, ends, strict=True)], min(pieces, len(starts))
    )
    return [
        replace(_taken(part, slice(None), slice(starts[begin], ends[end - 1])), joined=end - begin)
        for begin, end in spans
    ]


def _taken(part: MicroBatch, rows: slice, columns: slice) -> MicroBatch:
    def taken(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor[rows, columns]

    ids, targets, weights, report = (
        tensor[rows, columns] for tensor in (part.ids, part.targets, part.weights, part.report_weights)
    )
    return replace(
        part,
        ids=ids,
        targets=targets,
        weights=weights,
        report_weights=report,
        positions=taken(part.positions),
        hold_weights=taken(part.hold_weights),
    )


def _even_spans(sizes: Sequence[int], count: int) -> list[tuple[int, int]]:
    """`count` runs of neighbours as (begin, end), none empty, of about equal sums of `sizes`."""
    reached = torch.tensor(sizes).cumsum(0)
    total = int(reached[-1])
    bounds = [0]
    for number in range(1, count):
        nearest = int((reached - total * number / count).abs().argmin()) + 1
        # At least one in each run, also in those that follow.
        bounds.append(min(max(nearest, bounds[-1] + 1), len(sizes) - (count - number)))
    return list(zip(bounds, [*bounds[1:], len(sizes)], strict=True))
