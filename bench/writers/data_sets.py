"""Rows of data sets in their usual forms: pairs, Alpaca, ShareGPT, OpenAI's messages, preferences, OASST, CrossWOZ."""

from __future__ import annotations

import csv
import io
import random
from typing import Any

from bench.writers.shape import ExportFiles, ExportShape, json_bytes, json_lines
from bench.writers.talks import ASSISTANT, SYSTEM, USER, WholeTalk, as_tree, holding, shuffled


def _rows(talks: list[WholeTalk], chance: random.Random, rows: list[dict[str, Any]]) -> ExportFiles:
    """The rows as JSON lines or as one list."""
    if chance.random() < 0.5:
        return {"train.jsonl": json_lines(rows)}
    return {"train.json": json_bytes(rows)}


def openai(talks: list[WholeTalk], chance: random.Random) -> ExportFiles:
    """`{"messages": [{"role", "content"}]}`."""
    rows = [
        {"messages": [{"role": turn.role, "content": turn.text} for turn in talk.turns]} for talk in talks
    ]
    return _rows(talks, chance, rows)


_FROM = {USER: "human", ASSISTANT: "gpt", SYSTEM: "system"}


def sharegpt(talks: list[WholeTalk], chance: random.Random) -> ExportFiles:
    """`{"conversations": [{"from", "value"}]}`, the system prompt in a column of its own now and then."""
    rows = []
    for talk in talks:
        apart = chance.random() < 0.5
        turns = talk.spoken if apart else talk.turns
        row: dict[str, Any] = {"system": talk.system} if apart and talk.system else {}
        row["conversations"] = [{"from": _FROM[turn.role], "value": turn.text} for turn in turns]
        rows.append(row)
    return _rows(talks, chance, rows)


def sharegpt_pairs(talks: list[WholeTalk], chance: random.Random) -> ExportFiles:
    """`{"conversation": [{"human", "assistant"}]}`."""
    rows: list[dict[str, Any]] = []
    for talk in talks:
        pairs = [{"human": asked.text, "assistant": answer.text} for asked, answer in talk.exchanges]
        rows.append({"conversation": pairs})
    return _rows(talks, chance, rows)


def ultrachat(talks: list[WholeTalk], chance: random.Random) -> ExportFiles:
    """`{"id", "data": [text, …]}`, in turn."""
    return _rows(talks, chance, [{"id": talk.id, "data": [t.text for t in talk.turns]} for talk in talks])


def alpaca(talks: list[WholeTalk], chance: random.Random) -> ExportFiles:
    """`instruction`, `input`, `output` with `system` and `history`."""
    rows = []
    for talk in talks:
        *earlier, (asked, answer) = talk.exchanges
        row: dict[str, Any] = {"instruction": asked.text, "input": "", "output": answer.text}
        if talk.system:
            row["system"] = talk.system
        if earlier:
            row["history"] = [[question.text, reply.text] for question, reply in earlier]
        rows.append(row)
    return _rows(talks, chance, rows)


_PAIR_NAMES = (("prompt", "completion"), ("question", "answer"), ("query", "response"), ("input", "output"))


def pairs(talks: list[WholeTalk], chance: random.Random) -> ExportFiles:
    """A question and its answer, under one of the usual pairs of names."""
    question, answer = chance.choice(_PAIR_NAMES)
    rows = [{question: talk.exchanges[0][0].text, answer: talk.exchanges[0][1].text} for talk in talks]
    return _rows(talks, chance, rows)


def pairs_table(talks: list[WholeTalk], chance: random.Random) -> ExportFiles:
    """The same as CSV or TSV."""
    names = chance.choice(_PAIR_NAMES)
    text = io.StringIO()
    separator, suffix = chance.choice(((",", "csv"), ("\t", "tsv")))
    out = csv.writer(text, delimiter=separator)
    out.writerows([names, *((asked.text, answer.text) for talk in talks for asked, answer in talk.exchanges)])
    return {f"pairs.{suffix}": text.getvalue().encode()}


def preference(talks: list[WholeTalk], chance: random.Random) -> ExportFiles:
    """`prompt`, `chosen`, `rejected`, as texts or as messages."""
    rows: list[dict[str, Any]] = []
    for talk in talks:
        ((asked, answer),) = talk.exchanges
        if chance.random() < 0.5:
            rows.append({"prompt": asked.text, "chosen": answer.text, "rejected": "I cannot say."})
            continue
        said = [[{"role": "assistant", "content": text}] for text in (answer.text, "I cannot say.")]
        prompt = [{"role": turn.role, "content": turn.text} for turn in talk.turns[:-1]]
        rows.append({"prompt": prompt, "chosen": said[0], "rejected": said[1]})
    return _rows(talks, chance, rows)


def gemini_api(talks: list[WholeTalk], chance: random.Random) -> ExportFiles:
    """Rows of `contents` for tuning, or of a batch with the last answer under `response`."""
    rows: list[dict[str, Any]] = []
    for talk in talks:
        contents: list[dict[str, Any]] = []
        for turn in talk.spoken:
            thought = [{"text": turn.thought, "thought": True}] if turn.thought else []
            role = "user" if turn.role == USER else "model"
            contents.append({"role": role, "parts": [*thought, {"text": turn.text}]})
        request: dict[str, Any] = {"contents": contents}
        if talk.system:
            request["systemInstruction"] = {"parts": [{"text": talk.system}]}
        if chance.random() < 0.5:
            rows.append(request)
            continue
        answer = contents.pop()
        rows.append({"request": request, "response": {"candidates": [{"content": answer}]}})
    return {"rows.jsonl": json_lines(rows)}


def oasst(talks: list[WholeTalk], chance: random.Random) -> ExportFiles:
    """OpenAssistant's flat rows, in any order; the shown answer has the best rank."""
    rows: list[dict[str, Any]] = []
    for talk in talks:
        nodes = as_tree(talk)
        shown = {node.parent for node in nodes} | {nodes[-1].id}
        for node in nodes:
            rows.append(
                {
                    "message_id": node.id,
                    "parent_id": node.parent or None,
                    "message_tree_id": talk.id,
                    "text": node.turn.text,
                    "role": "prompter" if node.turn.role == USER else "assistant",
                    "created_date": node.turn.iso,
                    "rank": 0 if node.id in shown else 1,
                    "lang": "en",
                }
            )
    return {"oasst.jsonl": json_lines(shuffled(rows, chance))}


def crosswoz(talks: list[WholeTalk], chance: random.Random) -> ExportFiles:
    """CrossWOZ: an object of dialogues by number."""
    dialogues: dict[str, dict[str, Any]] = {}
    for number, talk in enumerate(talks):
        messages: list[dict[str, Any]] = [
            {"role": "usr" if turn.role == USER else "sys", "content": turn.text, "dialog_act": []}
            for turn in talk.turns
        ]
        dialogues[str(number)] = {"messages": messages, "goal": []}
    return {"train.json": json_bytes(dialogues)}


def chatml(talks: list[WholeTalk], chance: random.Random) -> ExportFiles:
    """ChatML: a separator between the talks."""
    blocks = []
    for talk in talks:
        lines = [f"<|im_start|>{turn.role}\n{turn.text}<|im_end|>\n" for turn in talk.turns]
        blocks.append("".join(lines))
    return {"talks.txt": "---\n".join(blocks).encode()}


_BARE: dict[str, Any] = {"times": 0, "others": False, "thoughts": False, "titles": False}
_TALK = holding(**_BARE)
_NO_SYSTEM = holding(**_BARE, system=False)
_PAIR = holding(**_BARE, system=False, exchanges=1)
SHAPES = (
    ExportShape(name="OpenAI messages", format="openai", write=openai, holds=_TALK),
    ExportShape(name="ShareGPT", format="sharegpt", write=sharegpt, holds=_TALK),
    ExportShape(name="ShareGPT, pairs", format="sharegpt", write=sharegpt_pairs, holds=_NO_SYSTEM),
    ExportShape(name="UltraChat", format="sharegpt", write=ultrachat, holds=_NO_SYSTEM),
    ExportShape(name="Alpaca", format="alpaca", write=alpaca, holds=_TALK),
    ExportShape(name="pairs", format="completion", write=pairs, holds=_PAIR),
    ExportShape(name="pairs, table", format="completion", write=pairs_table, holds=_PAIR),
    ExportShape(
        name="preferences",
        format="preference",
        write=preference,
        holds=_PAIR,
        noise=frozenset(("answer that its source rejects",)),
    ),
    ExportShape(
        name="Gemini API",
        format="gemini_api",
        write=gemini_api,
        holds=holding(times=0, others=False, titles=False),
    ),
    ExportShape(
        name="OASST",
        format="oasst",
        write=oasst,
        holds=holding(system=False, thoughts=False, titles=False),
    ),
    ExportShape(name="CrossWOZ", format="crosswoz", write=crosswoz, holds=_NO_SYSTEM),
    ExportShape(name="ChatML", format="chatml", write=chatml, holds=_TALK),
)
