"""The actions of the Chat tab."""

from __future__ import annotations

from engine.core.i18n import N_
from tui.action_rows.row import AppAction, actions_of

CHAT = actions_of(
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
