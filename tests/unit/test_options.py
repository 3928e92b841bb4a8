"""Options of the commands that train: each sets a run parameter, with the same default."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from engine.core.errors import UsageProblem
from engine.runs.kinds import EvolveParams, TrainParams
from tui.cli.options import EVOLVE_OPTIONS, TRAIN_OPTIONS, Option, run_params

KINDS = pytest.mark.parametrize(
    ("options", "params", "others"),
    [
        (TRAIN_OPTIONS, TrainParams, {"settings", "wait", "scheduled"}),
        (EVOLVE_OPTIONS, EvolveParams, {"settings", "wait"}),
    ],
    ids=["train", "evolve"],
)


def defaults(options: tuple[Option, ...]) -> dict[str, Any]:
    return {option.name: option.default for option in options}


@KINDS
def test_every_run_parameter_has_one_option(
    options: tuple[Option, ...], params: type[msgspec.Struct], others: set[str]
) -> None:
    fields = [option.field_name for option in options if option.field_name is not None]
    assert sorted(fields) == sorted(set(params.__struct_fields__) - others)


@KINDS
def test_without_flags_the_parameters_have_their_defaults(
    options: tuple[Option, ...], params: type[msgspec.Struct], others: set[str]
) -> None:
    assert msgspec.convert(run_params(options, defaults(options)), params) == params()


def test_flags_are_converted_to_their_parameters() -> None:
    values = defaults(TRAIN_OPTIONS) | {
        "mode": "lora", "no_4bit": True, "max_minutes": 1.5, "target_modules": "q_proj, v_proj", "no_promote": True
    }  # fmt: skip
    params = msgspec.convert(run_params(TRAIN_OPTIONS, values), TrainParams)
    assert params == TrainParams(
        mode=params.mode,
        four_bit=False,
        time_budget_s=90.0,
        target_modules=["q_proj", "v_proj"],
        promote=False,
    )
    assert params.mode == "lora"


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("mode", "magic", "--mode takes auto, native, scratch, lora, message, not magic"),
        ("lr", 0.0, "--lr takes more than 0 and up to 10, not 0.0"),
        ("lr", 11.0, "--lr takes more than 0 and up to 10, not 11.0"),
    ],
)
def test_a_value_that_is_not_allowed_is_refused(name: str, value: Any, sentence: str) -> None:
    option = next(option for option in TRAIN_OPTIONS if option.name == name)
    with pytest.raises(UsageProblem) as problem:
        option.check(value, "train")
    assert problem.value.message == sentence
