"""The end of the demo on the terminal: what came out, three questions before and after, and what to type next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.core.filenames import shell_command
from engine.core.i18n import _
from tui.cli import session
from tui.cli.help import wrap
from tui.terminal.text import cells, fit

if TYPE_CHECKING:
    from engine.core.paths import Workspace
    from engine.runs.view import RunView
    from engine.validation.report import AnswerPair

WIDTH = 78
"""Cells of a line of an answer."""
LABEL = 9
MOST_LINES = 7
"""Lines of an answer that are shown."""


def summary(ws: Workspace, view: RunView) -> list[str]:
    """A summary of the demo, the questions that both models answered, and what it does not show."""
    from engine.validation.report import newest_report

    lines = [""]
    if view.funnel is not None:
        lines.append(
            _(
                "corpus: {collected} conversations collected, {train} trained on, {test} held out for the test"
            ).format(
                collected=view.funnel.collected,
                train=view.plan.train_conversations if view.plan else 0,
                test=view.plan.test_conversations if view.plan else 0,
            )
        )
    if view.verdict is not None:
        lines.append(
            _("verdict on held-out conversations: {sentence}").format(sentence=view.verdict.sentence)
        )
        lines.append(
            _("the new model is better and is in use")
            if view.promoted is not None
            else _("the new model is not shown to be better: the base is kept")
        )
        report = newest_report(ws)
        if report is not None:
            lines += questions(report.questions)
    if not trained_adapter(view):
        lines += [
            "",
            _(
                "A model of this size only shows the loop: it imitates the style of its text and does not converse. "
                "For real use run the same loop with a larger base: tune an existing model "
                "(h2q-tui train --mode lora --model DIR), or give native more text and more time "
                "(h2q-tui train --mode scratch, then --mode native)."
            ),
        ]
    lines.append("")
    return lines


def trained_adapter(view: RunView) -> bool:
    """Whether the demo trained an adapter on a real base."""
    return any(stage.name == "lora" for stage in view.stages)


def questions(answers: list[AnswerPair]) -> list[str]:
    """Held-out questions with the answers of the base and of the new model below each other."""
    lines = []
    for number, answer in enumerate(answers, start=1):
        lines += ["", f"{number}. {_one_line(answer.question)}"]
        lines += _labelled(_("before"), answer.base)
        lines += _labelled(_("after"), answer.new)
    if lines:
        lines[:1] = ["", _("Questions from conversations that were held out, before and after the training:")]
    return lines


def next_steps(ws: Workspace, view: RunView) -> list[str]:
    """Commands that work now, with what each does."""
    from engine.models.resolve import workspace_bases

    steps = []
    if trained_adapter(view) and view.promoted is not None:
        steps.append((_("talk with your model"), session.own_command("chat")))
        base = view.verdict.base if view.verdict is not None else ""
        if any(place.reference == base for place in workspace_bases(ws)):
            steps.append((_("talk with its base"), session.own_command("chat", "--model", base)))
    steps += [
        (_("open the app on it"), session.own_command()),
        (_("the same with your own"), shell_command("h2q-tui", "memory", "import", "~/Downloads")),
    ]
    width = max(cells(text) for text, _command in steps)
    return [f"{fit(text + ':', width + 1)} {command}" for text, command in steps]


def _labelled(label: str, text: str) -> list[str]:
    """An answer behind its label, in lines of one width; "…" where it is longer."""
    rows = wrap(_one_line(text) or "–", WIDTH - 3 - LABEL)
    if len(rows) > MOST_LINES:
        rows = [*rows[: MOST_LINES - 1], rows[MOST_LINES - 1] + " …"]
    return [f"   {fit(label if number == 0 else '', LABEL)}{row}" for number, row in enumerate(rows)]


def _one_line(text: str) -> str:
    """`text` without its line breaks: the lists that a model writes take a line of the terminal for each of its own."""
    return " ".join(text.split())
