"""The actions of the Corpus tab."""

from __future__ import annotations

from engine.core.i18n import N_
from tui.action_rows.row import AppAction, actions_of

CORPUS = actions_of(
    "corpus",
    AppAction("corpus.accept", "a", N_("accept"), "corpus", "h2q-tui corpus accept ID", footer=True),
    AppAction(
        "corpus.reject",
        "x",
        N_("reject"),
        "corpus",
        "h2q-tui corpus reject ID --reason R",
        footer=True,
        help=N_("Then a digit or enter for the reason."),
    ),
    AppAction(
        "corpus.skip", "space", N_("skip"), "corpus", footer=True, help=N_("Go to the next conversation.")
    ),
    AppAction(
        "corpus.next_unreviewed",
        "]",
        N_("next unreviewed"),
        "corpus",
        help=N_(
            "Go to the next conversation that you have not decided on; the filter state:unreviewed lists them."
        ),
    ),
    AppAction(
        "corpus.edit",
        "e",
        N_("edit"),
        "corpus",
        "h2q-tui corpus edit ID --turn 2 --text TEXT",
        help=N_("Edit a turn in $EDITOR or in place; training uses the edited text."),
    ),
    AppAction(
        "corpus.flag",
        "f",
        N_("flag"),
        "corpus",
        "h2q-tui corpus flag ID",
        help=N_("Flag it for later; the filter flag: finds it."),
    ),
    AppAction(
        "corpus.diff",
        "d",
        N_("diff"),
        "corpus",
        "h2q-tui corpus show ID --diff",
        help=N_("What was redacted, masked or edited."),
    ),
    AppAction(
        "corpus.twin",
        "p",
        N_("duplicate"),
        "corpus",
        footer=True,
        help=N_("Show the conversation it duplicates."),
    ),
    AppAction("corpus.why", "w", N_("why"), "corpus", "h2q-tui corpus show ID", footer=True),
    AppAction(
        "corpus.threshold",
        "t",
        N_("threshold"),
        "corpus",
        "h2q-tui corpus threshold 0.7",
        help=N_("How strict the filters are, and what another value would change."),
    ),
    AppAction(
        "corpus.range",
        "v",
        N_("range"),
        "corpus",
        help=N_("Select from here; accept or reject applies to all."),
    ),
    AppAction(
        "corpus.accept_all", "A", N_("accept all"), "corpus", help=N_("All conversations under the filter.")
    ),
    AppAction(
        "corpus.reject_all", "X", N_("reject all"), "corpus", help=N_("All conversations under the filter.")
    ),
    AppAction(
        "corpus.pattern",
        "F",
        N_("make a rule"),
        "corpus",
        "h2q-tui corpus rule FILTER",
        help=N_("Reject everything that matches the pattern of your rejections."),
    ),
    AppAction("corpus.order", "O", N_("sort"), "corpus"),
    AppAction(
        "corpus.import",
        "i",
        N_("import"),
        "corpus",
        "h2q-tui memory import PATH",
        footer=True,
        help=N_("Import files into memory."),
    ),
    AppAction(
        "corpus.sample",
        "s",
        N_("take the sample"),
        "corpus",
        "h2q-tui sample",
        footer=True,
        help=N_("Write the sample into the workspace and import it."),
    ),
    AppAction(
        "corpus.build",
        "b",
        N_("build"),
        "corpus",
        "h2q-tui corpus build",
        footer=True,
        help=N_("Run the filters again."),
    ),
    AppAction(
        "corpus.restore",
        "B",
        N_("restore backup"),
        "corpus",
        "h2q-tui backup restore",
        footer=True,
        help=N_("Replace a damaged memory with the newest backup."),
    ),
)
