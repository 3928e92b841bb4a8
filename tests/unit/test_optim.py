from __future__ import annotations

import copy

import msgspec
import pytest
import torch

from engine.models.transformer import ModelConfig, Transformer
from engine.training import optim
from engine.training.optim import (
    POLAR_EXPRESS,
    POLAR_STEPS,
    Optimizer,
    _newton_schulz,
    _newton_schulz_gram,
    orthogonalise,
)
from engine.training.scratch import model_config
from tests.unit.out_of_memory import Failing
from tests.unit.training_run import SIZE, tiny


def model(seed: int = 0) -> Transformer:
    made = Transformer(model_config(SIZE))
    made.initialise(seed)
    return made


def gradients(of: Transformer, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in of.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("shape", [(3, 32, 32), (2, 32, 96), (2, 96, 32)])
@pytest.mark.parametrize("bf16", [False, True])
def test_orthogonalised_matrices_have_singular_values_near_one(
    shape: tuple[int, int, int], bf16: bool
) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    result = orthogonalise(matrices, bf16=bf16, steps=5)
    assert result.dtype == torch.float32
    assert result.shape == matrices.shape
    values = torch.linalg.svdvals(result)
    # Singular values below a thousandth of the largest may stay small.
    assert values.max() < 1.2
    assert values.median() > 0.8


def test_orthogonalisation_keeps_the_direction() -> None:
    matrix = torch.randn(1, 16, 48, generator=torch.Generator().manual_seed(1))
    u, _s, v = torch.linalg.svd(matrix, full_matrices=False)
    assert (orthogonalise(matrix, steps=5) - u @ v).abs().max() < 0.1


@pytest.mark.parametrize("shape", [(3, 32, 96), (2, 128, 16), (1, 32, 400)])
@pytest.mark.parametrize("rank", [2, None])
def test_iterations_through_the_gram_matrix_give_the_same_result(
    shape: tuple[int, int, int], rank: int | None
) -> None:
    generator = torch.Generator().manual_seed(3)
    matrices = torch.randn(shape, generator=generator)
    if rank is not None:
        count, rows, columns = shape
        matrices = torch.randn(count, rows, rank, generator=generator) @ matrices[:, :rank, :columns]
    flat = matrices if shape[1] < shape[2] else matrices.transpose(1, 2)
    coefficients = POLAR_EXPRESS[:POLAR_STEPS]
    flat = flat / (flat.norm(dim=(1, 2), keepdim=True) * 1.02 + 1e-7)
    direct, indirect = _newton_schulz(flat, coefficients), _newton_schulz_gram(flat, coefficients)
    assert (direct - indirect).norm() <= 1e-3 * direct.norm()


def test_a_batch_gives_the_result_of_each_matrix() -> None:
    matrices = torch.randn(4, 24, 40, generator=torch.Generator().manual_seed(2))
    alone = torch.cat([orthogonalise(matrices[n : n + 1]) for n in range(4)])
    assert torch.allclose(orthogonalise(matrices), alone, atol=1e-4)


def test_layers_use_muon_and_other_parameters_adamw() -> None:
    stepped = model()
    gradients(stepped, 0)
    optimizer = Optimizer(stepped, tiny())
    optimizer.step(1.0, 0.9)
    names = set(optimizer.state())
    assert "momentum/model.layers.0.mlp.down_proj.weight" in names
    assert {"exp_avg/lm_head.weight", "exp_avg_sq/model.embed_tokens.weight"} <= names
    assert "exp_avg/model.layers.0.self_attn.q_norm.weight" in names
    assert not any(name.startswith("exp_avg/") and "proj" in name for name in names)


@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_a_restored_state_takes_the_same_next_step(kind: str) -> None:
    recipe = msgspec.structs.replace(tiny(), optimizer=kind, lr=0.01, weight_decay=0.1)
    one = model()
    optimizer = Optimizer(one, recipe)
    for step in range(3):
        gradients(one, step)
        optimizer.step(1.0, 0.9)
    other = model(seed=1)
    other.load_state_dict(one.state_dict())
    second = Optimizer(other, recipe)
    second.restore(optimizer.state())
    for made, using in ((one, optimizer), (other, second)):
        gradients(made, 9)
        using.step(0.5, 0.95)
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


def test_a_state_of_another_model_is_rejected() -> None:
    other = Transformer(ModelConfig(dim=32, layers=2, heads=2, kv_heads=2, head_dim=16, ffn=32))
    with pytest.raises(KeyError):
        Optimizer(other, tiny()).restore(Optimizer(model(), tiny()).state())


def test_clipping_scales_to_the_norm_and_zero_turns_it_off() -> None:
    made = model()
    optimizer = Optimizer(made, tiny())
    gradients(made, 0)
    before = float(optimizer.grad_norm(0.0))
    assert before > 1
    assert float(optimizer.grad_norm(1.0)) == pytest.approx(before)
    assert float(optimizer.grad_norm(0.0)) == pytest.approx(1.0, rel=1e-3)


def test_a_new_peak_moves_all_groups_in_proportion() -> None:
    moved, usual = model(), model()
    for made, peak in ((moved, 0.0), (usual, None)):
        optimizer = Optimizer(made, tiny())
        gradients(made, 0)
        optimizer.peak = optimizer.peak if peak is None else peak
        optimizer.step(1.0, 0.9)
    start = model().state_dict()
    assert all(torch.equal(tensor, start[name]) for name, tensor in moved.state_dict().items())
    assert not any(torch.equal(tensor, start[name]) for name, tensor in usual.state_dict().items())


@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_a_step_that_runs_out_of_memory_changes_nothing(kind: str) -> None:
    recipe = msgspec.structs.replace(tiny(), optimizer=kind)
    clean = model()
    gradients(clean, 1)
    Optimizer(clean, recipe).step(1.0, 0.9)
    at, failures = 0, 0
    while True:
        stepped = model()
        optimizer = Optimizer(stepped, recipe)
        gradients(stepped, 1)
        before = [parameter.detach().clone() for parameter in stepped.parameters()]
        try:
            with Failing(at):
                optimizer.step(1.0, 0.9)
        except MemoryError:
            failures += 1
            assert all(torch.equal(a, b) for a, b in zip(before, stepped.parameters(), strict=True))
            assert not any(bool(tensor.any()) for tensor in optimizer.state().values())
            assert optimizer.state_is_plausible()
            optimizer.step(1.0, 0.9)
            assert all(
                torch.equal(a, b) for a, b in zip(clean.parameters(), stepped.parameters(), strict=True)
            )
        else:
            break
        at += 1
    assert failures >= 20


def test_muon_steps_match_those_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch uses one coefficient triple for all iterations, bfloat16 and no 2 % margin in the normalisation."""
    monkeypatch.setattr(optim, "POLAR_EXPRESS", ((3.4445, -4.775, 2.0315),) * POLAR_STEPS)
    ours = Transformer(model_config(msgspec.structs.replace(SIZE, ffn=96)))
    ours.initialise(0)
    theirs, start = copy.deepcopy(ours), copy.deepcopy(ours)
    recipe = msgspec.structs.replace(tiny(), weight_decay=0.1)
    matrices = [name for name, value in ours.named_parameters() if value.ndim == 2 and ".layers." in name]
    optimizer = Optimizer(ours, recipe)
    reference: torch.optim.Optimizer = torch.optim.Muon(
        [theirs.get_parameter(name) for name in matrices],
        lr=recipe.lr,
        weight_decay=recipe.weight_decay,
        momentum=0.9,
        ns_steps=POLAR_STEPS,
    )
    for step in range(3):
        gradients(ours, step)
        gradients(theirs, step)
        optimizer.step(1.0, 0.9)
        reference.step()
        for name in matrices:
            change = (ours.get_parameter(name) - start.get_parameter(name)).detach()
            expected = (theirs.get_parameter(name) - start.get_parameter(name)).detach()
            assert (change - expected).norm() <= 0.04 * expected.norm(), name
