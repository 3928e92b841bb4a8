"""A seed may be any whole number: each gives the same steps and words again, and different ones from another."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import torch

from engine.core.paths import Workspace
from engine.core.seeds import usable_seed
from engine.core.settings import Settings
from engine.inference.language_model import Sampling, seed_of
from engine.inference.sampling import TokenSampler
from engine.models.base_models import find_base
from engine.models.transformer import ModelConfig, Transformer
from engine.runs.kinds import EvolveParams, TrainParams
from engine.runs.spec import make_spec, params_of
from engine.training.lora.train import train_lora
from engine.training.recipe import Phase, Recipe, recipe_for
from engine.training.rng_state import RngStates
from engine.training.scratch import train_scratch
from engine.training.text_stream import TextStream
from tests.unit.test_lora import rows
from tests.unit.training_run import new_run, text_file, tiny
from tui.cli.options import EVOLVE_OPTIONS, TRAIN_OPTIONS, run_params

ODD = (-1, -(2**70), 2**31, 2**32, 5_000_000_000, 2**63, 2**64 + 5, 10**40)
SEEDS = pytest.mark.parametrize("seed", ODD)


@pytest.mark.parametrize("seed", [0, 1, 7, 2**32, 2**63 - 1])
def test_an_ordinary_seed_is_used_as_it_is(seed: int) -> None:
    assert usable_seed(seed) == seed == seed_of(Sampling(seed=seed))


@SEEDS
@pytest.mark.parametrize(("options", "kind"), [(TRAIN_OPTIONS, TrainParams), (EVOLVE_OPTIONS, EvolveParams)])
def test_a_seed_of_the_command_line_reaches_the_run(seed: int, options: tuple, kind: type) -> None:  # type: ignore[type-arg]
    values = {option.name: option.default for option in options} | {"seed": seed}
    spec = make_spec(Path("/ws"), msgspec.convert(run_params(options, values), kind))
    recipe = recipe_for(TrainParams(seed=params_of(spec, kind).seed), Phase.NATIVE, settings=Settings())
    assert recipe.seed == usable_seed(seed)


def recipe(phase: Phase, seed: int) -> Recipe:
    """Two steps with the seed of a run."""
    if phase is Phase.SCRATCH:
        return msgspec.structs.replace(tiny(max_steps=2), seed=recipe_for(TrainParams(seed=seed), phase).seed)
    params = TrainParams(context=64, rank=2, batch_size=2, max_steps=2, seed=seed)
    return msgspec.structs.replace(recipe_for(params, phase), eval_bytes=64)


@SEEDS
def test_a_model_begins_and_reads_its_text_with_any_seed_twice_alike(tmp_path: Path, seed: int) -> None:
    text = text_file(tmp_path)

    def drawn(seed: int) -> list[torch.Tensor]:
        made = recipe(Phase.SCRATCH, seed)
        RngStates.seed_all(made.seed)
        model = Transformer(
            ModelConfig(dim=32, layers=1, heads=2, kv_heads=2, head_dim=16, ffn=32, context=64)
        )
        model.initialise(made.seed)
        stream = TextStream.training([text], seed=made.seed, shortest=16)
        starts = torch.tensor(stream.starts(3, 4, 16))
        return [model.model.embed_tokens.weight.detach(), starts, torch.rand(3)]

    one, again, other = drawn(seed), drawn(seed), drawn(3)
    assert all(map(torch.equal, one, again)) and not any(map(torch.equal, one, other))


def test_a_model_is_trained_with_a_negative_seed(tmp_path: Path) -> None:
    made = recipe(Phase.SCRATCH, -1)
    train_scratch(new_run(tmp_path), made, [text_file(tmp_path)], name="m", out=tmp_path / "m")


def test_an_adapter_is_trained_with_a_large_seed(tmp_path: Path, knowing_hf: Path) -> None:
    base = find_base(Workspace(tmp_path), str(knowing_hf))
    made = recipe(Phase.LORA, 5_000_000_000)
    train_lora(new_run(tmp_path), made, base, rows(tmp_path), name="mine", out=tmp_path / "mine")


@SEEDS
def test_an_answer_is_sampled_with_any_seed_twice_alike(seed: int) -> None:
    logits = torch.zeros(1000)

    def drawn() -> list[int]:
        sampling = msgspec.json.decode(
            msgspec.json.encode(Sampling(temperature=1.0, top_p=1.0, seed=usable_seed(seed))), type=Sampling
        )
        sampler = TokenSampler(sampling, seed_of(sampling))
        return [sampler.sample(logits) for _ in range(8)]

    assert drawn() == drawn()
