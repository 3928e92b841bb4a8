"""Joining adapters, against dense numpy matrices, numpy's SVD, and PEFT itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from engine.core.errors import H2QError, NotEnoughData, UsageProblem
from engine.hive.aggregation import entrywise
from engine.hive.aggregation.join import join_adapters
from engine.hive.aggregation.terms import Contribution, JoinMethod, JoinOptions, JoinReport
from engine.hive.privacy import NoiseOptions
from tests.lora_adapters import SHAPES, Matrix, factors, relative, updates, write_adapter


def _adapters(folder: Path, ranks: Sequence[int], **config: Any) -> list[Contribution]:
    return [
        Contribution(
            f"a{seed}", write_adapter(folder / f"a{seed}", factors(seed, rank), **config), samples=seed + 1.0
        )
        for seed, rank in enumerate(ranks)
    ]


def _mean(contributions: Sequence[Contribution]) -> dict[str, Matrix]:
    total = sum(one.samples for one in contributions)
    found = [(one.samples / total, updates(one.folder)) for one in contributions]
    return {name: sum((weight * made[name] for weight, made in found), np.zeros(1)) for name in SHAPES}


def _best(matrices: Mapping[str, Matrix], rank: int) -> dict[str, Matrix]:
    best = {}
    for name, matrix in matrices.items():
        left, values, right = np.linalg.svd(matrix, full_matrices=False)
        best[name] = (left[:, :rank] * values[:rank]) @ right[:rank]
    return best


def _join(contributions: Sequence[Contribution], folder: Path, **options: Any) -> JoinReport:
    return join_adapters(contributions, folder, JoinOptions(**options))


@pytest.mark.parametrize("config", [{}, {"use_rslora": True}, {"alpha": 3.0}])
@pytest.mark.parametrize("ranks", [(4, 4, 4), (2, 5, 3), (8,)])
def test_stacking_is_the_weighted_mean_of_the_updates(
    tmp_path: Path, ranks: tuple[int, ...], config: dict[str, Any]
) -> None:
    adapters = _adapters(tmp_path, ranks, **config)
    report = _join(adapters, tmp_path / "out", method=JoinMethod.STACK)
    assert relative(updates(tmp_path / "out"), _mean(adapters)) < 1e-6
    assert report.rank == sum(ranks)
    assert report.error_vs_exact < 1e-6
    assert report.energy == pytest.approx(1)


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_svd_is_the_best_adapter_of_its_rank(tmp_path: Path, rank: int) -> None:
    adapters = _adapters(tmp_path, (4, 4, 6))
    report = _join(adapters, tmp_path / "out", method=JoinMethod.SVD, rank=rank)
    mean = _mean(adapters)
    best = _best(mean, rank)
    assert relative(updates(tmp_path / "out"), best) < 1e-6
    assert report.error_vs_exact == pytest.approx(relative(best, mean), abs=1e-6)
    assert report.energy == pytest.approx(1 - relative(best, mean) ** 2, abs=1e-6)


def test_the_mean_of_factors_is_wrong_and_says_by_how_much(tmp_path: Path) -> None:
    adapters = _adapters(tmp_path, (4,) * 5)
    report = _join(adapters, tmp_path / "out", method=JoinMethod.FEDAVG)
    off = relative(updates(tmp_path / "out"), _mean(adapters))
    assert off > 0.5
    assert report.error_vs_exact == pytest.approx(off, abs=1e-6)
    stacked = _join(adapters, tmp_path / "stack", method=JoinMethod.STACK)
    assert stacked.naive_error == pytest.approx(off, abs=1e-5)


@pytest.mark.parametrize("rank", [None, 4, 6])
def test_fedex_adds_the_residual_in_the_ranks_that_are_left(tmp_path: Path, rank: int | None) -> None:
    adapters = _adapters(tmp_path, (4, 4, 4))
    naive = tmp_path / "naive"
    _join(adapters, naive, method=JoinMethod.FEDAVG)
    report = _join(adapters, tmp_path / "out", method=JoinMethod.FEDEX, rank=rank)
    mean, first = _mean(adapters), updates(naive)
    residual = {name: mean[name] - first[name] for name in mean}
    wanted = {name: first[name] + best for name, best in _best(residual, report.rank - 4).items()}
    assert relative(updates(tmp_path / "out"), wanted) < 1e-6
    assert report.residual_rank == report.rank - 4
    assert report.residual == pytest.approx(relative(first, mean), abs=1e-6)
    assert (report.error_vs_exact < 1e-6) == (rank is None)


def test_one_frozen_a_keeps_the_rank_and_is_exact(tmp_path: Path) -> None:
    adapters = [
        Contribution(
            f"a{seed}", write_adapter(tmp_path / f"a{seed}", factors(seed, 4, a_seed=99)), seed + 1.0
        )
        for seed in range(4)
    ]
    for method in (JoinMethod.STACK, JoinMethod.SVD, JoinMethod.FEDAVG):
        report = _join(adapters, tmp_path / method, method=method, frozen_a=True)
        assert (report.rank, report.shared_a) == (4, True)
        assert relative(updates(tmp_path / method), _mean(adapters)) < 1e-6
    other = Contribution("other", write_adapter(tmp_path / "other", factors(7, 4)))
    report = _join([*adapters, other], tmp_path / "out", method=JoinMethod.STACK, frozen_a=True)
    assert [one.adapter for one in report.refused] == ["other"]


def test_clipping_scales_updates_down_to_the_median_norm(tmp_path: Path) -> None:
    adapters = _adapters(tmp_path, (4,) * 5)
    loud = factors(9, 4)
    adapters.append(Contribution("loud", write_adapter(tmp_path / "loud", loud, alpha=800.0)))
    report = _join(adapters, tmp_path / "out", method=JoinMethod.CLIP, rank=20)
    total = sum(one.samples for one in adapters)
    made = {one.name: updates(one.folder) for one in adapters}
    norms = {name: np.sqrt(sum((value**2).sum() for value in one.values())) for name, one in made.items()}
    bound = np.median(list(norms.values()))
    wanted = {
        name: sum(
            (
                one.samples / total * min(1.0, bound / norms[one.name]) * made[one.name][name]
                for one in adapters
            ),
            np.zeros(1),
        )
        for name in SHAPES
    }
    assert relative(updates(tmp_path / "out"), wanted) < 1e-5
    flagged = {one.adapter: one.flags for one in report.adapters if one.flags}
    assert flagged.keys() == {"loud"}
    assert "norm" in flagged["loud"]


@pytest.mark.parametrize("method", [JoinMethod.TRIMMED, JoinMethod.MEDIAN])
@pytest.mark.parametrize("band", [entrywise.BAND, 5000])
def test_rules_entry_by_entry(
    tmp_path: Path, method: JoinMethod, band: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entrywise, "BAND", band)
    adapters = _adapters(tmp_path, (4,) * 7)
    report = _join(adapters, tmp_path / "out", method=method, rank=5, hostile=2)
    dense = {name: np.stack([updates(one.folder)[name] for one in adapters]) for name in SHAPES}
    wanted = {
        name: np.median(values, axis=0)
        if method == JoinMethod.MEDIAN
        else np.sort(values, axis=0)[2:-2].mean(0)
        for name, values in dense.items()
    }
    best = _best(wanted, 5)
    assert relative(updates(tmp_path / "out"), best) < 1e-6
    assert report.error_vs_exact == pytest.approx(relative(best, wanted), abs=1e-6)


def test_large_matrices_are_truncated_as_well_as_by_a_full_svd() -> None:
    draw = np.random.default_rng(3)
    matrix = draw.standard_normal((700, 600)) + 3 * draw.standard_normal((700, 4)) @ draw.standard_normal(
        (4, 600)
    )
    found = entrywise.truncate_full(matrix, 12)
    best = float((np.linalg.svd(matrix, compute_uv=False)[:12] ** 2).sum())
    assert found.kept == pytest.approx(best, rel=1e-6)
    assert ((found.b @ found.a - matrix) ** 2).sum() == pytest.approx(found.total - best, rel=1e-5)


def test_krum_takes_those_close_to_their_neighbours(tmp_path: Path) -> None:
    shared = factors(50, 4)
    adapters = []
    for seed in range(9):
        own = factors(seed, 4)
        made = {name: (shared[name][0] + 0.2 * own[name][0], shared[name][1]) for name in SHAPES}
        if seed in (3, 7):
            made = {name: (-b, a) for name, (b, a) in made.items()}
        adapters.append(Contribution(f"a{seed}", write_adapter(tmp_path / f"a{seed}", made)))
    report = _join(adapters, tmp_path / "out", method=JoinMethod.KRUM, hostile=2, rank=16)
    assert [one.adapter for one in report.adapters if one.used == 0] == ["a3", "a7"]
    assert {one.adapter for one in report.adapters if "against" in one.flags} == {"a3", "a7"}
    honest = [one for one in adapters if one.name not in ("a3", "a7")]
    assert relative(updates(tmp_path / "out"), _mean(honest)) < 1e-6
    clipped = _join(adapters, tmp_path / "clip", rank=16)
    assert [one.adapter for one in clipped.adapters if one.used == 0] == ["a3", "a7"]
    with pytest.raises(UsageProblem):
        _join(adapters[:6], tmp_path / "few", method=JoinMethod.KRUM, hostile=2)


@pytest.mark.parametrize(
    ("dtypes", "written"),
    [
        ((torch.bfloat16, torch.bfloat16), torch.bfloat16),
        ((torch.float16, torch.float16), torch.float16),
        ((torch.bfloat16, torch.float16), torch.float32),
    ],
)
def test_the_number_format_stays(
    tmp_path: Path, dtypes: tuple[torch.dtype, ...], written: torch.dtype
) -> None:
    adapters = [
        Contribution(f"a{seed}", write_adapter(tmp_path / f"a{seed}", factors(seed, 4), dtype=dtype))
        for seed, dtype in enumerate(dtypes)
    ]
    report = _join(adapters, tmp_path / "out", method=JoinMethod.STACK)
    with safe_open(tmp_path / "out" / "adapter_model.safetensors", "pt") as tensors:
        assert {tensors.get_tensor(key).dtype for key in tensors.keys()} == {written}  # noqa: SIM118
    off = relative(updates(tmp_path / "out"), _mean(adapters))
    assert off < {torch.bfloat16: 6e-3, torch.float16: 6e-4, torch.float32: 1e-6}[written]
    assert report.error_vs_exact == pytest.approx(off, rel=1e-3, abs=1e-6)


def test_a_matrix_that_an_adapter_lacks_is_a_zero_update(tmp_path: Path) -> None:
    name, *_others = SHAPES
    small = {name: factors(1, 2)[name]}
    adapters = [
        Contribution("all", write_adapter(tmp_path / "all", factors(0, 3))),
        Contribution("one", write_adapter(tmp_path / "one", small)),
    ]
    _join(adapters, tmp_path / "out", method=JoinMethod.STACK)
    found = updates(tmp_path / "out")
    for module, value in updates(adapters[0].folder).items():
        wanted = (value + (updates(adapters[1].folder)[name] if module == name else 0)) / 2
        assert np.abs(found[module] - wanted).max() < 1e-6
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["target_modules"] == sorted(SHAPES)


def test_what_cannot_be_joined_is_refused_by_its_rule(tmp_path: Path) -> None:
    good = _adapters(tmp_path, (4, 4, 4))
    nan = factors(5, 4)
    nan["model.layers.0.mlp.down_proj"][0][1, 1] = np.nan
    zero = {name: (b * 0, a) for name, (b, a) in factors(5, 4).items()}
    wide = factors(5, 4, {name: (rows + 1, columns) for name, (rows, columns) in SHAPES.items()})
    bad = [
        ("nan", write_adapter(tmp_path / "nan", nan), "finite"),
        ("zero", write_adapter(tmp_path / "zero", zero), "unchanged"),
        ("wide", write_adapter(tmp_path / "wide", wide), "shapes"),
        ("other", write_adapter(tmp_path / "b", factors(5, 4), base_model_name_or_path="/x/else"), "base"),
        ("missing", tmp_path / "nothing", "config"),
    ]
    contributions = [*good, *(Contribution(name, folder) for name, folder, _rule in bad)]
    report = _join(contributions, tmp_path / "out", method=JoinMethod.STACK)
    assert {one.adapter: one.rule for one in report.refused} == {name: rule for name, _folder, rule in bad}
    assert relative(updates(tmp_path / "out"), _mean(good)) < 1e-6
    with pytest.raises(NotEnoughData):
        _join([Contribution(name, folder) for name, folder, _rule in bad[:2]], tmp_path / "none")


def test_one_base_may_be_spelt_as_each_machine_has_it(tmp_path: Path) -> None:
    names = ("/home/ann/Tiny-Base.gguf", "org/tiny-base", "tiny-base/")
    contributions = [
        Contribution(
            name, write_adapter(tmp_path / str(seed), factors(seed, 2), base_model_name_or_path=name)
        )
        for seed, name in enumerate(names)
    ]
    assert not _join(contributions, tmp_path / "out", method=JoinMethod.STACK).refused


def test_an_update_beyond_the_number_format_is_not_written_as_infinity(tmp_path: Path) -> None:
    huge = [
        Contribution(
            f"a{seed}",
            write_adapter(tmp_path / f"a{seed}", factors(seed, 2), alpha=2.0**31, dtype=torch.float16),
        )
        for seed in range(2)
    ]
    made = {name: (b * 3e4, a * 3e4) for name, (b, a) in factors(7, 2).items()}
    huge.append(Contribution("b", write_adapter(tmp_path / "b", made, alpha=2.0**31, dtype=torch.float16)))
    with pytest.raises(H2QError, match="F16"):
        _join(huge, tmp_path / "out", method=JoinMethod.STACK)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "options",
    [
        {"method": JoinMethod.STACK, "rank": 3},
        {"method": JoinMethod.FEDEX, "rank": 3},
        {"rank": 0},
        {"method": JoinMethod.MEDIAN, "noise": NoiseOptions(1.0, 1.0)},
        {"noise": NoiseOptions(0.0, 1.0)},
    ],
)
def test_options_that_do_not_fit_write_nothing(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(H2QError):
        _join(_adapters(tmp_path, (4, 4, 4)), tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_peft_loads_the_result_and_adds_what_the_report_says(tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=32,
        hidden_size=20,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        head_dim=12,
    )
    torch.manual_seed(0)
    base = LlamaForCausalLM(config)
    before = {name: value.detach().clone() for name, value in base.state_dict().items()}
    shapes = {
        f"model.layers.{layer}.{name}": shape
        for layer in range(2)
        for name, shape in (("self_attn.q_proj", (24, 20)), ("mlp.down_proj", (20, 48)))
    }
    adapters = [
        Contribution(
            f"a{seed}", write_adapter(tmp_path / f"a{seed}", factors(seed, 3 + seed, shapes)), 1.0 + seed
        )
        for seed in range(3)
    ]
    _join(adapters, tmp_path / "out", method=JoinMethod.STACK)
    merged = PeftModel.from_pretrained(base, str(tmp_path / "out")).merge_and_unload().state_dict()
    for name, value in before.items():
        module = name.removesuffix(".weight")
        change = (merged[name] - value).double().numpy()
        wanted = sum((w * updates(one.folder)[module] for one, w in zip(adapters, (1 / 6, 2 / 6, 3 / 6), strict=True)), np.zeros(1)) if module in shapes else np.zeros(1)  # fmt: skip
        assert np.abs(change - wanted).max() < 1e-5


def test_noise_has_the_promised_deviation(tmp_path: Path) -> None:
    shapes = {"model.layers.0.self_attn.q_proj": (300, 200)}
    adapters = [
        Contribution(f"a{seed}", write_adapter(tmp_path / f"a{seed}", factors(seed, 2, shapes, a_seed=1)))
        for seed in range(4)
    ]
    quiet = _join(adapters, tmp_path / "quiet", noise=NoiseOptions(1e-9, 0.5, seed=1), frozen_a=True, rank=2)
    loud = _join(adapters, tmp_path / "loud", noise=NoiseOptions(2.0, 0.5, seed=1), frozen_a=True, rank=2)
    one = "model.layers.0.self_attn.q_proj"
    sent = [updates(adapter.folder)[one] for adapter in adapters]
    clipped = [update * min(1.0, 0.5 / float(np.linalg.norm(update))) for update in sent]
    assert relative(updates(tmp_path / "quiet"), {one: sum(clipped, np.zeros(1)) / 4}) < 1e-5
    added = updates(tmp_path / "loud")["model.layers.0.self_attn.q_proj"] - updates(tmp_path / "quiet")["model.layers.0.self_attn.q_proj"]  # fmt: skip
    # 300 x 2 values in the space of A, each with deviation 2.0 * 0.5 / 4.
    assert np.sqrt((added**2).sum() / 600) == pytest.approx(0.25, rel=0.1)
    assert quiet.privacy is not None and loud.privacy is not None
    assert loud.privacy.noise_to_norm == pytest.approx(2.0 * np.sqrt(600) / 4)
    free = _join(adapters, tmp_path / "free", noise=NoiseOptions(2.0, 0.5, seed=1), rank=200)
    assert free.rank == 200
    noise = updates(tmp_path / "free")["model.layers.0.self_attn.q_proj"] - updates(tmp_path / "quiet")["model.layers.0.self_attn.q_proj"]  # fmt: skip
    assert noise.std() == pytest.approx(0.25, rel=0.05)
