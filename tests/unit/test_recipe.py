from __future__ import annotations

import msgspec
import pytest

from engine.core.errors import UsageProblem
from engine.runs.kinds import TrainParams
from engine.training.lr_schedule import Schedule
from engine.training.recipe import Phase, recipe_for


@pytest.mark.parametrize("context", [32, 128, 300, 512, 1024, 2048, 4096])
def test_scratch_ends_at_the_full_context(context: int) -> None:
    recipe = recipe_for(TrainParams(context=context), Phase.SCRATCH)
    lengths = [stage.context for stage in recipe.curriculum]
    assert lengths[-1] == recipe.size.context == context
    assert lengths == sorted(set(lengths))
    assert recipe.curriculum[-1].until == 1.0


def test_by_default_scratch_starts_short_and_native_uses_two_thousand_bytes() -> None:
    scratch = recipe_for(TrainParams(), Phase.SCRATCH)
    assert (scratch.curriculum[0].context, scratch.curriculum[-1].context) == (128, 2048)
    assert recipe_for(TrainParams(), Phase.NATIVE).curriculum[-1].context == 2048


def test_each_step_belongs_to_its_curriculum_stage() -> None:
    recipe = recipe_for(TrainParams(), Phase.SCRATCH)
    seen = [recipe.stage_at(step, 1000).context for step in range(1000)]
    assert seen == sorted(seen)
    assert seen.index(512) == round(recipe.curriculum[0].until * 1000)
    assert recipe.stage_at(1000, 1000).context == 2048


def test_the_h2q_preset_has_its_hyperparameters() -> None:
    recipe = recipe_for(TrainParams(recipe="h2q-local"), Phase.SCRATCH)
    assert (recipe.size.dim, recipe.size.heads, recipe.size.layers, recipe.size.context) == (256, 8, 6, 512)
    assert (recipe.optimizer, recipe.lr, recipe.schedule) == ("adamw", 1e-4, Schedule.COSINE)
    assert (recipe.curriculum[0].batch, recipe.epochs, recipe.clip) == (8, 10, 1.0)


def test_parameters_override_the_recipe() -> None:
    params = TrainParams(
        recipe="h2q-local", epochs=2, batch_size=3, accumulation=4, clip=0.0, max_steps=9, lr=0.5, seed=7
    )
    recipe = recipe_for(params, Phase.SCRATCH, time_budget_s=30.0)
    assert (recipe.epochs, recipe.curriculum[0].batch, recipe.accumulation, recipe.clip) == (2, 3, 4, 0.0)
    assert (recipe.max_steps, recipe.lr, recipe.seed, recipe.time_budget_s) == (9, 0.5, 7, 30.0)


def test_a_higher_rate_scales_all_groups_in_proportion() -> None:
    usual, doubled = (recipe_for(TrainParams(lr=lr), Phase.SCRATCH) for lr in (None, 0.04))
    assert doubled.lr == 0.04
    for name in ("embed_lr", "head_lr", "norm_lr"):
        assert getattr(doubled, name) == pytest.approx(getattr(usual, name) * 0.04 / usual.lr)


@pytest.mark.parametrize(
    ("changes", "flag"),
    [
        ({"recipe": "slow"}, "--recipe"),
        ({"epochs": 0}, "--epochs"),
        ({"batch_size": -1}, "--batch-size"),
        ({"accumulation": 0}, "--accumulation"),
        ({"max_steps": 0}, "--max-steps"),
        ({"context": 8}, "--context"),
        ({"lr": 0.0}, "--lr"),
        ({"lr": float("nan")}, "--lr"),
        ({"clip": -1.0}, "--clip"),
        ({"clip": float("nan")}, "--clip"),
        ({"max_memory_gb": 0.0}, "--max-memory-gb"),
    ],
)
def test_an_invalid_parameter_is_rejected_with_its_flag(changes: dict[str, object], flag: str) -> None:
    with pytest.raises(UsageProblem, match=flag):
        recipe_for(msgspec.structs.replace(TrainParams(), **changes), Phase.SCRATCH)


def test_the_digest_covers_exactly_what_changes_the_steps() -> None:
    recipe = recipe_for(TrainParams(), Phase.SCRATCH)
    same = msgspec.structs.replace(recipe, max_steps=5, checkpoint_every_s=1.0, time_budget_s=9.0)
    assert same.digest() == recipe.digest()
    assert msgspec.structs.replace(recipe, seed=1).digest() != recipe.digest()
