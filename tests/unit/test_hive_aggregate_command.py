"""`h2q-tui hive aggregate`: adapters in folders of this machine."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from engine.models.adapter_settings import read_adapter_settings
from engine.models.card import CARD_FILE, Lineage, ModelCard, encode_card, read_card
from tests.cli import run_cli
from tests.lora_adapters import factors, relative, updates, write_adapter

FIELDS = {"version", "num_adapters", "method", "rank", "energy", "error_vs_exact", "refused"}
CARD = ModelCard(
    name="one", mode="lora", base="tiny", base_path="/models/tiny", base_sha256="ab", created_at=1.0, parameters=1,
    context=512, languages=["en"], train_bytes=10,
)  # fmt: skip


def _three(folder: Path) -> list[str]:
    return [str(write_adapter(folder / f"a{seed}", factors(seed, 4))) for seed in range(3)]


def test_the_result_is_written_and_reported(tmp_path: Path) -> None:
    folders = _three(tmp_path)
    words = ("hive", "aggregate", *folders, "--output", str(tmp_path / "out"), "--method", "stack")
    done = run_cli(*words, "--weights", "1,1,2", "--json", "--data-dir", str(tmp_path / "ws"))
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert report.keys() >= FIELDS
    assert (report["version"], report["num_adapters"], report["rank"]) == ("out", 3, 12)
    one, two, three = (updates(Path(folder)) for folder in folders)
    wanted = {name: (one[name] + two[name] + 2 * three[name]) / 4 for name in one}
    assert relative(updates(tmp_path / "out"), wanted) < 1e-6
    assert read_adapter_settings(tmp_path / "out").rank == 12
    assert not (tmp_path / "ws").exists()
    shown = run_cli(*words, "--data-dir", str(tmp_path / "ws"))
    assert shown.code == 0, shown.err
    assert "joined 3 adapters by stack" in shown.out and "the mean of the factors would be off" in shown.out


def test_adapters_of_the_workspace_are_named_and_their_lineage_joins(tmp_path: Path) -> None:
    for number, ids in enumerate((["c1"], ["c2", "c3", "c4"])):
        folder = write_adapter(tmp_path / "ws" / "adapters" / f"a{number}", factors(number, 4))
        card = msgspec.structs.replace(CARD, name=f"a{number}", lineage=Lineage(conversations=ids))
        (folder / CARD_FILE).write_bytes(encode_card(card))
    done = run_cli(
        "hive", "aggregate", "a0", "a1", "--output", str(tmp_path / "out"), "--json", "--data-dir", str(tmp_path / "ws")
    )  # fmt: skip
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert [one["weight"] for one in report["adapters"]] == [0.25, 0.75]
    card = read_card(tmp_path / "out")
    assert card.lineage.conversations == ["c1", "c2", "c3", "c4"]
    assert card.weights_sha256 == report["sha256"]
    assert (card.base_path, card.train_bytes, card.parameters) == ("/models/tiny", 20, report["parameters"])


def test_epsilon_is_said(tmp_path: Path) -> None:
    options = ("--noise", "1", "--norm", "0.5", "--rounds-before", "9")
    done = run_cli("hive", "aggregate", *_three(tmp_path), "--output", str(tmp_path / "out"), *options)
    assert done.code == 0, done.err
    assert "epsilon 19.05" in done.out and "10 rounds" in done.out


@pytest.mark.parametrize(
    ("options", "code", "part"),
    [
        (["--method", "average"], 2, "average"),
        (["--weights", "1,2"], 2, "3 adapters and 2 weights"),
        (["--weights", "1,x,2"], 2, "--weights"),
        (["--weights", "1,-1,2"], 2, "above 0"),
        (["--weights", "1,nan,2"], 2, "above 0"),
        (["--noise", "1"], 2, "--norm"),
        (["--method", "krum"], 2, "5 adapters"),
        (["--method", "stack", "--rank", "2"], 2, "rank 12"),
        (["--method", "trimmed", "--hostile", "2"], 2, "too few"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(
    tmp_path: Path, options: list[str], code: int, part: str
) -> None:
    done = run_cli("hive", "aggregate", *_three(tmp_path), "--output", str(tmp_path / "out"), *options)
    assert done.code == code
    assert part in done.err
    assert not (tmp_path / "out").exists()


def test_without_a_usable_adapter_nothing_is_written(tmp_path: Path) -> None:
    done = run_cli("hive", "aggregate", str(tmp_path / "none"), "--output", str(tmp_path / "out"))
    assert done.code == 3
    assert "no adapter can be joined" in done.err
    assert not (tmp_path / "out").exists()
