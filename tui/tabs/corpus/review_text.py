"""A conversation under review as text: its list row, its title, its turns with the findings of the filters."""

from __future__ import annotations

from typing import NamedTuple

from engine.core.i18n import N_, _, bracketed, colon, n_
from engine.core.local_time import local_time
from engine.corpus.enums import STATE_LABELS, CorpusStage, ReviewState
from engine.corpus.ledger import placeholder
from engine.corpus.review.decision_log import DecisionKind
from engine.corpus.review.detail import WordChange, diff_markup, word_diff
from engine.corpus.review.types import ReviewDetail, ReviewItem, ReviewReason, ReviewTurn
from tui.host.corpus_text import pii_type_names, reason_text, stage_name
from tui.tabs.corpus.decision_text import rejection_text
from tui.terminal.glyphs import Glyphs
from tui.widgets.conversation import StyledSpan, TextBlock
from tui.widgets.virtual_list import ListCell, ListRow

STATE_KINDS = {
    ReviewState.PENDING: "warning",
    ReviewState.ACCEPTED: "success",
    ReviewState.REJECTED: "error",
    ReviewState.DROPPED: "dim",
}
_BY_USER = {
    ReviewState.ACCEPTED: N_("accepted by you"),
    ReviewState.REJECTED: N_("rejected by you"),
}
_BY_FILTER = {
    ReviewState.ACCEPTED: N_("accepted by the filter"),
    ReviewState.DROPPED: N_("dropped by the filter"),
}
DECISION_LABELS = {
    DecisionKind.EDITED: N_("edited"),
    DecisionKind.FLAGGED: N_("flagged"),
    DecisionKind.UNFLAGGED: N_("flag cleared"),
    DecisionKind.RULE: N_("rule"),
    DecisionKind.NO_RULE: N_("rule removed"),
}
ACTIONS = {
    "drop": N_("dropped"),
    "mask": N_("not trained on"),
    "redact": N_("redacted"),
    "hold": N_("waits for review"),
    "group": N_("grouped"),
    "retire": N_("moved to training"),
}


class ReviewSigns(NamedTuple):
    """What the terminal can draw."""

    glyphs: Glyphs
    colours: bool = True
    """Without colours, what a filter accepted gets another sign than what the user accepted."""

    def of(self, item: ReviewItem) -> tuple[str, str]:
        """Glyph and style of a conversation's state: bright for the user's decisions, dim for the filters'."""
        state, glyphs = ReviewState(item.state), self.glyphs
        if state is ReviewState.ACCEPTED and not item.reviewed:
            return (glyphs.done if self.colours or glyphs.ascii else glyphs.dot), "dim"
        sign = {
            ReviewState.PENDING: glyphs.running,
            ReviewState.ACCEPTED: glyphs.accepted,
            ReviewState.REJECTED: glyphs.failed,
            ReviewState.DROPPED: glyphs.kept,
        }
        return sign[state], STATE_KINDS[state]


def state_label(item: ReviewItem) -> str:
    """The state, and who decided it."""
    state = ReviewState(item.state)
    if item.reviewed:
        return _(_BY_USER.get(state, STATE_LABELS[state]))
    return _(_BY_FILTER.get(state, STATE_LABELS[state]))


def list_row(item: ReviewItem, signs: ReviewSigns) -> ListRow:
    """The list row: glyph, title, reason of the filters."""
    glyphs = signs.glyphs
    sign, kind = signs.of(item)
    why = pii_type_names(item.reason) if item.stage == CorpusStage.SENSITIVE else ""
    why = _("edited") if item.edited else why or stage_name(item.stage)
    flag = f"{glyphs.alert} " if item.flagged else ""
    return ListRow(
        item.id, (ListCell(sign, kind), ListCell(flag + (item.first_line or "…")), ListCell(why, "dim"))
    )


def conversation_title(item: ReviewItem, signs: ReviewSigns) -> str:
    """ "✓ accepted by you · 2026-11-03 21:14 · chatgpt · zh · quality 0.82"."""
    when = local_time("%Y-%m-%d %H:%M", item.time) if item.time is not None else _("undated")
    parts = [state_label(item)]
    parts += [_("edited")] * item.edited + [f"{signs.glyphs.alert} " + _("flagged")] * item.flagged
    parts += [when, item.source, item.language, _("quality {q}").format(q=f"{item.quality:.2f}")]
    return f"{signs.of(item)[0]} " + f" {signs.glyphs.dot} ".join(part for part in parts if part)


def conversation_blocks(
    detail: ReviewDetail,
    signs: ReviewSigns,
    *,
    raw: bool,
    all_reasons: bool,
    duplicate: ReviewDetail | None = None,
) -> list[TextBlock]:
    """The blocks of the right pane. `raw` shows the text as imported, with the findings marked, instead of as it is trained
    on; `all_reasons` shows every ledger row; `duplicate` is the conversation that this one duplicates, shown below."""
    blocks: list[TextBlock] = []
    sign, kind = signs.of(detail.item)
    if all_reasons:
        blocks += _why_blocks(detail, f"{sign} {state_label(detail.item)}", kind)
    else:
        blocks += [_why_line(row, turn=len(detail.turns) > 2) for row in _summary(detail.reasons)]
    if blocks:
        blocks.append(TextBlock("", (StyledSpan(""),)))
    numbered = len(detail.turns) > 2
    blocks += [_turn_block(turn, raw=raw, numbered=numbered) for turn in detail.turns]
    if duplicate is not None:
        similar = next((row.similarity for row in detail.reasons if row.similarity is not None), None)
        share = (
            ""
            if similar is None
            else _(" ({share} % of words in common)").format(share=f"{similar * 100:.0f}")
        )
        blocks.append(TextBlock("", (StyledSpan(""),)))
        blocks.append(
            TextBlock(
                _("duplicate"),
                (StyledSpan(conversation_title(duplicate.item, signs) + share, "head"),),
                "head",
            )
        )
        blocks += [_turn_block(turn, raw=raw) for turn in duplicate.turns]
    return blocks


def _turn_block(turn: ReviewTurn, *, raw: bool, numbered: bool = False) -> TextBlock:
    labels = {"user": _("you"), "assistant": _("model"), "system": _("system"), "tool": _("tool")}
    label = labels.get(turn.role, turn.role)
    base = "dim" if turn.masked else ""
    spans: list[StyledSpan] = []
    at = 0
    if raw and turn.original is not None:
        kinds = {WordChange.SAME: "", WordChange.REMOVED: "error", WordChange.ADDED: "success"}
        spans = [
            StyledSpan(diff_markup(change), kinds[change[0]])
            for change in word_diff(turn.original, turn.text)
        ]
        at = len(turn.text)
    for type_, start, end in () if at else turn.spans:
        spans.append(StyledSpan(turn.text[at:start], base))
        spans.append(StyledSpan(turn.text[start:end] if raw else placeholder(type_), "redacted"))
        at = end
    spans.append(StyledSpan(turn.text[at:], base))
    if not turn.text.strip():
        spans.append(StyledSpan(_("(not imported)"), "dim"))
    if turn.masked:
        spans.append(
            StyledSpan("  " + _("[not trained on: {why}]").format(why=reason_text(turn.masked)), "warning")
        )
    if turn.unread:
        spans.append(StyledSpan("  " + _("[filtered at the next build]"), "warning"))
    elif turn.original is not None and not raw:
        spans.append(StyledSpan("  " + _("[edited]"), "dim"))
    shown = f"{turn.position + 1} {label}" if numbered else label
    return TextBlock(shown, tuple(spans), "head" if turn.role == "user" else "dim")


def _summary(rows: list[ReviewReason]) -> list[ReviewReason]:
    """The most important rows, at most three: those of the conversation, then redactions."""
    whole = [row for row in rows if row.turn < 0]
    return (whole + [row for row in rows if row.turn >= 0 and row.action == "redact"])[:3]


def _why_line(row: ReviewReason, *, turn: bool = False) -> TextBlock:
    parts = [reason_text(row.reason)]
    if turn and row.turn >= 0:
        parts[0] = colon(_("turn {n}").format(n=row.turn + 1), parts[0])
    if row.spans:
        # Positions are shown from 1.
        parts.append(_(", ").join(f"{start + 1}–{end}" for _type, start, end in row.spans[:4]))
    if row.similarity is not None:
        parts.append(_("{share} % similar").format(share=f"{row.similarity * 100:.0f}"))
    parts.append(_(ACTIONS.get(row.action, row.action)))
    return TextBlock(_("why"), (StyledSpan(_(", ").join(parts)),), "warning")


def _why_blocks(detail: ReviewDetail, state: str, kind: str) -> list[TextBlock]:
    """Every ledger row and every decision of the user."""
    blocks = [TextBlock(_("state"), (StyledSpan(state, kind),))]
    for row in detail.reasons:
        where = _("turn {n}").format(n=row.turn + 1) if row.turn >= 0 else _("conversation")
        stage = stage_name(row.stage)
        line = _why_line(row).spans[0].text
        text = colon(_(", ").join([stage, where]), line)
        blocks.append(TextBlock(_("why"), (StyledSpan(text),), "warning"))
    for decision in detail.decisions:
        when = local_time("%m-%d %H:%M", decision.time)
        reason = rejection_text(decision.reason)
        words_of = (
            STATE_LABELS[ReviewState(decision.verdict)]
            if decision.verdict in STATE_LABELS
            else DECISION_LABELS[DecisionKind(decision.verdict)]
        )
        text = f"{when} {_(words_of)}"
        if reason:
            text = bracketed(text, reason)
        if decision.turn >= 0:
            text += _(", ") + _("turn {n}").format(n=decision.turn + 1)
        blocks.append(TextBlock(_("you"), (StyledSpan(text),), "head"))
    if len(blocks) == 1:
        blocks.append(TextBlock(_("why"), (StyledSpan(_("no filter changed it")),), "warning"))
    if detail.cluster_members:
        text = n_("{n} other of its group", "{n} others of its group", len(detail.cluster_members)).format(
            n=len(detail.cluster_members)
        )
        blocks.append(TextBlock(_("group"), (StyledSpan(text, "dim"),)))
    return blocks
