from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from engine.models import losses
from engine.models.losses import chunked_cross_entropy


@pytest.mark.parametrize("chunk", [1, 400, 1 << 20])
@pytest.mark.parametrize("biased", [False, True])
def test_chunked_loss_and_gradients_match_the_unchunked_ones(
    monkeypatch: pytest.MonkeyPatch, chunk: int, biased: bool
) -> None:
    monkeypatch.setattr(losses, "CHUNK_BYTES", chunk)
    torch.manual_seed(0)
    hidden = torch.randn(7, 8, dtype=torch.float32, requires_grad=True)
    weight = torch.randn(11, 8, requires_grad=True)
    bias = torch.randn(11, requires_grad=True) if biased else None
    targets, scale = torch.randint(0, 11, (7,)), torch.rand(7)
    ours = chunked_cross_entropy(hidden, weight, bias, targets)
    wanted = F.cross_entropy(F.linear(hidden, weight, bias), targets, reduction="none")
    assert torch.allclose(ours, wanted, atol=1e-5)
    inputs = [tensor for tensor in (hidden, weight, bias) if tensor is not None]
    mine = torch.autograd.grad((ours * scale).sum(), inputs)
    theirs = torch.autograd.grad((wanted * scale).sum(), inputs)
    for one, other in zip(mine, theirs, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_no_targets_give_no_losses() -> None:
    assert chunked_cross_entropy(
        torch.zeros(0, 4), torch.zeros(5, 4), None, torch.zeros(0, dtype=torch.long)
    ).shape == (0,)
