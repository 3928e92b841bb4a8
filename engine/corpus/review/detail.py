"""Conversations as the review shows them: the turns as they are trained on, with the results of the filters.

Also the word diff of edited turns. Light: the app imports it.
"""

from __future__ import annotations

import difflib
import re
import sqlite3
from collections import defaultdict
from collections.abc import Mapping, Sequence
from enum import StrEnum

import msgspec
from msgspec.structs import replace

from engine.corpus import ledger
from engine.corpus.enums import CorpusStage, LedgerAction
from engine.corpus.features import title_of
from engine.corpus.ledger import redact
from engine.corpus.review.decision_log import (
    TurnEdit,
    decisions_of,
    describes_current_text,
    edits_in_force,
    turns_changed_since_build,
)
from engine.corpus.review.types import ReviewDetail, ReviewItem, ReviewReason, ReviewTurn

MAX_CLUSTER_MEMBERS = 20
_MAX_DIFF_WORDS = 4_000
"""Words of a text that are compared; longer texts are shown one after the other."""
_WORDS = re.compile(r"[A-Za-z0-9_'’À-ɏЀ-ӿ]+|\s+|.", re.DOTALL)


def read_detail(connection: sqlite3.Connection, item: ReviewItem) -> ReviewDetail:
    """Turns, filter results and decisions of the conversation of `item`."""
    edits = edits_in_force(connection, [item.id]).get(item.id, {})
    turns = _turns(connection, item.id, edits)
    changed = turns_changed_since_build(connection, item.id)
    reasons = [
        ReviewReason(
            stage=row.stage,
            action=row.action,
            reason=row.reason,
            turn=row.turn,
            spans=row.evidence.spans,
            similarity=row.evidence.similarity,
            score=row.evidence.score,
            duplicate_of=row.duplicate_of,
        )
        for row in ledger.rows_of(connection, [item.id])
        if describes_current_text(row, edits) and row.turn not in changed
    ]
    reasons += _filter_edited(turns, changed)
    title = connection.execute("SELECT title FROM conversations WHERE id = ?", (item.id,)).fetchone()
    members = connection.execute(
        "SELECT conversation_id FROM corpus WHERE cluster = ? AND conversation_id != ? ORDER BY 1 LIMIT ?",
        (item.cluster, item.id, MAX_CLUSTER_MEMBERS),
    ).fetchall()
    return ReviewDetail(
        item=item,
        title=title[0] if title else "",
        turns=[_with_results(turn, reasons, unread=turn.position in changed) for turn in turns],
        reasons=reasons,
        decisions=decisions_of(connection, item.id),
        cluster_members=[row[0] for row in members],
    )


def _turns(connection: sqlite3.Connection, id_: str, edits: Mapping[int, TurnEdit]) -> list[ReviewTurn]:
    """The turns with the text in force."""
    turns = []
    for position, role, text, time in connection.execute(
        "SELECT position, role, text, time FROM turns WHERE conversation_id = ? ORDER BY position", (id_,)
    ):
        edit = edits.get(position)
        current = text if edit is None else edit.text
        turns.append(
            ReviewTurn(
                position=position,
                role=role,
                text=current,
                redacted=current,
                spans=[],
                masked="",
                time=time,
                original=None if edit is None else text,
            )
        )
    return turns


def _filter_edited(turns: Sequence[ReviewTurn], changed: set[int]) -> list[ReviewReason]:
    """Filter results of the turns that changed since the last build."""
    if not changed:
        return []
    # Compiling the filters' patterns takes longer than starting the app, and few conversations are edited.
    from engine.corpus.filters.turn import filter_turn

    reasons = []
    question = ""
    for turn in turns:
        if turn.position in changed:
            found = filter_turn(turn.role, turn.text, question)
            results: list[tuple[str, str, str, list[tuple[str, int, int]], float | None]] = []
            if found.masked:
                results.append((CorpusStage.LOW_VALUE, LedgerAction.MASK, found.masked, [], found.score))
            if found.pii:
                results.append((CorpusStage.SENSITIVE, LedgerAction.REDACT, found.pii_types, found.pii, None))
            if found.markers:
                results.append((CorpusStage.INJECTION, LedgerAction.HOLD, "marker", found.markers, None))
            for stage, action, reason, spans, score in results:
                reasons.append(
                    ReviewReason(
                        stage=stage,
                        action=action,
                        reason=reason,
                        turn=turn.position,
                        spans=spans,
                        similarity=None,
                        score=score,
                        duplicate_of=None,
                    )
                )
        if turn.role == "user":
            question = turn.text
    return reasons


def _with_results(turn: ReviewTurn, reasons: Sequence[ReviewReason], *, unread: bool) -> ReviewTurn:
    """A turn with its spans, mask and redacted text."""
    spans = next(
        (
            reason.spans
            for reason in reasons
            if reason.turn == turn.position and reason.action == LedgerAction.REDACT
        ),
        [],
    )
    masked = next(
        (
            reason.reason
            for reason in reasons
            if reason.turn == turn.position and reason.action == LedgerAction.MASK
        ),
        "",
    )
    return replace(turn, spans=spans, masked=masked, redacted=redact(turn.text, spans), unread=unread)


def with_current_titles(connection: sqlite3.Connection, items: Sequence[ReviewItem]) -> list[ReviewItem]:
    """The items with titles from the text in force; the corpus row holds the title of the last build."""
    ids = msgspec.json.encode([item.id for item in items]).decode()
    titles: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    """Titles that any form of an edited turn makes, by conversation and turn."""
    imported: dict[tuple[str, int], str] = {}
    for id_, turn, text, original in connection.execute(
        "SELECT d.conversation_id, d.turn, d.text, t.text FROM decisions d JOIN turns t "
        "ON t.conversation_id = d.conversation_id AND t.position = d.turn "
        "WHERE d.verdict = 'edited' AND d.conversation_id IN (SELECT value FROM json_each(?))",
        (ids,),
    ):
        titles[id_][turn] |= {title_of(text), title_of(original)}
        imported[id_, turn] = original
    if not titles:
        return list(items)
    edits = edits_in_force(connection, list(titles))
    return [
        _with_current_title(item, titles.get(item.id, {}), imported, edits.get(item.id, {})) for item in items
    ]


def _with_current_title(
    item: ReviewItem,
    titles: Mapping[int, set[str]],
    imported: Mapping[tuple[str, int], str],
    edits: Mapping[int, TurnEdit],
) -> ReviewItem:
    for turn, possible in titles.items():
        if item.first_line in possible:
            text = edits[turn].text if turn in edits else imported[item.id, turn]
            return replace(item, first_line=title_of(text))
    return item


class WordChange(StrEnum):
    """The kind of a part of a word diff."""

    SAME = "same"
    REMOVED = "gone"
    ADDED = "new"


def word_diff(before: str, after: str) -> list[tuple[WordChange, str]]:
    """Parts of both texts in reading order: words of Latin or Cyrillic script, else single characters.

    The SAME and REMOVED parts join to `before`, the SAME and ADDED parts to `after`.
    """
    left, right = _WORDS.findall(before), _WORDS.findall(after)
    if len(left) > _MAX_DIFF_WORDS or len(right) > _MAX_DIFF_WORDS:
        return [part for part in ((WordChange.REMOVED, before), (WordChange.ADDED, after)) if part[1]]
    codes = difflib.SequenceMatcher(None, left, right, autojunk=False).get_opcodes()
    parts: list[tuple[WordChange, str]] = []
    removed = added = ""
    for index, (kind, a, b, c, d) in enumerate(codes):
        same = "".join(left[a:b])
        # A single space between two changes belongs to both: they read as one.
        if kind != "equal" or (same.isspace() and 0 < index < len(codes) - 1):
            removed, added = removed + same, added + "".join(right[c:d])
            continue
        parts += [(WordChange.REMOVED, removed), (WordChange.ADDED, added), (WordChange.SAME, same)]
        removed = added = ""
    parts += [(WordChange.REMOVED, removed), (WordChange.ADDED, added)]
    return [part for part in parts if part[1]]


def diff_markup(part: tuple[WordChange, str]) -> str:
    """A part of a word diff in plain text: `[-removed-]`, `{+added+}`."""
    change, text = part
    return {WordChange.REMOVED: f"[-{text}-]", WordChange.ADDED: f"{{+{text}+}}"}.get(change, text)
