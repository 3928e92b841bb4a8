"""The actions of the Validate tab."""

from __future__ import annotations

from engine.core.i18n import N_
from tui.action_rows.row import AppAction, actions_of

VALIDATE = actions_of(
    "validate",
    AppAction(
        "validate.run",
        "enter",
        N_("verdict"),
        "validate",
        "h2q-tui validate --base A --new B",
        footer=True,
        help=N_("Show the verdict, or judge; judging again asks and names the look that it takes."),
    ),
    AppAction(
        "validate.diff",
        "d",
        N_("diff"),
        "validate",
        footer=True,
        help=N_("Show the differences between the old and the new answer."),
    ),
    AppAction(
        "validate.wins",
        "w",
        N_("wins"),
        "validate",
        footer=True,
        help=N_("What it predicts better, the largest gain first; again: back to the questions."),
    ),
    AppAction(
        "validate.losses",
        "W",
        N_("losses"),
        "validate",
        footer=True,
        help=N_("What it predicts worse, the worst first; again: back to the questions."),
    ),
    AppAction(
        "validate.vote_left",
        "[",
        N_("upper is better"),
        "validate",
        help=N_("Blind vote: whose the answers are is shown after it. It is kept in the report."),
    ),
    AppAction("validate.vote_right", "]", N_("lower is better"), "validate"),
    AppAction("validate.vote_equal", "=", N_("both are equal"), "validate"),
    AppAction(
        "validate.export",
        "E",
        N_("export"),
        "validate",
        "h2q-tui verdicts export",
        help=N_("Write Markdown, JSON, and samples as lm-evaluation-harness writes them."),
    ),
    AppAction("validate.promote", "a", N_("promote"), "validate", "h2q-tui promote NAME", footer=True),
    AppAction("validate.roll_back", "B", N_("roll back"), "validate", "h2q-tui rollback", footer=True),
)
