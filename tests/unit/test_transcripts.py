"""Transcripts as people and programs write them: which lines are labels, and where conversations end."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import BadInput
from engine.memory.importers.datasets import chatml
from engine.memory.importers.fields import ImportOptions, parse_role, parse_role_map
from engine.memory.importers.formats import detect_format
from engine.memory.importers.transcripts.text import detect, read
from engine.memory.records import Conversation, Skipped
from engine.memory.store import MemoryStore
from engine.pipeline.import_run import import_paths
from tests.unit.import_accounting import assert_adds_up

Talk = list[tuple[str, str]]


def write(folder: Path, text: str, name: str = "t.md") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def talks(path: Path, **roles: str) -> list[Talk]:
    options = ImportOptions(roles=parse_role_map(roles))
    items: Iterator[Conversation | Skipped] = read(path, options)
    return [
        [(str(turn.role), turn.text) for turn in item.turns]
        for item in items
        if isinstance(item, Conversation)
    ]


RIVER = [("user", "Name a river"), ("assistant", "The Rhine.")]

FORMS = {
    "words and colons": "User: Name a river\nAssistant: The Rhine.\n",
    "colons at line ends": "Human:\nName a river\n\nAI:\nThe Rhine.\n",
    "headings": "## User\n\nName a river\n\n## Assistant\n\nThe Rhine.\n",
    "headings with signs": "### 🧑‍💻 User\n\nName a river\n\n---\n### 🤖 Assistant\n\nThe Rhine.\n",
    "headings in capitals": "### USER\nName a river\n\n### ASSISTANT\nThe Rhine.\n\n",
    "headings with colons": "# Talk\n\n## Message From You:\nName a river\n\n## Message From ChatGPT:\nThe Rhine.\n",
    "headings with a model": "# Talk\n\n## You\n\nName a river\n\n## Claude 3.5 Sonnet\n\nThe Rhine.",
    "headings with the model behind": "## User\n\nName a river\n\n## Assistant (gpt-4o-mini)\n\nThe Rhine.",
    "headings with times": "## User (2026-03-07 02:19)\n\nName a river\n\n## Assistant (2026-03-07 02:20)\n\nThe Rhine.",
    "a model with its tag": "#### You:\nName a river\n\n#### llama3:8b:\nThe Rhine.\n",
    "prompt and response": "## Prompt:\n\nName a river\n\n## Response:\n\nThe Rhine.\n",
    "a title that is a name": "# Gemini\n\n## 👤 You\nName a river\n\n## ✨ Gemini\nThe Rhine.\n",
    "headings of two levels": "##### You said:\nName a river\n\n###### ChatGPT said:\nThe Rhine.\n",
    "headings with numbers": "## 1. User\n\nName a river\n\n## 2. Assistant\n\nThe Rhine.\n",
    "bold": "**You**\n\nName a river\n\n**ChatGPT**\n\nThe Rhine.\n",
    "bold with colons": "**User:** Name a river\n\n**Assistant:** The Rhine.\n",
    "bold with colons outside": "**User**: Name a river\n\n**Assistant**: The Rhine.\n",
    "bold with signs": "👤 **User:**\n\nName a river\n\n🤖 **Assistant:**\n\nThe Rhine.\n",
    "bold with times": "**User** (10:01):\nName a river\n\n**Assistant** (10:02):\nThe Rhine.\n",
    "underscores": "__User__: Name a river\n\n__Assistant__: The Rhine.\n",
    "list items": "- **User:** Name a river\n- **Assistant:** The Rhine.\n",
    "Chinese brackets": "【用户】\nName a river\n\n【助手】\nThe Rhine.\n",
    "brackets": "[User]: Name a river\n[Assistant]: The Rhine.\n",
    "copied from a page": "You said:\nName a river\n\nChatGPT said:\nThe Rhine.\n",
    "copied without colons": "You said\nName a river\n\nGemini said\nThe Rhine.\n",
    "copied in Chinese": "你说：\nName a river\nDeepSeek 说：\nThe Rhine.\n",
    "lines of names": "我\nName a river\n\n豆包\nThe Rhine.\n",
    "times in front": "[2026-03-07 10:11:12] User: Name a river\n[2026-03-07 10:11:15] Assistant: The Rhine.\n",
    "times and names alone": "2026-03-07 10:11:12 用户\nName a river\n\n2026-03-07 10:11:15 助手\nThe Rhine.\n",
    "metadata in the form of labels": "# Talk\n\n**User:** Ann\n**Created:** 3/2/2026\n\n## Prompt:\n3/2/2026, 10:00:01 AM\n\n"
    "Name a river\n\n## Response:\n3/2/2026, 10:00:05 AM\n\n```plaintext\nThought for 2 seconds\n```\n\nThe Rhine.\n\n---\n"
    "Powered by [an exporter](https://example.com)\n",
    "each message in a fence": "# Talk\n\n**user**: \n\n```\nName a river\n```\n\n**assistant**: \n\n```\nThe Rhine.\n```\n",
    "rules between messages": "USER: Name a river\n\n---------\n\nASSISTANT: The Rhine.\n\n--------------------\n",
    "front matter": "---\ntitle: Talk\nmodel: x\n---\n\n## User\n\nName a river\n\n## Assistant\n\nThe Rhine.\n",
    "reasoning": "User: Name a river\nAssistant: <think>Which?</think>The Rhine.\n",
    "questions and answers": "Q: Name a river\nA: The Rhine.\n",
    "questions and answers in Chinese": "问：Name a river\n答：The Rhine.\n",
    "Windows lines": "User: Name a river\r\nAssistant: The Rhine.\r\n",
    "German": "Nutzer: Name a river\n\nAssistent: The Rhine.\n",
    "Japanese": "ユーザー：Name a river\n\nアシスタント：The Rhine.\n",
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_a_talk_in_any_form_is_read(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, FORMS[name])
    assert detect_format(path) == "text"
    assert talks(path) == [RIVER]


ANSWERS = {
    "multiple choice": "It is A.\nA: Berlin\nB: Rome",
    "questions and answers": "FAQ\n\nQ: Why?\nA: So.\n\nQuestion: When?\nAnswer: Then.",
    "Chinese questions": "例如：\n\n问题：一加一等于几？\n回答：二。",
    "keys of a configuration": "Write:\n\nsystem: linux\nuser: root\nmodel: x1\n\nThat is all.",
    "names of models": "Prices:\n\nClaude: 3\nGemini: 2\nModel: T-800\nMe: nobody",
    "bold words": "**Me:** I opened.\n\n**Answer:** Four.\n\n**Note:** So.",
    "rules": "One.\n\n---\n\nNext section.\n\n***\n\nEnd.",
    "headings": "## Question\n\nWhy?\n\n## Answer\n\nSo.",
    "a transcript in a fence": "Like this:\n\n```\nUser: x\n---\nAssistant: y\n```\n\nDone.",
    "a transcript in wavy fences": "~~~text\nUser: x\n```\nAssistant: y\n~~~\nDone.",
    "other capitals": "user: x\nUSER: y\nassistant: z",
    "indented labels": "- item\n      User: x\n      Assistant: y",
}


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("form", ["User: {q}\n\nAssistant: {a}\n\nUser: {q}\n\nAssistant: {a}\n",
                                  "# User\n\n{q}\n\n# Assistant\n\n{a}\n\n# User\n\n{q}\n\n# Assistant\n\n{a}\n"])  # fmt: skip
def test_labels_within_an_answer_are_text(tmp_path: Path, form: str, name: str) -> None:
    answer = ANSWERS[name]
    path = write(tmp_path, form.format(q="Show me", a=answer))
    assert detect_format(path) == "text"
    assert talks(path) == [[("user", "Show me"), ("assistant", answer)] * 2]
    # A question may hold the same lines.
    path = write(tmp_path, form.format(q=answer, a="Yes"))
    assert talks(path) == [[("user", answer), ("assistant", "Yes")] * 2]


@pytest.mark.parametrize(
    "name", ["multiple choice", "Chinese questions", "bold words", "rules", "a transcript in a fence"]
)
def test_labels_within_an_answer_are_text_without_empty_lines(tmp_path: Path, name: str) -> None:
    answer = ANSWERS[name]
    path = write(tmp_path, f"用户：看看\n助手：{answer}\n用户：再来\n助手：好的。\n")
    expected = [("user", "看看"), ("assistant", answer), ("user", "再来"), ("assistant", "好的。")]
    assert talks(path) == [expected]


SEPARATED = {
    "rules before questions": ("User: a\nAssistant: b\n---\nUser: c\nAssistant: d\n", 2),
    "rules of other signs": ("User: a\nAssistant: b\n\n=====\n\nUser: c\nAssistant: d\n", 2),
    "rules before instructions": ("system: s\nuser: a\nassistant: b\n---\nsystem: s\nuser: c\nassistant: d\n", 2),
    "rules between all messages": ("User: a\n---\nAssistant: b\n---\nUser: c\n---\nAssistant: d\n", 1),
    "rules of other shapes": ("User: a\nAssistant: b\n\n* * *\n\nUser: c\nAssistant: d\n", 2),
    "rules with words": ("User: a\nAssistant: b\n--- Conversation 2 ---\nUser: c\nAssistant: d\n", 2),
    "rules between exchanges of headings": ("## User\na\n## Assistant\nb\n\n---\n\n## User\nc\n## Assistant\nd\n", 1),
    "rules between longer talks of headings": (
        "## User\na\n## Assistant\nb\n## User\na\n## Assistant\nb\n---\n## User\nc\n## Assistant\nd\n",
        2,
    ),
    "titles": ("# One\n\n## User\na\n\n## Assistant\nb\n\n# Two\n\n## User\nc\n\n## Assistant\nd\n", 2),
    "titles above bold names": ("# One\n\n**User:** a\n\n**Assistant:** b\n\n# Two\n\n**User:** c\n\n**Assistant:** d\n", 2),
    "threads of fenced messages": (
        "# A\n\n## 1. One\n\n**user**: \n\n```\na\n```\n\n**assistant**: \n\n```\nb\n```\n\n## 2. Two\n\n**user**: \n\n```\nc\n```\n\n"
        "**assistant**: \n\n```\nd\n```\n",
        2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SEPARATED)
def test_conversations_end_where_the_file_parts_them(tmp_path: Path, name: str) -> None:
    text, count = SEPARATED[name]
    read_ = talks(write(tmp_path, text))
    assert len(read_) == count
    turns = [turn for talk in read_ for turn in talk if turn[0] != "system"]
    assert [text for _role, text in turns if text in "abcd"] == [text for _role, text in turns]


def test_a_fenced_message_may_hold_fences(tmp_path: Path) -> None:
    answer = "Run:\n\n```python\nprint(1)\n```\n\nThat is all."
    text = f"**user**: \n\n```\nHow?\n```\n\n**assistant**: \n\n```\n{answer}\n```\n\n**user**: \n\n```\nThanks\n```\n"
    assert talks(write(tmp_path, text)) == [[("user", "How?"), ("assistant", answer), ("user", "Thanks")]]


def test_a_fence_that_a_cut_answer_left_open_ends_with_the_answer(tmp_path: Path) -> None:
    path = write(
        tmp_path, "User: code\n\nAssistant: Here:\n\n```python\nprint(1\n\nUser: go on\n\nAssistant: ok\n"
    )
    assert talks(path) == [
        [
            ("user", "code"),
            ("assistant", "Here:\n\n```python\nprint(1"),
            ("user", "go on"),
            ("assistant", "ok"),
        ]
    ]


def test_a_fence_that_was_left_open_does_not_end_with_the_code_of_a_later_answer(tmp_path: Path) -> None:
    code = "```js\nx\n```"
    path = write(
        tmp_path,
        f"User: code\n\nAssistant: Here:\n\n```python\nprint(1\n\nUser: go on\n\nAssistant: {code}\n\nUser: ok\n",
    )
    assert talks(path) == [
        [
            ("user", "code"),
            ("assistant", "Here:\n\n```python\nprint(1"),
            ("user", "go on"),
            ("assistant", code),
            ("user", "ok"),
        ]
    ]


def test_an_answer_of_another_model_is_no_part_of_the_question(tmp_path: Path) -> None:
    path = write(tmp_path, "User: a\nClaude: b\nUser: c\nChatGPT: d\nUser: e\nGemini: f\n")
    assert talks(path) == [
        [
            ("user", "a"),
            ("assistant", "b"),
            ("user", "c"),
            ("assistant", "d"),
            ("user", "e"),
            ("assistant", "f"),
        ]
    ]


@pytest.mark.parametrize(
    "text",
    [
        "# A project\n\nNote: nobody speaks here.\n\n## Usage\n\nRun it.\n",
        "# API\n\n## User\n\nA person.\n\n## Session\n\nA time.\n",
        "Name: x\nDate: y\nUser: root\n",
        "第一章\n\n他说：你好。\n\n她问：是谁？\n",
        "- **Model:** T-800\n- **Year:** 1984\n",
        "Shopping\n\nme: milk\n",
        "XXX\nYOU\nZZZ\nBING\nBIZ\n",
        "system: linux\nuser: root\nmodel: x1\n",
    ],
)
def test_notes_are_no_conversation(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadInput, match=r"No speakers|are unknown"):
        detect_format(write(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "roles"),
    [
        ("Ann: hi\nBob: hello\nAnn: so\nBob: yes\n", "ab"),
        ("**Ann**\n\nhi\n\n**Bob**\n\nhello\n\n**Ann**\n\nso\n\n**Bob**\n\nyes\n", "ab"),
        ("## Ann\n\nhi\n\n## Bob\n\nhello\n\n## Ann\n\nso\n\n## Bob\n\nyes\n", "ab"),
    ],
)
def test_the_hint_for_unknown_names_works_when_typed(tmp_path: Path, text: str, roles: str) -> None:
    path = write(tmp_path, text, "a b.txt")
    with pytest.raises(BadInput, match="Ann") as caught:
        detect_format(path)
    words = shlex.split(caught.value.hint)
    assert words[:4] == ["h2q-tui", "memory", "import", str(path)]
    assert words[4:7] == ["--format", "text", "--map"]
    mapping = dict(pair.split("=") for pair in words[7].split(","))
    assert talks(path, **mapping) == [
        [("user", "hi"), ("assistant", "hello"), ("user", "so"), ("assistant", "yes")]
    ]


def test_names_of_the_user_go_before_known_ones(tmp_path: Path) -> None:
    path = write(tmp_path, "Ann: hi\nUser: is a word\nBob: hello\nAnn: so\nBob: yes\n")
    assert talks(path, Ann="user", Bob="assistant")[0][0] == ("user", "hi\nUser: is a word")


def test_times_of_messages_are_read(tmp_path: Path) -> None:
    path = write(tmp_path, "## User (2026-03-07 02:19:26)\n\na\n\n## Assistant\n2026-03-07 02:20:00\n\nb\n")
    (conversation,) = (item for item in read(path, ImportOptions()) if isinstance(item, Conversation))
    assert [turn.time for turn in conversation.turns] == [1772849966.0, 1772850000.0]
    assert [turn.text for turn in conversation.turns] == ["a", "b"]


def test_one_date_of_a_transcript_decides_how_the_others_are_read(tmp_path: Path) -> None:
    text = "## Prompt:\n3/7/2026, 2:19:26 AM\n\na\n\n## Response:\n{}, 2:20:00 AM\n\nb\n"
    for date, times in (("3/27/2026", [1772849966.0, 1774578000.0]), ("3/8/2026", [None, None])):
        path = write(tmp_path, text.format(date))
        (conversation,) = (item for item in read(path, ImportOptions()) if isinstance(item, Conversation))
        assert [turn.time for turn in conversation.turns] == times


@pytest.mark.parametrize("name", FORMS)
def test_every_message_is_accounted_for_and_a_second_import_adds_nothing(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, FORMS[name])
    extra = {
        reason: count
        for item in read(path, ImportOptions())
        if isinstance(item, Skipped)
        for reason, count in [(item.reason, item.count)]
    }
    assert_adds_up(path, 2, extra)
    with MemoryStore(tmp_path / "memory.db") as store:
        assert import_paths(store, [path]).added == 1
        assert import_paths(store, [path]).added == 0


WORDS = st.text(alphabet="abc é中。\n", min_size=1, max_size=30).map(str.strip).filter(bool)


@given(
    st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=4),
    st.sampled_from(
        ["User: {}\n\nAssistant: {}\n\n", "## User\n\n{}\n\n## Assistant\n\n{}\n\n", "**You**\n\n{}\n\n**ChatGPT**\n\n{}\n\n",
         "用户：{}\n助手：{}\n", "【用户】{}\n【助手】{}\n", "You said:\n{}\n\nChatGPT said:\n{}\n\n"]
    ),
)  # fmt: skip
def test_a_written_talk_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, talk: list[tuple[str, str]], form: str
) -> None:
    path = write(tmp_path_factory.mktemp("t"), "".join(form.format(*exchange) for exchange in talk))
    expected = [pair for q, a in talk for pair in (("user", q), ("assistant", a))]
    lines = [(role, "\n".join(line.rstrip("\r") for line in text.split("\n"))) for role, text in expected]
    assert talks(path) == [lines]


PUMPS = ["User: ", "User:", "## ", "**", "*", "[", "【", "(", "User (", "User: x\n", "User: x\n\n", "---\n", "\n", " ", "```a\n", "```\n", "~~~\n", "1. ",
         "User: a\nClaude: b\n", "a: b\n", "user: x\nmodel: y\n", "said ", "gpt-4 ", "llama3:8b:", "😀", "from ", "# x\n", "User\n", "**User**\n\n"]  # fmt: skip


@pytest.mark.parametrize("pump", PUMPS)
def test_any_transcript_is_read_in_linear_time(tmp_path: Path, pump: str) -> None:
    begun = time.process_time()
    for head in ("", "User: a\n\nAssistant: b\n\n", "## User\n\na\n\n## Assistant\n\n"):
        path = write(tmp_path, head + pump * 4_000)
        detect(path, None)
        with suppress(BadInput):
            list(read(path, ImportOptions()))
    # Quadratic time would be minutes.
    assert time.process_time() - begun < 20


def test_chatml_answers_have_no_reasoning(tmp_path: Path) -> None:
    text = (
        "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n<think>\nSECRET\n</think>\n\na<|im_end|>\n"
        "<|im_start|>user\nq2<|im_end|>\n<|im_start|>assistant\n<think>\nSECRET"
    )
    items = list(chatml.read(write(tmp_path, text), ImportOptions()))
    (conversation,) = (item for item in items if isinstance(item, Conversation))
    assert [turn.text for turn in conversation.turns] == ["q", "a", "q2"]
    assert [item.reason for item in items if isinstance(item, Skipped)] == ["reasoning", "reasoning"]


@pytest.mark.parametrize(
    "name", ["gpt-4", "claude-3-opus", "Llama 3.1", "deepseek-r1", "豆包", "GPT-4o mini"]
)
def test_names_of_models_are_assistants(name: str) -> None:
    assert parse_role(name, {}) == "assistant"


@pytest.mark.parametrize(
    "name", ["Ann", "gpt store owner", "claudette", "philip", "yin", "o", "model railway"]
)
def test_other_names_have_no_role(name: str) -> None:
    assert parse_role(name, {}) is None
