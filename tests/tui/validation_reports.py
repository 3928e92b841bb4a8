"""Reports and models for the tests of verdicts."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import msgspec

from engine.core import files
from engine.core.paths import Workspace
from engine.models.card import CARD_FILE, ModelCard, encode_card
from engine.validation.report import (
    AnswerPair,
    CaseScore,
    Measure,
    ModelScore,
    ValidationReport,
    Verdict,
)
from tui.app.app import H2QApp
from tui.tabs.validate.tab import ValidateTab


def measure(name: str, base: float, new: float, low: float, high: float, unit: str = "bits/byte") -> Measure:
    return Measure(name=name, unit=unit, base=base, new=new, delta=new - base, low=low, high=high)


def make_report(decision: str = "keep", cases: int = 6) -> ValidationReport:
    return ValidationReport(
        run_id="1120-220400-aa",
        created_at=1.0,
        window_id=1,
        verdict=Verdict(
            decision=decision,
            n_cases=cases,
            n_groups=cases,
            base=ModelScore(name="native-1", nll_per_byte=0.84, bits_per_byte=1.214),
            new=ModelScore(name="native-2", nll_per_byte=0.83, bits_per_byte=1.209),
            delta=0.005,
            p_value=0.21,
            alpha=0.025,
            look=1,
            ci95=(-0.01, 0.02),
            needed_cases=34,
            sentence="KEEP BASE — 0.6 % better, p = 0.21. About 34 more conversations would decide it.",
        ),
        measures=[
            measure("nll", 1.214, 1.209, -0.012, 0.002),
            measure("general", 1.302, 1.350, 0.03, 0.06),
            measure("general novel", 1.302, 1.204, -0.12, -0.08),
        ],
        answers=[
            AnswerPair(question="[red]怎么[/]重置?", wanted="设置里", base="the old way", new="the new way")
        ],
        cases=[
            CaseScore(conversation=f"c{n}", cluster=f"k{n}", bytes=100, base=1.0, new=1.0 + (n - 2) / 10)
            for n in range(cases)
        ],
    )


def add_model(ws: Workspace, name: str, created: float) -> None:
    folder = ws.models / name
    folder.mkdir(parents=True)
    weights = name.encode()
    (folder / "model.safetensors").write_bytes(weights)
    card = ModelCard(
        name=name,
        mode="native",
        created_at=created,
        parameters=1,
        context=64,
        weights_sha256=sha256(weights).hexdigest(),
    )
    (folder / CARD_FILE).write_bytes(encode_card(card))


def write_report(ws: Workspace, report: ValidationReport | None, name: str = "1") -> Path:
    file = ws.training / f"report_{name}.json"
    files.write_bytes(file, msgspec.json.encode({"run_id": "x", "validation": report}))
    return file


def gain_shown(tab: ValidateTab) -> float:
    assert tab.cases.deck.current is not None
    return tab.cases.deck.current.gain


async def opened(app: H2QApp) -> ValidateTab:
    await app.show_tab("validate")
    tab = app.tab
    assert isinstance(tab, ValidateTab)
    return tab
