"""Events of a run, on its curve and next to it: recoveries, memory steps, checkpoints and cycles."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.content import Content

from engine.core.paths import Workspace
from engine.core.settings import Settings
from engine.runs.curve import Annotation, AnnotationKind
from engine.runs.events import (
    CheckpointWritten,
    CommandHandled,
    EvolutionCycle,
    GovernorAction,
    RecoveryAction,
)
from engine.runs.view import RunView
from tests.tui.helpers import text_of, until
from tests.tui.live_run import live_run
from tests.unit.test_view import step, view_of
from tui.app.app import H2QApp
from tui.tabs.train.lineage import lineage
from tui.terminal.glyphs import ASCII, UNICODE
from tui.terminal.text import cells
from tui.widgets import annotations as marks_module
from tui.widgets.annotations import MAX_PER_KIND, annotation_lines, legend, on_curve


def began(number: int, champion: str = "native-1") -> EvolutionCycle:
    return EvolutionCycle(
        cycle=number, cycles=3, state="began", champion=champion, candidate=f"evolve-c{number}"
    )


def ended(number: int, state: str, champion: str = "native-1", after: float = 3.3) -> EvolutionCycle:
    return EvolutionCycle(
        cycle=number, cycles=3, state=state, champion=champion, candidate=f"evolve-c{number}",
        before=3.5, after=after, p_value=0.001 if state == "kept" else 0.4, alpha=0.0083, look=2,
    )  # fmt: skip


GOVERNOR = GovernorAction(
    phase="native", step=3, cause="budget", action="smaller", used_mb=3900.0, budget_mb=4096.0,
    buffer_mb=512.0, pass_tokens=2048,
)  # fmt: skip
RECOVERY = RecoveryAction(phase="native", step=5, cause="spike", action="skipped", loss=9.0)
WRITTEN = CheckpointWritten(phase="native", step=6, path="x", seconds=0.03, bytes=9)


def full_view() -> RunView:
    steps = [step(number, 2.0) for number in range(1, 7)]
    return view_of(
        began(1), *steps[:3], GOVERNOR, *steps[3:5], RECOVERY, steps[5], WRITTEN, ended(1, "dropped"),
        began(2), *[step(number, 1.5) for number in range(1, 5)],
        CommandHandled(name="set", value="lr=0.01", accepted=True), WRITTEN, ended(2, "kept"),
    )  # fmt: skip


def test_a_later_cycle_follows_the_previous_one_on_the_curve() -> None:
    view = full_view()
    assert [x for x, _loss in view.series("native", "loss").points()] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    assert [(mark.kind, mark.step) for mark in view.annotations_of("native")] == [
        (AnnotationKind.CYCLE, 0),
        (AnnotationKind.GOVERNOR, 3),
        (AnnotationKind.RECOVERY, 5),
        (AnnotationKind.CHECKPOINT, 6),
        (AnnotationKind.CYCLE, 6),
        (AnnotationKind.CYCLE, 6),
        (AnnotationKind.COMMAND, 10),
        (AnnotationKind.CYCLE, 10),
        (AnnotationKind.CHECKPOINT, 12),
    ]
    assert view.curve_end == 106 and [cycle.state for cycle in view.cycles] == ["dropped", "kept"]


def test_every_kind_has_its_own_glyph_of_one_cell_with_and_without_unicode() -> None:
    for table in (marks_module.SIGNS, marks_module.ASCII):
        assert set(table) == set(AnnotationKind) and len(set(table.values())) == len(AnnotationKind)
        assert all(cells(sign) == 1 for sign in table.values())
    assert all(sign.isascii() for sign in marks_module.ASCII.values())


def test_the_legend_names_and_counts_the_annotations() -> None:
    assert legend(full_view().annotations_of("native")) == (
        "▼ recovery 1  ■ memory 1  ◆ by hand 1  ◇ checkpoint 2  ┃ cycle 3"
    )
    assert legend([]) == ""


def test_only_the_newest_annotations_of_each_kind_are_drawn() -> None:
    many = [Annotation("native", n, "", AnnotationKind.CHECKPOINT) for n in range(100)]
    few = [Annotation("native", 7, "", AnnotationKind.RECOVERY)]
    drawn = on_curve([*few, *many])
    assert len(drawn) == MAX_PER_KIND + 1 and drawn[-1].kind is AnnotationKind.RECOVERY, (
        "drawn over the others"
    )
    assert drawn[0].step == 100 - MAX_PER_KIND


def test_the_list_has_the_text_and_the_step_of_each_annotation() -> None:
    view = full_view()
    words = [line.text for line in annotation_lines([*view.annotations, *view.checkpoint_annotations])]
    assert "▼ step 5  the loss or its gradient spiked: skipped" in words
    assert any("micro-batches of 2048 bytes" in text and text.startswith("■ step 3") for text in words)


@pytest.mark.parametrize("width", [34, 55, 120])
@pytest.mark.parametrize("signs", [UNICODE, ASCII], ids=["unicode", "ascii"])
def test_a_lineage_fits_its_panel(width: int, signs: object) -> None:
    cycles = [
        ended(1, "dropped"),
        ended(2, "kept"),
        ended(3, "collapsed", "evolve-c2"),
        began(4, "evolve-c2"),
    ]
    lines: list[Content] = lineage(cycles, signs, width, 9)  # type: ignore[arg-type]
    text = "\n".join(line.plain for line in lines)
    assert all(cells(line.plain) <= width for line in lines) and len(lines) <= 9
    assert "native-1" in text and "evolve-c2" in text
    assert "+5.7 %" in text and "p 0.001 < 0.0083" in text and "kept" in text and "collapsed" in text
    assert len(lineage(cycles, UNICODE, width, 3)) <= 3
    assert "incomplete" in lineage([began(1)], UNICODE, width, 3, over=True)[1].plain


@pytest.mark.parametrize("size", [(80, 24), (120, 40)], ids=["80x24", "120x40"])
@pytest.mark.parametrize("signs", ["unicode", "ascii"])
async def test_the_train_tab_shows_the_evolution(tmp_path: Path, size: tuple[int, int], signs: str) -> None:
    app = H2QApp(Workspace(tmp_path), settings=Settings(signs=signs))  # type: ignore[arg-type]
    shown = marks_module.ASCII if signs == "ascii" else marks_module.SIGNS
    with live_run(Workspace(tmp_path), done=0) as run:
        run.write(began(1))
        for number in range(1, 40):
            run.step(number)
        for event in (GOVERNOR, RECOVERY, WRITTEN, ended(1, "kept"), began(2, "evolve-c1")):
            run.write(event)
        for number in range(1, 20):
            run.step(number)
        async with app.run_test(size=size) as pilot:
            await until(pilot, lambda: "Evolution" in text_of(app) and "recovery 1" in text_of(app))
            screen = text_of(app)
            top = [line for line in screen.splitlines() if shown[AnnotationKind.CYCLE] in line]
            assert any(
                shown[AnnotationKind.RECOVERY] in line and shown[AnnotationKind.GOVERNOR] in line
                for line in top
            )
            assert "checkpoint 1" in screen and "cycle 2" in screen and "+5.7 %" in screen
            await pilot.press("v")
            await until(pilot, lambda: "Events" in text_of(app))
            await pilot.press("v")
            await until(pilot, lambda: "Learning rate" in text_of(app))
