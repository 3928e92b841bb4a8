"""The exports of Gemini: My Activity in both forms, Workspace conversations, AI Studio files and CLI sessions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.memory.importers.formats import detect_format
from engine.memory.importers.html_text import html_to_text
from engine.memory.importers.localized_time import is_time_line, parse_localized_time
from engine.memory.store import MemoryStore
from engine.pipeline.import_run import import_paths
from tests.unit.test_importers import read, role_texts, write

NAMES = ("Reis", "Brot", "Salz", "Öl", "Mehl", "Wasser")
GEMINI = Path(__file__).parents[1] / "data" / "exports" / "gemini"


def test_prompts_less_than_half_an_hour_apart_are_one_conversation() -> None:
    *older, newest = read(GEMINI / "MyActivity.json")[0]
    assert role_texts(newest) == [
        ("user", "什么是检查点？"),
        ("assistant", "训练状态的快照：\n\n- 权重\n- 优化器\n\n```python\nsave()\n```"),
        ("user", "那要多大？"),
        ("assistant", "约为权重的**三倍**。"),
    ]
    assert newest.turns[3].alternatives == ("两倍。",)
    assert (newest.turns[0].time, newest.updated_at) == (1785046077.773, 1785046800.0)
    assert [role_texts(conversation)[0][1] for conversation in older] == [
        "never answered",
        "How large is it?",
        "",
    ]


def test_activity_that_is_no_message_is_counted() -> None:
    _, skipped = read(GEMINI / "MyActivity.json")
    assert skipped == {
        "activity without a message": 1,
        "activity of another product": 1,
        "entry of another shape": 1,
        "attachment": 2,
    }


def test_an_answer_to_an_image_alone_keeps_the_place_of_the_question() -> None:
    image = read(GEMINI / "MyActivity.json")[0][2]
    assert role_texts(image) == [("user", ""), ("assistant", "A cat.")]


def test_a_card_without_product_is_read_when_the_page_links_to_gemini(tmp_path: Path) -> None:
    html = (
        '<!doctype html><html><body><div class="outer-cell"><a href="https://gemini.google.com/app/c1">Chat</a>'
        '<div class="content-cell mdl-typography--body-1">Prompted Hi?<br>2026-09-02T12:00:00Z<br><p>Yes.</p></div>'
        "</div></body></html>"
    )
    (conversation,), _ = read(write(tmp_path, "MyActivity.html", html))
    assert role_texts(conversation) == [("user", "Hi?"), ("assistant", "Yes.")]
    assert (conversation.external_id, conversation.started_at) == ("c1", 1788350400)


def test_the_page_is_read_in_any_language_and_groups_by_the_linked_conversation() -> None:
    assert detect_format(GEMINI / "Moja_dejavnost.html") == "gemini"
    (linked, single), skipped = read(GEMINI / "Moja_dejavnost.html")
    assert role_texts(linked) == [
        ("user", "What is a checkpoint?\n- in one line"),
        ("assistant", "A snapshot:\n\n1. weights\n2. optimizer"),
        ("user", "And how large?"),
        ("assistant", "Three times the **weights**."),
    ]
    assert (linked.external_id, linked.started_at) == ("one", 1762299287.0)
    assert role_texts(single) == [("user", "x < y?"), ("assistant", "Yes, a && b.")]
    assert skipped == {
        "activity without a message": 2,
        "activity of another product": 1,
        "entry of another shape": 1,
        "attachment": 1,
    }


@pytest.mark.parametrize(
    "label",
    [
        "Eingegebener Prompt: ",
        "Poslali ste poziv:\xa0",
        "Gav instruktionen ",
        "已发送提示：",
        "プロンプトを送信しました: ",
    ],
)
def test_the_verb_of_another_language_is_learned_from_the_file(tmp_path: Path, label: str) -> None:
    rows = [activity(f"{label}{name} {n}?", n) for n, name in enumerate(NAMES, 1)]
    rows += [activity(f"Asked {name}?", 10 + n) for n, name in enumerate(NAMES)]
    conversations, _ = read(write(tmp_path, "Meine Aktivitäten.json", rows))
    assert [role_texts(c)[0][1] for c in conversations] == [
        *(f"{name} {n}?" for n, name in enumerate(NAMES, 1)),
        *(f"{name}?" for name in NAMES),
    ]


def test_words_that_a_person_repeats_are_no_verb(tmp_path: Path) -> None:
    rows = [activity(f"Eingegebener Prompt: what is {name}?", n) for n, name in enumerate(NAMES, 1)]
    conversations, _ = read(write(tmp_path, "a.json", rows))
    assert [role_texts(c)[0][1] for c in conversations] == [f"what is {name}?" for name in NAMES]


def activity(title: str, day: int) -> dict[str, object]:
    answer = [{"html": "<p>Ja.</p>"}]
    return {
        "header": "Gemini-Apps",
        "title": title,
        "time": f"2026-07-{day:02}T06:00:00Z",
        "safeHtmlItem": answer,
    }


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>Use <strong>this</strong> and <em>that</em>.</p>", "Use **this** and *that*."),
        ("<h2>Steps</h2><ul><li><p>First</p></li><li>Second</li></ul>", "## Steps\n\n- First\n- Second"),
        ("<pre><code>x = 1\n  y = 2\n</code></pre>", "```\nx = 1\n  y = 2\n```"),
        ("<table><tr><th>A</th><th>B</th></tr><tr><td>1</td><td>2</td></tr></table>", "| A | B |\n| --- | --- |\n| 1 | 2 |"),
        ("<p>a &lt; b &amp;&amp; c &gt; d</p>", "a < b && c > d"),
        ('See <a href="https://example.com/x">the docs</a>.', "See [the docs](https://example.com/x)."),
        ("<p>hello<<<>>", "hello<<<>>"),
        ("one<br>two<br><br>three", "one\ntwo\n\nthree"),
    ],
)  # fmt: skip
def test_html_becomes_the_markdown_that_it_came_from(html: str, text: str) -> None:
    assert html_to_text(html) == text


@pytest.mark.parametrize(
    ("line", "time"),
    [
        ("Nov 28, 2026, 7:50:09\u202fPM GMT+01:00", 1795891809),
        ("28 de nov. de 2026, 19:50:09 BRT", 1795906209),
        ("5. nov. 2025, 01:34:47 CEST", 1762299287),
        ("2026年6月19日 12:23:08 CST", 1781842988),
        ("2026年6月19日 下午7:05:01 CST", 1781867101),
        ("4 juli 2026 09:15:00 CEST", 1783149300),
        ("5 мая 2026 г., 09:15:00 MSK", 1777961700),
        ("19.06.2026, 09:15:00 MESZ", 1781853300),
        ("28\u200f/11\u200f/2026، 7:50:09 م GMT+03:00", 1795884609),
        ("٢٨ نوفمبر ٢٠٢٦، ٧:٥٠:٠٩ م غرينتش+٣", 1795884609),
        ("28 नव॰ 2026, 7:50:09 pm IST", 1795875609),
        ("19:50:09 28 thg 11, 2026 GMT+07:00", 1795870209),
        ("28 พ.ย. 2569 19:50:09 GMT+07:00", 1795870209),
        ("28 בנוב׳ 2026, 19:50:09 GMT+2", 1795888209),
        ("28 Νοε 2026, 7:50:09 μ.μ. EET", 1795888209),
        ("28. 11. 2026 19:50:09 SEČ", 1795891809),
    ],
)
def test_times_are_read_in_the_language_of_the_account(line: str, time: int) -> None:
    assert is_time_line(line)
    assert parse_localized_time(line) == time


def test_a_time_in_an_unknown_language_is_left_out() -> None:
    assert parse_localized_time("5. brumaire 2025, 01:34:47 CEST") is None
    assert not is_time_line("Yesterday at 10:00:00 I had 2026 ideas, and then ten more words came along")


def test_importing_gemini_twice_adds_nothing(tmp_path: Path) -> None:
    with MemoryStore(tmp_path / "memory.db") as store:
        files = sorted(file for file in GEMINI.rglob("*") if file.is_file())
        assert import_paths(store, files).added
        assert import_paths(store, files).added == 0


def test_a_workspace_conversation_takes_the_last_of_repeated_turns() -> None:
    assert detect_format(GEMINI / "conversation_1.txt") == "gemini_workspace"
    (conversation,), skipped = read(GEMINI / "conversation_1.txt")
    assert role_texts(conversation) == [
        ("user", "怎么煮饭？"),
        ("assistant", "洗米，\n然后煮。"),
        ("user", "要多久？"),
        ("assistant", "二十分钟。"),
    ]
    assert conversation.turns[1].alternatives == ("先洗米。",)
    assert (conversation.title, conversation.started_at, conversation.updated_at) == (
        "米饭",
        1777622400,
        1777622580,
    )
    assert skipped == {"message of another shape": 1, "reasoning": 1, "deleted message": 1, "image": 1}


def test_an_ai_studio_file_is_read_without_its_thoughts_and_its_draft() -> None:
    assert detect_format(GEMINI / "Checkpoint sizes") == "aistudio"
    (conversation,), skipped = read(GEMINI / "Checkpoint sizes")
    assert role_texts(conversation) == [
        ("system", "简短回答。"),
        ("user", "什么是检查点？"),
        ("user", ""),
        ("assistant", "训练状态的快照。"),
        ("user", "要多大？"),
        ("assistant", "权重的三倍。"),
    ]
    assert (conversation.title, conversation.turns[3].time) == ("Checkpoint sizes", 1769940009)
    assert skipped == {"attachment": 1, "reasoning": 1, "unknown role: narrator": 1}
    assert ("system", "narrated") in role_texts(read(GEMINI / "Checkpoint sizes", narrator="system")[0][0])


def test_a_bare_list_of_ai_studio_chunks_is_read() -> None:
    (conversation,), skipped = read(GEMINI / "aistudio_chunks.json")
    assert role_texts(conversation) == [("user", "Hi?"), ("assistant", "Hello.")]
    assert skipped == {"entry of another shape": 1}


SESSION = GEMINI / "session-2026-04-27T01-55-5f0c.jsonl"


def test_a_cli_session_is_read_without_tools_context_and_rewound_messages() -> None:
    assert detect_format(SESSION) == "gemini_cli"
    (conversation,), skipped = read(SESSION)
    assert role_texts(conversation) == [
        ("user", "list files"),
        ("assistant", "Let me look.\n\nThere is a.txt."),
        ("user", "rename it"),
        ("assistant", "Renamed."),
    ]
    assert (conversation.external_id, conversation.updated_at, conversation.turns[0].external_id) == (
        "5f0c",
        1777255025,
        "m1",
    )
    assert skipped == {
        "text added by the program": 1,
        "reasoning": 1,
        "tool message": 1,
        "notice of the program": 1,
        "message of another branch": 2,
        "message joined to one answer": 1,
    }


def test_files_that_a_prompt_names_are_not_part_of_it(tmp_path: Path) -> None:
    header, _context, prompt, *answers = SESSION.read_text(encoding="utf-8").splitlines()
    typed = json.loads(prompt)
    del typed["displayContent"]
    files = [
        "what is in @a.txt?",
        "\n--- Content from referenced files ---",
        "SECRET",
        "\n--- End of content ---",
    ]
    typed["content"] = [{"text": text} for text in files]
    path = write(tmp_path, "s.jsonl", "\n".join([header, json.dumps(typed), *answers]))
    assert role_texts(read(path)[0][0])[0] == ("user", "what is in @a.txt?")


def test_the_old_form_of_a_cli_session_gives_the_same_conversation(tmp_path: Path) -> None:
    header, *records = [json.loads(line) for line in SESSION.read_text(encoding="utf-8").splitlines()]
    kept = [record for record in records if record.get("id") not in ("m5", "m6", None)]
    old = write(tmp_path, "session.json", header | records[-1]["$set"] | {"messages": kept})
    assert detect_format(old) == "gemini_cli"
    assert read(old)[0][0].id == read(SESSION)[0][0].id


def test_a_checkpoint_replaces_the_messages_before_it_and_a_sub_agent_is_left_out(tmp_path: Path) -> None:
    header, *records = [json.loads(line) for line in SESSION.read_text(encoding="utf-8").splitlines()]
    lines = [
        header,
        records[0],
        {"$set": {"messages": records[-3:-1]}},
        {"id": "m9", "type": "user", "content": "ok"},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (conversation,), _ = read(write(tmp_path, "a.jsonl", text))
    assert [turn.text for turn in conversation.turns] == ["rename it", "Renamed.", "ok"]
    agent = write(tmp_path, "b.jsonl", text.replace('"main"', '"subagent"'))
    assert read(agent) == ([], {"message of a sub-agent": 3, "empty conversation": 1})


LABELS: list[tuple[list[str], list[str]]] = [
    (["Eingegebener Prompt: wie kocht man Reis"], ["wie kocht man Reis"]),
    (["输入的提示：米饭怎么煮"], ["米饭怎么煮"]),
    (["Invite saisie : comment", "Invite saisie : pourquoi"], ["comment", "pourquoi"]),
    (["Invite saisie : comment", "Invite saisie : note: pourquoi"], ["comment", "note: pourquoi"]),
    (["Wie kocht man Reis", "Liste: Brot"], ["Wie kocht man Reis", "Liste: Brot"]),
    (["Bitte sag mir noch einmal: was", "Bitte hilf"], ["Bitte sag mir noch einmal: was", "Bitte hilf"]),
]


@pytest.mark.parametrize(("titles", "prompts"), LABELS)
def test_the_words_before_every_prompt_of_a_short_file_are_no_prompt(
    tmp_path: Path, titles: list[str], prompts: list[str]
) -> None:
    rows = [
        {
            "header": "Gemini-Apps",
            "title": title,
            "time": f"2026-07-26T06:0{place}:00Z",
            "products": ["Gemini"],
            "safeHtmlItem": [{"html": "<p>x</p>"}],
        }
        for place, title in enumerate(titles)
    ]
    path = tmp_path / "MyActivity.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    (conversation,), _skipped = read(path)
    assert [text for role, text in role_texts(conversation) if role == "user"] == prompts


def test_an_ai_studio_chunk_may_hold_its_text_in_parts(tmp_path: Path) -> None:
    chunks = [
        {"role": "user", "parts": [{"text": "Name a "}, {"text": "river"}]},
        {"role": "model", "parts": [{"text": "SECRET", "thought": True}, {"text": "The Rhine."}]},
    ]
    value = {"runSettings": {"model": "m"}, "chunkedPrompt": {"chunks": chunks}}
    (conversation,), _skipped = read(write(tmp_path, "A chat", value))
    assert role_texts(conversation) == [("user", "Name a river"), ("assistant", "The Rhine.")]
