"""A chat as text: the welcome, the exchanges as blocks, how an answer ended."""

from __future__ import annotations

from engine.core.i18n import _
from engine.inference.language_model import Finish, Generated
from engine.models.fetch import FetchableModel
from engine.workspace.demo import outline
from tui.tabs.chat.session import ChatExchange, ChatSession
from tui.terminal.glyphs import Glyphs
from tui.widgets.conversation import StyledSpan, TextBlock


def welcome_blocks(
    model: str, *, small: bool = True, fetchable: FetchableModel | None = None
) -> list[TextBlock]:
    """The welcome of an empty chat; `model` is "" without one.

    `small`: it was trained here from scratch; `fetchable`: a model that can be downloaded.
    """
    if not model:
        offer = []
        if fetchable is not None:
            text = _("download {title} ({size} MB), which answers in English").format(
                title=fetchable.full_name, size=round(fetchable.download_bytes / 1e6)
            )
            offer = [TextBlock("f", (StyledSpan(text),), "head")]
        return [
            TextBlock("", (StyledSpan(_("There is no model to talk with yet.")),)),
            TextBlock("", (StyledSpan(""),)),
            TextBlock(
                "d", (StyledSpan(_("try it on a sample: {outline}").format(outline=outline())),), "head"
            ),
            *offer,
            TextBlock("n", (StyledSpan(_("train your own on the Train tab")),), "head"),
        ]
    lines = [
        *(
            [_("A model of this size shows the loop: it imitates style and does not converse.")]
            if small
            else []
        ),
        _(
            "Nothing you write here leaves the machine, or is stored in memory unless you keep it (esc, then K)."
        ),
    ]
    return [TextBlock("", (StyledSpan(line, "dim"),)) for line in lines]


def session_blocks(
    session: ChatSession, glyphs: Glyphs, *, without_last_answer: bool = False
) -> list[TextBlock]:
    """The exchanges; `without_last_answer` when another answer is coming."""
    blocks: list[TextBlock] = []
    for exchange in session.exchanges:
        blocks.append(TextBlock(_("you"), (StyledSpan(exchange.question),), "head"))
        if without_last_answer and exchange is session.last:
            break
        blocks.append(TextBlock(_("model"), (StyledSpan(exchange.answer),)))
        if exchange.problem:
            blocks.append(problem_block(exchange, glyphs))
    return blocks


def problem_block(exchange: ChatExchange, glyphs: Glyphs) -> TextBlock:
    """Why there is no answer, or only a part."""
    return TextBlock("", (StyledSpan(f"{glyphs.failed} {exchange.problem}", "error"),))


def ending(done: Generated | None) -> str:
    """How an answer ended; "" when nothing is known."""
    if done is None:
        return ""
    text = _("{n} bytes, {rate} tokens/s").format(n=done.bytes, rate=f"{done.bytes_per_s:.0f}")
    if done.finish is Finish.LENGTH:
        text += "   " + _("cut at the maximum answer length")
    if done.dropped_turns:
        text += "   " + _("the oldest {n} turns did not fit").format(n=done.dropped_turns)
    return text
