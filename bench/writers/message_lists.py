"""Exports of chat sites that list messages without links: Kimi, Doubao, Yuanbao, Copilot, and Google's."""

from __future__ import annotations

import csv
import html
import io
import json
import random
import re
from datetime import UTC, datetime

from bench.writers.shape import ExportFiles, ExportShape, json_bytes, one_file_each
from bench.writers.talks import ASSISTANT, USER, SpokenTurn, WholeTalk, holding, shuffled, with_times

_SPACES = re.compile(r"[ \t]+")


def kimi(talk: WholeTalk, chance: random.Random) -> bytes:
    """The message list of kimi.com's page."""
    listed = []
    for place, turn in enumerate(talk.turns):
        blocks = [{"think": {"content": turn.thought}}] if turn.thought else []
        blocks.append({"text": {"content": turn.text}})
        listed.append(
            {"id": f"{talk.id}-{place}", "role": turn.role, "createTime": turn.iso, "blocks": blocks}
        )
    return json_bytes({"messages": shuffled(listed, chance)})


def doubao(talk: WholeTalk, chance: random.Random) -> bytes:
    """The page of doubao.com, newest first; the content of an answer is JSON in a string."""
    listed = []
    for place, turn in enumerate(talk.turns):
        if turn.role == USER:
            content, kind = json.dumps({"text": turn.text}), 1
        else:
            blocks = [{"block_type": 10000, "content": {"text_block": {"text": turn.text}}}]
            if turn.thought:
                blocks.insert(0, {"block_type": 10040, "content": {"thinking_block": {"text": turn.thought}}})
            content, kind = json.dumps(blocks, ensure_ascii=False), 9999
        listed.append(
            {
                "message_id": f"{talk.id}-{place}",
                "conversation_id": talk.id,
                "user_type": 1 if turn.role == USER else 2,
                "create_time": str(turn.time),
                "content_type": kind,
                "content": content,
                "status": 0,
            }
        )
    page = {"messages": listed[::-1], "has_more": False}
    return json_bytes({"downlink_body": {"pull_singe_chain_downlink_body": page}})


def yuanbao(talk: WholeTalk, chance: random.Random) -> bytes:
    """The detail of yuanbao.tencent.com's page."""
    listed = []
    for place, turn in enumerate(talk.turns):
        message = {"id": f"{talk.id}-{place}", "index": place, "createTime": turn.time}
        if turn.role == USER:
            listed.append({**message, "speaker": "human", "speech": turn.text})
            continue
        parts = [{"type": "think", "content": turn.thought}] if turn.thought else []
        parts.append({"type": "text", "msg": turn.text})
        speech = [{"chatModelId": "deep_seek_v3", "content": parts}]
        listed.append({**message, "speaker": "ai", "speechesV2": speech})
    return json_bytes({"id": talk.id, "sessionTitle": talk.title, "convs": shuffled(listed, chance)})


def copilot(talks: list[WholeTalk], chance: random.Random) -> ExportFiles:
    """The activity history of Microsoft's privacy dashboard: a CSV with a byte-order mark, newest row first."""
    rows = [
        (talk.title, turn.iso[:19], "Human" if turn.role == USER else "AI", turn.text)
        for talk in talks
        for turn in talk.turns
    ]
    text = io.StringIO()
    csv.writer(text).writerows([("Conversation", "Time", "Author", "Message"), *rows[::-1]])
    return {"copilot-activity-history.csv": ("\ufeff" + text.getvalue()).encode()}


def aistudio(talk: WholeTalk, chance: random.Random) -> bytes:
    """One prompt of the Drive folder "Google AI Studio", without a suffix."""
    chunks = []
    for turn in talk.spoken:
        role = "user" if turn.role == USER else "model"
        if turn.thought:
            chunks.append({"text": turn.thought, "role": role, "isThought": True})
        chunks.append({"text": turn.text, "role": role, "tokenCount": 9, "createTime": turn.iso})
    instruction = {"parts": [{"text": talk.system}]} if talk.system else {}
    return json_bytes(
        {
            "runSettings": {"model": "models/gemini-2.5-pro", "temperature": 1.0},
            "systemInstruction": instruction,
            "chunkedPrompt": {"chunks": chunks, "pendingInputs": [{"text": "", "role": "user"}]},
        }
    )


def gemini_workspace(talk: WholeTalk, chance: random.Random) -> bytes:
    """Takeout's "Conversation History" of Gemini in Workspace: `turn_index` repeats for answers made again."""
    entries = []
    for place, turn in enumerate(talk.turns):
        for text in (*turn.others, turn.text):
            about = {"turn_index": place, "turn_last_modified": turn.iso}
            if turn.role == USER:
                entries.append({"user_turn": {"prompt": text, **about}})
                continue
            said = {"text": [{"data": text}], **about}
            if turn.thought and text == turn.text:
                said["model_thoughts"] = [{"headline": "Plan", "description": turn.thought}]
            entries.append({"system_turn": said})
    times = {"creation_time": talk.iso, "last_modification_time": talk.turns[-1].iso}
    return json_bytes({"title": talk.title, **times, "conversation_turns": entries})


def gemini_json(talks: list[WholeTalk], chance: random.Random) -> ExportFiles:
    """Takeout's `MyActivity.json`: one record per prompt, newest first."""
    records = []
    for talk in talks:
        for asked, answer in talk.exchanges:
            texts = (*answer.others, answer.text)
            records.append(
                {
                    "header": "Gemini Apps",
                    "title": f"Prompted {asked.text}",
                    "time": asked.iso.replace("+00:00", ".000Z"),
                    "products": ["Gemini Apps"],
                    "activityControls": ["Gemini Apps Activity"],
                    "safeHtmlItem": [{"html": as_html(text)} for text in texts],
                }
            )
    path = "Takeout/My Activity/Gemini Apps/MyActivity.json"
    return {path: json_bytes(records[::-1])}


_PAGE = (
    '<!DOCTYPE html><html><head><style>.outer-cell{margin:0}</style></head><body><div class="mdl-grid">%s</div>'
    "</body></html>"
)
_CARD = (
    '<div class="outer-cell mdl-cell mdl-cell--12-col mdl-shadow--2dp"><div class="mdl-grid">'
    '<div class="header-cell mdl-cell mdl-cell--12-col"><p class="mdl-typography--title">Gemini Apps<br></p></div>'
    '<div class="content-cell mdl-cell mdl-cell--6-col mdl-typography--body-1">Prompted\xa0%s<br>%s<br>%s</div>'
    '<div class="content-cell mdl-cell mdl-cell--6-col mdl-typography--body-1 mdl-typography--text-right"></div>'
    '<div class="content-cell mdl-cell mdl-cell--12-col mdl-typography--caption"><b>Products:</b><br> Gemini Apps<br>'
    "</div></div></div>"
)


def gemini_page(talks: list[WholeTalk], chance: random.Random) -> ExportFiles:
    """Takeout's `MyActivity.html`, newest first, with times for readers."""
    cards = []
    for talk in talks:
        for asked, answer in talk.exchanges:
            time = f"{datetime.fromtimestamp(asked.time, UTC):%b %-d, %Y, %-I:%M:%S\u202f%p} UTC"
            prompt = html.escape(asked.text).replace("\n", "<br>")
            cards.append(_CARD % (prompt, time, as_html(answer.text)))
    page = _PAGE % "".join(cards[::-1])
    return {"Takeout/My Activity/Gemini Apps/MyActivity.html": page.encode()}


def as_html(text: str) -> str:
    """An answer in Markdown as the HTML of Takeout, as far as talks have Markdown: code blocks and line ends."""
    out = []
    for place, part in enumerate(re.split(r"```(\w*)\n(.*?)\n```", text, flags=re.DOTALL)):
        if place % 3 == 1:
            out.append(f'<pre><code class="language-{part}">' if part else "<pre><code>")
        elif place % 3 == 2:
            out.append(f"{html.escape(part)}\n</code></pre>")
        else:
            paragraphs = [p.strip("\n") for p in re.split(r"\n{2,}", part) if p.strip()]
            out += [f"<p>{html.escape(p).replace(chr(10), '<br>')}</p>" for p in paragraphs]
    return "".join(out)


def as_page_text(turn: SpokenTurn) -> str:
    """A text as a page can show it: outside of code, without indents and with at most one blank line."""
    parts = re.split(r"(```.*?```)", turn.text, flags=re.DOTALL) if turn.role == ASSISTANT else [turn.text]
    return "".join(part if place % 2 else _shown(part) for place, part in enumerate(parts)).strip("\n")


def _shown(text: str) -> str:
    lines = [_SPACES.sub(" ", line).strip() for line in text.split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines))


def as_typed(turn: SpokenTurn) -> str:
    """Of an answer what a page shows of it, of a question all."""
    return as_page_text(turn) if turn.role == ASSISTANT else turn.text


_LIST = holding(system=False, others=False)
SHAPES = (
    ExportShape(
        name="Kimi page",
        format="kimi",
        write=one_file_each(lambda talk: f"{talk.id}.json", kimi),
        holds=holding(others=False, titles=False),
    ),
    ExportShape(
        name="Doubao page",
        format="doubao",
        write=one_file_each(lambda talk: f"{talk.id}.json", doubao),
        holds=holding(system=False, others=False, titles=False),
    ),
    ExportShape(
        name="Yuanbao page",
        format="yuanbao",
        write=one_file_each(lambda talk: f"{talk.id}.json", yuanbao),
        holds=_LIST,
    ),
    ExportShape(
        name="Copilot",
        format="copilot",
        write=copilot,
        holds=holding(system=False, others=False, thoughts=False),
    ),
    ExportShape(
        name="AI Studio",
        format="aistudio",
        write=one_file_each(lambda talk: f"Google AI Studio/{talk.title.replace('/', '_')}", aistudio),
        holds=with_times(holding(others=False), system=False),
    ),
    ExportShape(
        name="Gemini in Workspace",
        format="gemini_workspace",
        write=one_file_each(lambda talk: f"conversation_{talk.start}.txt", gemini_workspace),
        holds=holding(system=False),
    ),
    ExportShape(
        name="Gemini, My Activity",
        format="gemini",
        write=gemini_json,
        holds=with_times(holding(system=False, thoughts=False, text=as_typed), answer="question"),
        names_itself=True,
    ),
    ExportShape(
        name="Gemini, page of My Activity",
        format="gemini",
        write=gemini_page,
        holds=with_times(
            holding(system=False, thoughts=False, others=False, text=as_page_text), answer="question"
        ),
        names_itself=True,
    ),
)
