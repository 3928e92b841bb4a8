"""Gemini Apps in Google Takeout: `MyActivity.json`, or the page that Takeout writes unless JSON is chosen.

Each record is one prompt with its answer, newest first. The words of the prompt follow a verb in the language of
the account ("Prompted …"); the answer is HTML, one per regeneration. JSON names no conversation: prompts less than
half an hour apart are read as one, as other readers do. The page links most records to their conversation.
Shapes as third-party readers describe them from real exports (English, Portuguese, Slovene, Swedish); the other
languages are not verified.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from engine.core.chat import Role
from engine.memory.importers.fields import ImportOptions, build_conversation, parse_time
from engine.memory.importers.html_text import html_to_text
from engine.memory.importers.programs.gemini_page import PageCard, is_gemini_page, page_cards
from engine.memory.importers.readers.files import OnBytes, ignore_bytes, json_values
from engine.memory.importers.turns import text_turn, with_alternatives
from engine.memory.records import Conversation, Skipped, Turn

NAME = "gemini"

_SILENCE_S = 30 * 60
"""A longer pause between two prompts begins a conversation."""
_SAID = re.compile(
    r"(?:Prompted with:|Asked Gemini:|Asked Bard:|You sent a prompt:|Prompted|Asked|Said|Branched|Answered)(?:\s+|$)"
)
_NOT_SAID = re.compile(
    r"(?:Created|Used|Added|Gave|Selected|Shared|Deleted|Viewed|Visited|Searched|Edited|Pinned|Renamed|Exported|Updated)\s"
)
_ATTACHED = re.compile(r"(?<!\s)\s*+Attached \d+ files?\.?(?:\s+-\s.*)?\s*\Z", re.DOTALL)
_CONVERSATION = re.compile(r"gemini\.google\.com/app/([\w-]+)")
_BOUNDARY = re.compile(r"[:\uff1a]\s*|\s+")
_MIN_VOTES = 3
"""Records that must begin alike before their beginning is taken for a verb."""
_LABEL_WORDS = 6
_SHORT_LABEL_WORDS = 3


class GeminiRecord(msgspec.Struct, kw_only=True):
    """One entry of the activity log."""

    title: str
    time: float | None
    answers: list[str]
    """The regenerations of the answer in their order, as Markdown."""
    conversation: str = ""
    """Id of its conversation; empty when the export names none."""
    attachments: int = 0


def detect(path: Path, value: Any) -> bool:
    if isinstance(value, dict):
        return (
            isinstance(value.get("title"), str)
            and ("header" in value or "products" in value)
            and _is_gemini(value)
        )
    return value is None and is_gemini_page(path)


def read(
    path: Path, options: ImportOptions, on_bytes: OnBytes = ignore_bytes
) -> Iterator[Conversation | Skipped]:
    """The conversations, oldest first. The whole log is held in memory: it is not ordered. Raises BadInput."""
    records: list[GeminiRecord] = []
    for item in _from_page(path, on_bytes) if is_gemini_page(path) else _from_json(path, on_bytes):
        if isinstance(item, Skipped):
            yield item
        else:
            records.append(item)
    labels = _labels([r.title.strip() for r in records if r.answers and not _SAID.match(r.title)])
    said: list[tuple[GeminiRecord, str]] = []
    # Reversed: of two records of one second, the later one in the file is the earlier one.
    records.reverse()
    for record in sorted(records, key=lambda record: record.time or 0):
        prompt = _prompt(record, labels)
        if prompt is None:
            yield Skipped(reason="activity without a message")
        else:
            said.append((record, prompt))
    for group in _conversations(said):
        first, title = group[0]
        yield from build_conversation(
            _turns(group),
            source=NAME,
            external_id=first.conversation or ("" if first.time is None else str(int(first.time))),
            title=title.partition("\n")[0][:80],
        )


def _from_json(path: Path, on_bytes: OnBytes) -> Iterator[GeminiRecord | Skipped]:
    for _line, row in json_values(path, on_bytes):
        if not isinstance(row, dict) or not isinstance(row.get("title"), str):
            yield Skipped(reason="entry of another shape", is_conversation=True)
        elif not _is_gemini(row):
            yield Skipped(reason="activity of another product")
        else:
            found = _CONVERSATION.search(f"{row.get('titleUrl')} {row.get('details')} {row.get('subtitles')}")
            files = row.get("attachedFiles")
            yield GeminiRecord(
                title=row["title"],
                time=parse_time(row.get("time")),
                answers=[text for text in map(html_to_text, _answers(row.get("safeHtmlItem"))) if text],
                conversation=found[1] if found else "",
                attachments=len(files) if isinstance(files, list) else int(bool(row.get("imageFile"))),
            )


def _from_page(path: Path, on_bytes: OnBytes) -> Iterator[GeminiRecord | Skipped]:
    for card in page_cards(path, on_bytes):
        if card.product and not _names_gemini(card.product):
            yield Skipped(reason="activity of another product")
        elif not card.is_dated:
            # The date is what parts the prompt from the answer.
            yield Skipped(reason="entry of another shape", is_conversation=True)
        else:
            yield _page_record(card)


def _page_record(card: PageCard) -> GeminiRecord:
    found = _CONVERSATION.search(card.details)
    return GeminiRecord(
        title=card.title,
        time=card.time,
        answers=[card.answer] if card.answer else [],
        conversation=found[1] if found else "",
        attachments=card.attachments,
    )


def _answers(items: object) -> Iterator[str]:
    for item in items if isinstance(items, list) else [items]:
        html = (item.get("html") or item.get("htmlValue")) if isinstance(item, dict) else None
        if isinstance(html, str):
            yield html


def _is_gemini(row: dict[str, Any]) -> bool:
    products = row.get("products")
    return _names_gemini(
        " ".join(map(str, [row.get("header"), *(products if isinstance(products, list) else [])]))
    )


def _names_gemini(product: str) -> bool:
    return bool(re.search(r"gemini|bard", product, re.IGNORECASE))


def _labels(titles: list[str]) -> list[str]:
    """The verbs with which titles in another language begin, the longest first.

    Titles of one activity begin alike: those with the same first word are compared.
    """
    groups: dict[str, list[str]] = {}
    for title in titles:
        if first := _BOUNDARY.search(title):
            groups.setdefault(title[: first.end()], []).append(title)
    found = [
        label for group in groups.values() if (label := _common_label(group) or _only_label(group, titles))
    ]
    return sorted(found, key=len, reverse=True)


def _common_label(titles: list[str]) -> str:
    """What most of the titles begin with, up to a colon or a no-break space, else up to a space; "" for nothing."""
    votes: Counter[str] = Counter()
    for title in titles:
        ends = [match.end() for match in _BOUNDARY.finditer(title[:200])][:_LABEL_WORDS]
        votes.update({title[:end] for end in ends})
    shared = [label for label, count in votes.items() if count >= 0.8 * len(titles)]
    ended = [
        label for label in shared if votes[label] >= _MIN_VOTES and label.rstrip(" ")[-1:] in ":\uff1a\xa0"
    ]
    spaced = [label for label in shared if votes[label] >= 2 * _MIN_VOTES]
    return max(ended, key=len, default="") or max(spaced, key=len, default="")


def _only_label(group: list[str], titles: list[str]) -> str:
    """The words up to a colon with which every title of a short file begins; "" when there are none.

    In a title that no known verb begins, the verb is in another language.
    """
    if len(group) != len(titles):
        return ""
    first = [match.end() for match in _BOUNDARY.finditer(group[0][:200]) if match[0][0] in ":\uff1a"][:1]
    label = group[0][: first[0]] if first else ""
    is_short = len(label.split()) <= _SHORT_LABEL_WORDS
    return label if is_short and all(title.startswith(label) for title in group) else ""


def _prompt(record: GeminiRecord, labels: list[str]) -> str | None:
    """The words of the user; None when the record is another activity than a prompt."""
    title = record.title.strip()
    if _NOT_SAID.match(title):
        return None
    verb = _SAID.match(title)
    label = next((label for label in labels if title.startswith(label)), "")
    if verb:
        text = title[verb.end() :]
    elif not record.answers and "\xa0" not in title:
        return None
    elif label:
        text = title[len(label) :]
    else:
        # A no-break space ends the verb; of an unanswered record, one with a colon introduces the user's words.
        head, space, tail = title.partition("\xa0")
        if not record.answers and not head.endswith((":", "\uff1a")):
            return None
        text = tail if space and len(head) < 60 else title
    return _ATTACHED.sub("", text).strip()


def _conversations(said: Iterable[tuple[GeminiRecord, str]]) -> Iterator[list[tuple[GeminiRecord, str]]]:
    """Records of one id together, then the others by their pauses."""
    linked: dict[str, list[tuple[GeminiRecord, str]]] = {}
    group: list[tuple[GeminiRecord, str]] = []
    groups = [group]
    for record, prompt in said:
        if record.conversation:
            linked.setdefault(record.conversation, []).append((record, prompt))
            continue
        last = group[-1][0].time if group else None
        if group and (last is None or record.time is None or record.time - last > _SILENCE_S):
            group = []
            groups.append(group)
        group.append((record, prompt))
    yield from linked.values()
    yield from filter(None, groups)


def _turns(group: list[tuple[GeminiRecord, str]]) -> Iterator[Turn | Skipped]:
    for record, prompt in group:
        files = [Skipped(reason="attachment", count=record.attachments)] if record.attachments else []
        yield from text_turn(Role.USER, prompt, time=record.time, skipped=files)
        if not record.answers:
            continue
        *others, answer = record.answers
        yield from with_alternatives(text_turn(Role.ASSISTANT, answer, time=record.time), others)
