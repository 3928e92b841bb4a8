"""The app to look only: the actions that stay.

What is not named here is not offered, so that a new action has to be looked at before a read-only app has it.
Behind this, `tui.host.shutdown.uninterruptible`, in which every change of the workspace happens, refuses too.
"""

from __future__ import annotations

from tui.actions import AppAction

LOOKING = frozenset(
    {
        "go_tab",
        "tab_before",
        "tab_after",
        "next_panel",
        "keys",
        "palette",
        "filter",
        "back",
        "move_left",
        "move_down",
        "move_up",
        "move_right",
        "go_top",
        "go_end",
        "enlarge",
        "refresh",
        "check_machine",
        "copy",
        "redraw",
        "suspend",
        "leave",
        "train.log",
        "train.details",
        "train.hide",
        "train.mark",
        "train.compare",
        "train.run_before",
        "train.run_after",
        "train.second",
        "train.scale",
        "corpus.skip",
        "corpus.next_unreviewed",
        "corpus.diff",
        "corpus.twin",
        "corpus.why",
        "corpus.order",
        "validate.run",
        "validate.diff",
        "validate.wins",
        "validate.losses",
        "chat.chats",
        "chat.turn_before",
        "chat.turn_after",
        "health.faster",
        "health.slower",
        "health.now",
        "health.shorter",
        "health.longer",
        "health.clear",
    }
)
"""Ids of the actions that change nothing but the screen. `validate.run` shows a verdict that is there; judging is refused."""


def only_looks(action: AppAction) -> bool:
    """Whether a read-only app offers `action`."""
    return action.id in LOOKING
