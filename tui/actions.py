"""The table of all actions of the app.

An action feeds the keys, the command palette, the `?` sheet, the footer and the command line shown. To add one: add it
here, and a method `action_<verb>` to the tab (or to `GlobalActions`, for an action of EVERYWHERE), where the verb is
the part of the id after the last dot. An action without a method in the tab on the screen is not offered.
`tui/app/bindings.py` makes Textual's bindings of the table; the user's own keys (`keys` in the settings) replace `key`
by id.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from textual.keys import key_to_character

from engine.core.i18n import N_

EVERYWHERE = "everywhere"
TAB_TITLES = {
    "train": N_("Train"),
    "corpus": N_("Corpus"),
    "validate": N_("Validate"),
    "chat": N_("Chat"),
    "health": N_("Health"),
}
"""Titles of the tabs by their ids."""


@dataclass(frozen=True)
class AppAction:
    """One action."""

    id: str
    """`<tab>.<verb>`, or `<verb>` alone everywhere."""
    key: str
    """Characters as typed, else Textual's key names, separated by spaces; the first one is shown."""
    label: str
    """One to three words for footer and palette, marked for the catalogs."""
    tab: str
    """TAB_ID, or EVERYWHERE."""
    command: str = ""
    """The equivalent command line; "" for an action on the screen alone."""
    palette: bool = True
    footer: bool = False
    help: str = ""
    """One sentence for the `?` sheet; "" where the label is enough."""
    outside: bool = False
    """A letter in a tab whose field usually has the focus: it works after `esc`, and the sheet says so."""
    priority: bool = False
    """Its key works above an open sheet too."""

    @property
    def verb(self) -> str:
        return self.id.rpartition(".")[2]

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(self.key.split())


def _actions(tab: str, *actions: AppAction) -> tuple[AppAction, ...]:
    assert all(action.tab == tab for action in actions)
    return actions


_E = EVERYWHERE

_EVERYWHERE = _actions(
    _E,
    AppAction("go_tab", "1 2 3 4 5 6 7 8 9", N_("tabs"), _E, palette=False),
    AppAction("tab_before", "<", N_("previous tab"), _E),
    AppAction("tab_after", ">", N_("next tab"), _E),
    AppAction("next_panel", "tab", N_("next panel"), _E, palette=False),
    AppAction(
        "keys", "?", N_("keys"), _E, footer=True, help=N_("The keys of this panel, and their commands.")
    ),
    AppAction("palette", "ctrl+p :", N_("find an action"), _E, palette=False),
    AppAction("filter", "/", N_("filter"), _E, help=N_("A chip shows the filter; esc clears it.")),
    AppAction(
        "back", "escape", N_("back"), _E, palette=False, help=N_("Leaves a field, or clears the filter.")
    ),
    AppAction("move_left", "h", N_("left"), _E, palette=False),
    AppAction("move_down", "j", N_("down"), _E, palette=False),
    AppAction("move_up", "k", N_("up"), _E, palette=False),
    AppAction("move_right", "l", N_("right"), _E, palette=False),
    AppAction("go_top", "g", N_("first"), _E, palette=False),
    AppAction("go_end", "G", N_("last"), _E, palette=False),
    AppAction("enlarge", "+", N_("enlarge"), _E, help=N_("Only this panel; esc shows all again.")),
    AppAction("undo", "u", N_("undo"), _E),
    AppAction("redo", "U ctrl+r", N_("redo"), _E),
    AppAction("refresh", "R", N_("refresh"), _E),
    AppAction(
        "copy",
        "y",
        N_("copy"),
        _E,
        help=N_("Copies the item under the cursor to the clipboard of your terminal."),
    ),
    AppAction(
        "fetch_model",
        "D",
        N_("get a base model"),
        _E,
        "h2q-tui models fetch smollm2",
        help=N_("Downloads a small base model with pip, after asking: the only step that needs a network."),
    ),
    AppAction("settings", "S", N_("settings"), _E, help=N_("Language, theme, signs, memory budget, keys.")),
    AppAction(
        "redraw",
        "ctrl+l",
        N_("redraw"),
        _E,
        help=N_("Draws the whole screen again, when something else has written on it."),
        priority=True,
    ),
    AppAction(
        "suspend",
        "ctrl+z",
        N_("suspend"),
        _E,
        help=N_("Back to the shell; fg returns to the app. Runs continue."),
        priority=True,
    ),
    AppAction("leave", "q Q f10", N_("leave"), _E, help=N_("Quit the app; runs continue.")),
)

_TRAIN = _actions(
    "train",
    AppAction(
        "train.new",
        "n",
        N_("new"),
        "train",
        "h2q-tui train --detach",
        footer=True,
        help=N_("Start a training run."),
    ),
    AppAction(
        "train.pause",
        "space",
        N_("pause"),
        "train",
        "h2q-tui runs pause ID",
        footer=True,
        help=N_(
            "Pause or resume; a training that died, was stopped or failed resumes from its newest checkpoint (runs resume ID)."
        ),
    ),
    AppAction(
        "train.checkpoint",
        "s",
        N_("checkpoint"),
        "train",
        "h2q-tui runs checkpoint ID",
        footer=True,
        help=N_("Write a checkpoint now."),
    ),
    AppAction(
        "train.stop",
        "x",
        N_("stop"),
        "train",
        "h2q-tui runs stop ID",
        footer=True,
        help=N_("Write a checkpoint and stop; asks once."),
    ),
    AppAction("train.kill", "X", N_("kill"), "train", help=N_("End the run immediately; asks for its id.")),
    AppAction(
        "train.rate",
        "L",
        N_("rate"),
        "train",
        "h2q-tui runs set ID lr=0.01",
        footer=True,
        help=N_("Replace the peak learning rate of the run; the schedule goes on from it."),
    ),
    AppAction(
        "train.log",
        "o",
        N_("log"),
        "train",
        "h2q-tui runs attach ID",
        help=N_("The log alone, or the plots again."),
    ),
    AppAction(
        "train.mark",
        "m",
        N_("mark"),
        "train",
        footer=True,
        help=N_("Mark the run to compare it with others, or unmark it; up to four."),
    ),
    AppAction(
        "train.compare",
        "c",
        N_("compare"),
        "train",
        footer=True,
        help=N_("The marked runs over each other, with a table: best and held-out loss, speed, verdict."),
    ),
    AppAction("train.run_before", "[", N_("previous run"), "train", palette=False),
    AppAction("train.run_after", "]", N_("next run"), "train", palette=False),
    AppAction(
        "train.second",
        "v",
        N_("side panel"),
        "train",
        "h2q-tui runs show ID --plot",
        help=N_("What the model writes, the learning rate, events of the run, or cycles of an evolution."),
    ),
    AppAction(
        "train.scale", "Y", N_("log scale"), "train", help=N_("Loss on a logarithmic axis, or linear.")
    ),
)

_CORPUS = _actions(
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

_VALIDATE = _actions(
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

_CHAT = _actions(
    "chat",
    AppAction(
        "chat.send",
        "enter",
        N_("send"),
        "chat",
        "h2q-tui chat --prompt TEXT",
        palette=False,
        footer=True,
        help=N_("ctrl+j, or \\ at the end of a line, starts a new line."),
    ),
    AppAction(
        "chat.stop", "x", N_("stop"), "chat", footer=True, outside=True, help=N_("Stop the answer here.")
    ),
    AppAction("chat.better_left", "[", N_("left better"), "chat", footer=True, outside=True, palette=False),
    AppAction("chat.better_right", "]", N_("right better"), "chat", footer=True, outside=True, palette=False),
    AppAction("chat.equal", "=", N_("equal"), "chat", footer=True, outside=True, palette=False),
    AppAction(
        "chat.again",
        "r",
        N_("again"),
        "chat",
        footer=True,
        outside=True,
        help=N_("Another answer; the earlier ones stay as versions."),
    ),
    AppAction(
        "chat.keep",
        "K",
        N_("keep in memory"),
        "chat",
        "h2q-tui memory add",
        footer=True,
        outside=True,
        help=N_("Question and answer become training data with the next corpus build."),
    ),
    AppAction(
        "chat.edit",
        "e",
        N_("correct"),
        "chat",
        footer=True,
        outside=True,
        help=N_("Write the answer as it should be; your version goes to memory, the model's beside it."),
    ),
    AppAction(
        "chat.version_before",
        "left",
        N_("previous version"),
        "chat",
        outside=True,
        palette=False,
        help=N_("The earlier versions of an answer."),
    ),
    AppAction("chat.version_after", "right", N_("next version"), "chat", outside=True, palette=False),
    AppAction("chat.turn_before", "{", N_("previous question"), "chat", outside=True, palette=False),
    AppAction("chat.turn_after", "}", N_("next question"), "chat", outside=True, palette=False),
    AppAction(
        "chat.compare",
        "A",
        N_("two models"),
        "chat",
        footer=True,
        outside=True,
        help=N_("Two models answer side by side, unnamed until your vote with [ ] or =; again: one model."),
    ),
    AppAction(
        "chat.route",
        "w",
        N_("who answers"),
        "chat",
        outside=True,
        help=N_(
            "The model that you picked, or for each question the personal one, the general one, or both."
        ),
    ),
    AppAction(
        "chat.sampling",
        "s",
        N_("sampling"),
        "chat",
        "h2q-tui chat --temperature 0.7 --system TEXT",
        outside=True,
        help=N_("Temperature, top-p, longest answer, seed and system prompt of this chat."),
    ),
    AppAction(
        "chat.chats",
        "o",
        N_("earlier chats"),
        "chat",
        footer=True,
        outside=True,
        help=N_("Opens, searches and deletes chats; / searches too."),
    ),
    AppAction(
        "chat.clear",
        "C",
        N_("new chat"),
        "chat",
        outside=True,
        help=N_("An empty chat; this one stays among the earlier ones."),
    ),
    AppAction("chat.demo", "d", N_("sample"), "chat", "h2q-tui demo", footer=True, outside=True),
    AppAction("chat.fetch", "f", N_("get a model"), "chat", footer=True, outside=True, palette=False),
    AppAction("chat.train", "n", N_("train"), "chat", "h2q-tui train --detach", footer=True, outside=True),
    AppAction("chat.model", "M", N_("model"), "chat", "h2q-tui chat --model NAME", outside=True),
)

_HEALTH = _actions(
    "health",
    AppAction("health.faster", ",", N_("shorter interval"), "health"),
    AppAction("health.slower", ".", N_("longer interval"), "health", "h2q-tui monitor --interval 2"),
    AppAction("health.now", "r", N_("refresh"), "health", "h2q-tui monitor --plain", footer=True),
    AppAction(
        "health.clear", "c C", N_("clear"), "health", footer=True, help=N_("Clear the history of the bars.")
    ),
    AppAction("health.stop", "x", N_("end run"), "health", "h2q-tui runs stop ID", footer=True),
)

ACTIONS: tuple[AppAction, ...] = (*_EVERYWHERE, *_TRAIN, *_CORPUS, *_VALIDATE, *_CHAT, *_HEALTH)

BY_ID: dict[str, AppAction] = {action.id: action for action in ACTIONS}


def of_tab(tab: str) -> tuple[AppAction, ...]:
    """The actions of one tab, in the order of the table."""
    return tuple(action for action in ACTIONS if action.tab == tab)


_SHOWN = {"escape": "esc", "f10": "F10", "up": "↑", "down": "↓", "left": "←", "right": "→"}


def key_label(keys: tuple[str, ...]) -> str:
    """The first of `keys` as it is shown, "" when there is none."""
    return next(iter(key_labels(keys)), "")


def key_labels(keys: tuple[str, ...]) -> list[str]:
    """All of `keys` as they are shown."""
    return [_SHOWN.get(key, key) for key in keys]


def is_digit_action(action: AppAction) -> bool:
    """Whether it is bound to digits, which cannot be rebound."""
    return any(key.isdigit() for key in action.keys)


def _key_as_typed(key: str) -> str:
    """`?` for Textual's name of it, `question_mark`, which settings written by hand may have."""
    character = key_to_character(key) or ""
    return character if character.isprintable() and character.strip() else key


def keys_in_use(own: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """The keys of every action by its id, the user's `own` keys in place of those of the table.

    A key means one thing in a tab: it belongs to the first action of the table that has it there or everywhere. An
    action whose own keys are all taken keeps those of the table, if they are free. Unknown ids have no effect.
    """
    taken: set[tuple[str, str]] = set()
    keys: dict[str, tuple[str, ...]] = {}
    for action in ACTIONS:
        wished = [action.keys]
        if not is_digit_action(action):
            wished.insert(0, tuple(map(_key_as_typed, own.get(action.id, "").split())))
        free = (tuple(k for k in some if not {(EVERYWHERE, k), (action.tab, k)} & taken) for some in wished)
        keys[action.id] = next(filter(None, free), ())
        taken.update((action.tab, key) for key in keys[action.id])
    return keys
