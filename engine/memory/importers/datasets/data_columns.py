"""Columns of data sets: which names a question, an answer, a system prompt or earlier turns have, and how they are read.

A row is a dict from JSONL, CSV or Parquet alike, so a list may also be its JSON text. Names are compared without case,
blanks, hyphens and underscores.
"""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from engine.core.chat import Role
from engine.memory.importers.fields import (
    ImportOptions,
    RoleMap,
    build_conversation,
    parse_content,
    parse_role,
    parse_time,
    text_or_empty,
    unknown_role,
)
from engine.memory.importers.readers.files import OnBytes, json_values
from engine.memory.importers.transcripts.marked_text import marked_turns
from engine.memory.importers.turns import text_turn
from engine.memory.records import Conversation, Skipped, Turn

Row = Mapping[str, Any]
"""The columns of one row by their normalised names."""
Items = list[Turn | Skipped]

INSTRUCTION = ("instruction", "instruct", "指令", "任务")
QUESTION = (
    *("prompt", "question", "query", "user", "human", "ask", "q", "input"),
    *("userinput", "userprompt", "usermessage", "userquery", "inputtext", "prompttext", "questiontext"),
    *("问题", "提问", "问", "输入", "用户", "用户输入", "用户提问", "提示词"),
)
ANSWER = (
    *("completion", "response", "output", "answer", "answers", "reply", "assistant", "target", "a"),
    *("gpt", "bot", "chatgpt", "bard", "bing", "modeloutput", "modelresponse", "responsetext", "outputtext"),
    *("botresponse", "assistantresponse", "answertext"),
    *("回答", "答案", "输出", "答", "回复", "答复", "助手", "助手回答", "助手回复", "模型回答", "模型输出"),
)
EXTRA = ("input", "context", "输入", "上下文", "背景", "材料")
"""What an instruction or a question is about."""
SYSTEM = ("system", "systemprompt", "systemmessage", "metainstruction", "系统", "系统提示", "系统提示词")
HISTORY = ("history", "chathistory", "历史", "历史对话")
_TITLE = ("title", "标题")
_DESCRIPTION = ("desc", "description", "描述", "问题描述")
_CHOICES = ("choices", "options", "选项")
_SPEAKER = ("from", "role", "speaker", "sender")
_WORDS = ("value", "content", "text", "say", "utterance")
_MAX_LIST_TEXT = 2**20
"""Characters of a list in Python's notation that are parsed."""


def columns(row: object) -> Row:
    """The row by normalised names; empty for anything but an object."""
    if not isinstance(row, dict):
        return {}
    return {_normal(key): value for key, value in row.items() if isinstance(key, str)}


@lru_cache(maxsize=1024)
def _normal(name: str) -> str:
    return name.strip().strip("\ufeff").lower().replace("_", "").replace(" ", "").replace("-", "")


def first_of(row: Row, names: tuple[str, ...]) -> Any:
    """The first column of these names that is neither null nor blank; None without one."""
    for name in names:
        value = row.get(name)
        # Tables fill missing fields with NaN.
        if value is None or value in ("", []) or (isinstance(value, float) and math.isnan(value)):
            continue
        return value
    return None


def has_column(row: Row, names: tuple[str, ...]) -> bool:
    return any(name in row for name in names)


def listed(value: object) -> object:
    """A list or an object, also from its text in JSON or Python's notation; anything else as it is."""
    if isinstance(value, tuple):
        return list(value)
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{")):
        return value
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        if len(value) > _MAX_LIST_TEXT:
            return value
        try:
            found = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return value
    return found if isinstance(found, list | dict) else value


def is_pair(row: object) -> bool:
    """Whether a row has a question and an answer in columns of their own."""
    named = columns(next(unfolded(row)))
    if not named or first_of(named, _CHOICES) is not None or has_talk(named):
        return False
    answer = next((name for name in ANSWER if name in named), "")
    question = next((name for name in QUESTION if name in named), "")
    if not question and _is_titled(named):
        question = "title"
    if not answer or not question or not _is_textual(named[answer]):
        return False
    return _is_question(named.get(question, ""))


def has_talk(row: Row) -> bool:
    """Whether a row has a list of messages, beside which a question and an answer repeat one of its turns."""
    talks = [row.get(name) for name in ("messages", "conversations", "conversation")]
    return any(isinstance(talk, list) and bool(talk) and _message(talk[0]) is not None for talk in talks)


def is_header(row: object) -> bool:
    """Whether a list of texts names the columns of a table."""
    names = [_normal(name) for name in row if isinstance(name, str)] if isinstance(row, list) else []
    return not {*QUESTION, *INSTRUCTION}.isdisjoint(names) and not set(ANSWER).isdisjoint(names[1:])


def _is_titled(row: Row) -> bool:
    return has_column(row, _TITLE) and has_column(row, ("answer", "回答", "答案"))


def _is_textual(value: object) -> bool:
    if value is None or isinstance(value, str | int | float):
        return not isinstance(value, bool)
    if isinstance(value, dict):
        return isinstance(value.get("text"), str | list) or _message(value) is not None
    return isinstance(value, list) and (
        not value or isinstance(value[0], str) or _message(value[0]) is not None
    )


def _is_question(value: object) -> bool:
    # Of several questions it is not known which one is answered.
    is_one = not isinstance(value, list) or len(value) < 2 or not isinstance(value[0], str)
    return is_one and _is_textual(value)


def unfolded(row: Any) -> Iterator[Any]:
    """The rows of a table that is one object of its columns, lists or (as pandas writes) objects by number; else `row`."""
    if isinstance(row, dict) and len(row) > 1:
        lists = [list(value.values()) if isinstance(value, dict) else value for value in row.values()]
        count = len(lists[0]) if isinstance(lists[0], list) else 0
        if count > 1 and all(
            isinstance(one, list) and len(one) == count and _are_cells(one) for one in lists
        ):
            yield from (dict(zip(row, cells, strict=True)) for cells in zip(*lists, strict=True))
            return
    yield row


def _are_cells(values: list[Any]) -> bool:
    return all(value is None or isinstance(value, str | int | float) for value in values)


def question_items(row: Row, names: tuple[str, ...], role_map: RoleMap) -> Items:
    """The system prompt, the earlier turns and the question of a row with what it is about.

    An empty question is an empty turn: the answer keeps its place. Raises ValueError for malformed earlier turns.
    """
    items: Items = []
    system = first_of(row, SYSTEM)
    if isinstance(system, str) and system.strip():
        items.append(Turn(role=Role.SYSTEM, text=system))
    items += history_items(first_of(row, HISTORY), role_map)
    value = first_of(row, names)
    if value is None and _is_titled(row):
        value = first_of(row, _TITLE)
    messages = spoken(value, role_map)
    if messages is not None:
        return items + messages
    asked = _plain(value)
    about = _about(row, value)
    text = f"{asked}\n{about}" if asked and about else asked or about
    return [*items, Turn(role=Role.USER, text=text)]


def _about(row: Row, question: object) -> str:
    for name in (*EXTRA, *_DESCRIPTION):
        extra = row.get(name)
        if isinstance(extra, str) and extra.strip() and extra != question:
            return extra
    return ""


def _plain(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and isinstance(value[0], str):
        return value[0]
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else ""


def history_items(value: object, role_map: RoleMap) -> Items:
    """The earlier turns: pairs of texts, pairs by name, or messages. Raises ValueError for another shape."""
    value = listed(value)
    if value is None or value == "":
        return []
    if isinstance(value, str):
        found = spoken(value, role_map)
        if found is None:
            raise ValueError
        return found
    if not isinstance(value, list):
        raise ValueError
    items: Items = []
    for entry in value:
        turns = exchange_items(entry, role_map)
        if turns is None:
            raise ValueError
        items += turns
    return items


def answer_items(value: object, role_map: RoleMap, *, masked: bool = False) -> Items:
    """The answer of a row: a text, messages, or a list of texts, of which the others are alternatives."""
    given, value = value, listed(value)
    messages = None if isinstance(value, str) else spoken(given, role_map)
    if messages is not None:
        return masked_items(messages) if masked else messages
    if isinstance(given, str) and not (isinstance(value, dict) and "answer_start" in value):
        # The answer itself is JSON.
        value = given
    if isinstance(value, dict):
        value = value.get("text")
    texts = [
        text for text in (value if isinstance(value, list) else [_plain(value)]) if isinstance(text, str)
    ]
    texts = list(dict.fromkeys(text for text in texts if text.strip()))
    if not texts:
        return []
    items = text_turn(Role.ASSISTANT, texts[0])
    return [_answer(item, tuple(texts[1:]), masked) for item in items]


def _answer(item: Turn | Skipped, alternatives: tuple[str, ...], masked: bool) -> Turn | Skipped:
    if not isinstance(item, Turn):
        return item
    return msgspec.structs.replace(item, alternatives=alternatives, masked=masked)


def masked_items(items: Items) -> Items:
    """The items with every answer excluded from training."""
    return [
        _answer(item, item.alternatives, True)
        if isinstance(item, Turn) and item.role is Role.ASSISTANT
        else item
        for item in items
    ]


def spoken(value: object, role_map: RoleMap) -> Items | None:
    """The turns of a list of messages, of one message, or of a text with marks of speakers; None for a plain text."""
    given, value = value, listed(value)
    if isinstance(given, str) and isinstance(value, dict) and "messages" not in value:
        # The words themselves are JSON.
        return None
    if isinstance(value, str):
        turns = marked_turns(value)
        return None if turns is None else [item for role, text in turns for item in text_turn(role, text)]
    if isinstance(value, dict):
        value = value["messages"] if isinstance(value.get("messages"), list) else [value]
    if not isinstance(value, list) or not value or _message(value[0]) is None:
        return None
    return [item for message in value for item in message_items(message, role_map)]


def _message(value: object) -> tuple[object, object] | None:
    """The speaker and the words of a message; None for anything else."""
    named = columns(value)
    words = next((named[name] for name in _WORDS if named.get(name) is not None), None)
    speaker = first_of(named, _SPEAKER)
    return (
        (speaker, words) if isinstance(speaker, str) and (words is not None or "toolcalls" in named) else None
    )


def message_items(message: object, role_map: RoleMap) -> Items:
    """The turn of one message of a data set and what is skipped of it."""
    found = _message(message)
    if found is None:
        named = columns(message)
        if any(name in named for name in (*_WORDS, *_SPEAKER)):
            return [unknown_role(first_of(named, _SPEAKER))]
        return [Skipped(reason="message of another shape")]
    speaker, words = found
    role = parse_role(speaker, role_map)
    if role is None:
        return [unknown_role(speaker)]
    if not isinstance(words, str | list):
        return [Skipped(reason="message of another shape")]
    text, skipped = parse_content(words)
    items = text_turn(role, text, skipped=skipped)
    return masked_items(items) if is_masked(columns(message)) else items


def exchange_items(entry: object, role_map: RoleMap) -> Items | None:
    """The turns of an element of a talk: a message, a pair of texts, a pair by name (`human`, `assistant`)."""
    if isinstance(entry, list | tuple):
        if len(entry) != 2 or not all(isinstance(text, str) for text in entry):
            return None
        return [*text_turn(Role.USER, entry[0]), *text_turn(Role.ASSISTANT, entry[1])]
    if _message(entry) is not None:
        return message_items(entry, role_map)
    named = columns(entry)
    question, answer = first_of(named, QUESTION), first_of(named, ANSWER)
    if not (isinstance(question, str) or isinstance(answer, str)):
        return None
    items: Items = []
    if isinstance(system := first_of(named, SYSTEM), str):
        items.append(Turn(role=Role.SYSTEM, text=system))
    if isinstance(question, str):
        items += text_turn(Role.USER, question)
    if isinstance(answer, str):
        items += text_turn(Role.ASSISTANT, answer)
    return masked_items(items) if is_masked(named) else items


def is_masked(row: Row) -> bool:
    """Whether the source excludes a message or a row from training: `weight` 0, `loss` or `train` false."""
    weight = row.get("weight")
    is_zero = isinstance(weight, int | float) and not isinstance(weight, bool) and weight == 0
    return is_zero or any(
        row.get(name) is False or row.get(name) == 0 or _is_false_text(row.get(name))
        for name in ("loss", "train", "training")
        if row.get(name) is not None
    )


def is_bad_example(row: Row) -> bool:
    """Whether the row is marked as an example of a bad answer: KTO's `label` false.

    Beside other columns a label says something else.
    """
    names = ("ktotag", "label") if "completion" in row or "messages" in row else ("ktotag",)
    return any(row.get(name) is False or _is_false_text(row.get(name)) for name in names)


def _is_false_text(value: object) -> bool:
    return isinstance(value, str) and value.strip().lower() == "false"


BAD_EXAMPLE = Skipped(reason="answer that its source rejects", is_conversation=True)


def read_rows(
    path: Path,
    options: ImportOptions,
    on_bytes: OnBytes,
    source: str,
    items_of: Callable[[Any, RoleMap], Items | Skipped],
) -> Iterator[Conversation | Skipped]:
    """One conversation per row; `items_of` gives its turns, or why the whole row is skipped. Raises BadInput."""
    for row in (row for _line, value in json_values(path, on_bytes) for row in unfolded(value)):
        named = columns(row)
        if is_bad_example(named):
            yield BAD_EXAMPLE
            continue
        items = items_of(row, options.roles)
        if isinstance(items, Skipped):
            yield items
            continue
        yield from build_conversation(
            masked_items(items) if is_masked(named) else items,
            source=source,
            external_id=text_or_empty(named.get("id")),
            title=text_or_empty(named.get("title")) if has_column(named, ("conversations",)) else "",
            started_at=parse_time(named.get("timestamp", named.get("createtime"))),
            updated_at=parse_time(named.get("updatetime")),
        )


def ends_with_answer(items: Items) -> bool:
    turns = [item for item in items if isinstance(item, Turn)]
    return bool(turns) and turns[-1].role is Role.ASSISTANT and not turns[-1].is_empty
