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


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("chunk", [100, 1 << 20])
def test_gradients_are_exact_with_and_without_a_frozen_head(
    monkeypatch: pytest.MonkeyPatch, frozen: bool, chunk: int
) -> None:
    """In float64, where rounding hides nothing."""
    monkeypatch.setattr(losses, "CHUNK_BYTES", chunk)
    torch.manual_seed(0)
    hidden = torch.randn(9, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(13, 8, dtype=torch.float64, requires_grad=not frozen)
    targets, scale = torch.randint(0, 13, (9,)), torch.randn(9, dtype=torch.float64)
    inputs = [hidden] if frozen else [hidden, weight]
    mine = torch.autograd.grad((chunked_cross_entropy(hidden, weight, None, targets) * scale).sum(), inputs)
    wanted = F.cross_entropy(F.linear(hidden, weight), targets, reduction="none")
    theirs = torch.autograd.grad((wanted * scale).sum(), inputs)
    for one, other in zip(mine, theirs, strict=True):
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize(
    ("of_hidden", "of_head"), [(torch.float32, torch.bfloat16), (torch.bfloat16, torch.float32)]
)
def test_hidden_states_and_head_may_have_different_formats(
    of_hidden: torch.dtype, of_head: torch.dtype, frozen: bool
) -> None:
    torch.manual_seed(0)
    hidden = torch.randn(9, 8, requires_grad=True)
    weight = torch.randn(13, 8).to(of_head).requires_grad_(not frozen)
    targets = torch.randint(0, 13, (9,))
    found = chunked_cross_entropy(hidden.to(of_hidden), weight, None, targets)
    (mine,) = torch.autograd.grad(found.sum(), [hidden])
    wanted = F.cross_entropy(F.linear(hidden, weight.detach().float()), targets, reduction="sum")
    (theirs,) = torch.autograd.grad(wanted, [hidden])
    assert torch.allclose(mine, theirs, atol=0.03)
