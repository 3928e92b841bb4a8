"""Chats between two people: who is the assistant, where dialogues end, and that every message is accounted for."""

from __future__ import annotations

import json
import shlex
import zipfile
from collections import Counter
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.writers.people_files import ME, SAYS_WHO_I_AM, WRITERS, Message, attributed, telegram_chat
from engine.core.errors import BadInput, UsageProblem
from engine.memory.importers.chats.imessage import attributed_text
from engine.memory.importers.chats.people import parse_silence
from engine.memory.importers.chats.wechat import quoting_text
from engine.memory.importers.fields import ImportOptions, parse_role_map
from engine.memory.importers.formats import detect_format, find_importer
from engine.memory.records import Conversation, LateAnswers, Skipped
from engine.memory.store import MemoryStore
from engine.pipeline.import_run import ImportReport, assumed_dates_lines, import_paths, late_answers_text
from engine.runs.kinds import ImportParams
from tests.unit.test_importers import role_texts, write

PEOPLE = Path(__file__).parents[1] / "data" / "exports" / "people"
T0 = 1_785_578_460
HOUR, DAY = 3600, 86400
TALK: list[Message] = [
    (False, "在吗", T0),
    (False, "are you there?", T0 + 20),
    (True, "yes", T0 + 40),
    (True, "what is it?", T0 + 60),
    (False, "nothing", T0 + 80),
    (False, "one more thing", T0 + 5 * HOUR),
    (True, "late, but yes", T0 + 13 * HOUR),
    (False, "good", T0 + 13 * HOUR + 20),
    (True, "good night", T0 + 13 * HOUR + 40),
    (True, "morning", T0 + 14 * DAY),
    (False, "hello", T0 + 14 * DAY + 20),
    (True, "how are you", T0 + 14 * DAY + 40),
]
DIALOGUES = [
    [("user", "在吗\nare you there?"), ("assistant", "yes\nwhat is it?")],
    [("assistant", "late, but yes"), ("user", "good"), ("assistant", "good night")],
    [("assistant", "morning"), ("user", "hello"), ("assistant", "how are you")],
]


def my_name(path: Path) -> str:
    return ME if path.suffix == ".txt" else ""


def read(
    path: Path, *, me: str | None = None, silence_s: float = HOUR
) -> tuple[list[Conversation], Counter[str], int]:
    """The conversations, what is left out by reason, and the late answers. Only texts need the name of the assistant."""
    options = ImportOptions(me=my_name(path) if me is None else me, silence_s=silence_s)
    items = list(find_importer(detect_format(path)).read(path, options))
    skipped = Counter[str]()
    for item in items:
        if isinstance(item, Skipped):
            skipped[item.reason] += item.count
    late = sum(item.count for item in items if isinstance(item, LateAnswers))
    return [item for item in items if isinstance(item, Conversation)], skipped, late


@pytest.mark.parametrize("name", WRITERS)
def test_every_program_gives_the_same_dialogues(name: str, tmp_path: Path) -> None:
    conversations, skipped, late = read(WRITERS[name](tmp_path, TALK, "Bo"))
    assert [role_texts(one) for one in conversations] == DIALOGUES
    assert [one.started_at for one in conversations] == [T0, T0 + 13 * HOUR, T0 + 14 * DAY]
    assert skipped == {"message joined to the one before": 2, "message without an answer": 2}
    assert late == 1


@pytest.mark.parametrize("name", WRITERS)
def test_what_opens_a_dialogue_answers_nothing_and_bears_no_loss(name: str, tmp_path: Path) -> None:
    conversations, _skipped, _late = read(WRITERS[name](tmp_path, TALK, "Bo"))
    masks = [[turn.masked for turn in one.turns] for one in conversations]
    assert masks == [[False, False], [True, False, False], [True, False, False]]


@pytest.mark.parametrize("name", WRITERS)
def test_a_wider_silence_gives_the_late_answers(name: str, tmp_path: Path) -> None:
    path = WRITERS[name](tmp_path, TALK, "Bo")
    conversations, skipped, late = read(path, silence_s=DAY)
    assert role_texts(conversations[0])[2:5] == [
        ("user", "nothing\none more thing"),
        ("assistant", "late, but yes"),
        ("user", "good"),
    ]
    assert (late, skipped["message without an answer"]) == (0, 0)


@pytest.mark.parametrize("name", SAYS_WHO_I_AM)
def test_a_file_that_says_who_i_am_needs_no_name(name: str, tmp_path: Path) -> None:
    conversations, _skipped, _late = read(WRITERS[name](tmp_path, TALK, "Bo"), me="")
    assert [role_texts(one) for one in conversations] == DIALOGUES


@pytest.mark.parametrize("name", [name for name in WRITERS if name not in SAYS_WHO_I_AM])
def test_otherwise_the_speakers_are_named_and_the_hint_works(name: str, tmp_path: Path) -> None:
    path = WRITERS[name](tmp_path, TALK, "Bo")
    with pytest.raises(BadInput, match=r"Bo \(6\), Ann \(6\)") as error:
        read(path, me="")
    assert "hello" not in str(error.value)
    command = shlex.split(error.value.hint)
    assert command[:4] == ["h2q-tui", "memory", "import", "--me"]
    conversations, _skipped, _late = read(Path(command[5]), me=command[4])
    assert conversations


@pytest.mark.parametrize("name", WRITERS)
def test_the_other_person_can_be_the_assistant(name: str, tmp_path: Path) -> None:
    path = WRITERS[name](tmp_path, TALK, "Bo")
    (first, *_rest), _skipped, _late = read(path, me="wxid_Bo" if name == "pywxdump" else "bo ")
    assert role_texts(first) == [
        ("assistant", "在吗\nare you there?"),
        ("user", "yes\nwhat is it?"),
        ("assistant", "nothing"),
    ]


def test_a_map_of_roles_names_the_assistant_too(tmp_path: Path) -> None:
    path = WRITERS["whatsapp ios"](tmp_path, TALK, "Bo")
    options = ImportOptions(roles=parse_role_map({"Bo": "user", "Ann": "assistant"}))
    items = list(find_importer("whatsapp").read(path, options))
    assert [role_texts(item) for item in items if isinstance(item, Conversation)] == DIALOGUES


@pytest.mark.parametrize("name", WRITERS)
def test_a_name_that_nobody_has_is_said_and_the_hint_works(name: str, tmp_path: Path) -> None:
    path = WRITERS[name](tmp_path, TALK, "Bo")
    with pytest.raises(BadInput, match=r"Nobody here is called Zoe; the speakers are .*Bo") as error:
        read(path, me="Zoe")
    assert "\0" not in str(error.value)
    *option, file = shlex.split(error.value.hint)[3:]
    conversations, _skipped, _late = read(Path(file), me=option[1] if option else "")
    assert conversations


@pytest.mark.parametrize(("me", "taken"), [("Ann", 3), ("Model GPT", 3), ("Zoe", None)])
def test_a_name_is_looked_for_in_chats_with_bots_too(me: str, taken: int | None, tmp_path: Path) -> None:
    bot = telegram_chat([(not is_me, text, time) for is_me, text, time in TALK], "Model GPT")
    value = {
        "about": "x",
        "personal_information": {"user_id": 111},
        "chats": {"list": [bot | {"type": "bot_chat"}]},
    }
    path = write(tmp_path, "result.json", value)
    if taken is None:
        with pytest.raises(BadInput, match="Nobody here is called Zoe"):
            read(path, me=me)
    else:
        assert len(read(path, me=me)[0]) == taken


GROUPS = {
    "group chat": ("Bo", "Cy", "Ann"),
    "chat with one speaker": ("Ann", "Ann", "Ann"),
    "chat with a bot": ("Weather", "Ann"),
}


@pytest.mark.parametrize("reason", GROUPS)
def test_every_message_of_a_chat_that_is_left_out_is_counted(reason: str, tmp_path: Path) -> None:
    messages = [
        {
            "type": "message",
            "date_unixtime": str(T0 + place),
            "from": who,
            "from_id": f"user{len(who)}{who}",
            "text": "hi",
        }
        for place, who in enumerate(GROUPS[reason])
    ]
    kind = {"group chat": "private_group", "chat with a bot": "bot_chat"}.get(reason, "personal_chat")
    chat = {
        "name": "x",
        "type": kind,
        "id": "7Weather",
        "messages": [*messages, {"type": "service", "action": "pin"}],
    }
    conversations, skipped, _late = read(write(tmp_path, "result.json", chat), me="")
    assert (conversations, skipped) == ([], {reason: len(messages) + 1})


talks = st.lists(
    st.tuples(
        st.booleans(),
        st.text("abcxyz好吗啊 ?", min_size=1, max_size=12).map(str.strip).filter(bool),
        st.sampled_from([1, 20, 3500, 3700, 40000, 90000]),
    ),
    min_size=2,
    max_size=25,
)


@settings(deadline=None, max_examples=10)
@given(talks, st.sampled_from([1800, HOUR, DAY]))
def test_every_message_is_taken_joined_or_counted(
    steps: list[tuple[bool, str, int]], silence_s: float
) -> None:
    messages, time = list[Message](), T0
    for is_me, text, step in steps:
        time += step
        messages.append((is_me, text, time))
    messages += [(False, "last", time + 1), (True, "word", time + 2)]
    results = {}
    with TemporaryDirectory() as folder:
        for name in WRITERS:
            place = Path(folder) / name
            place.mkdir()
            conversations, skipped, _late = read(WRITERS[name](place, messages, "Bo"), silence_s=silence_s)
            turns = [turn for one in conversations for turn in one.turns if turn.text]
            assert len(turns) + skipped.total() == len(messages), name
            lines = [line for turn in turns for line in turn.text.split("\n")]
            rest = iter(text for _is_me, text, _time in messages)
            assert all(any(line == text for text in rest) for line in lines), "in the order of the chat"
            results[name] = [role_texts(one) for one in conversations]
    assert len({json.dumps(result) for result in results.values()}) == 1


@settings(deadline=None, max_examples=20)
@given(talks)
def test_as_many_late_answers_come_as_were_offered(steps: list[tuple[bool, str, int]]) -> None:
    messages, time = list[Message](), T0
    for is_me, text, step in steps:
        time += step
        messages.append((is_me, text, time))
    messages += [(False, "last", time + 1), (True, "word", time + 2)]
    with TemporaryDirectory() as folder:
        path = WRITERS["telegram"](Path(folder), messages, "Bo")
        narrow, _skipped, late = read(path)
        wide, _skipped, _late = read(path, silence_s=DAY)
    assert answers(wide) - answers(narrow) == late


def answers(conversations: list[Conversation]) -> int:
    roles = [[str(turn.role) for turn in one.turns] for one in conversations]
    return sum(a == "user" and b == "assistant" for one in roles for a, b in pairwise(one))


FIXTURES = {
    "_chat.txt": (7, 2, {"notice of the program": 1, "image": 1, "deleted message": 1}),
    "WhatsApp Chat with Bo.txt": (
        7,
        1,
        {"notice of the program": 1, "attachment": 1, "image": 1, "empty message": 1, "message without an answer": 1},
    ),
    "chat.db": (8, 1, {"repeated message": 1, "reaction": 1, "attachment": 1, "notice of the program": 1, "group chat": 1}),
    "chatlab.json": (5, 1, {"sticker": 1, "recalled message": 1, "message joined to the one before": 1}),
    "qq.txt": (3, 1, {"image": 1}),
    "qq_chat.json": (5, 1, {"recalled message": 1, "image": 1, "notice of the program": 1}),
    "telegram_account.json": (5, 1, {"message joined to the one before": 1, "chat with one speaker": 1, "group chat": 1}),
    "telegram_chat.json": (
        12,
        1,
        {
            "call": 1,
            "sticker": 1,
            "image": 1,
            "forwarded message": 1,
            "message of another shape": 1,
            "message joined to the one before": 1,
            "message without an answer": 1,
            "message that answers nothing": 1,
        },
    ),
    "wechat_memotrace.csv": (5, 1, {"sticker": 1, "recalled message": 1, "link card": 1}),
    "wechat_pywxdump.csv": (
        9,
        2,
        {"repeated message": 1, "image": 1, "recalled message": 1, "message joined to the one before": 1, "group chat": 1},
    ),
    "wechat_weflow.json": (5, 1, {"voice message": 1, "notice of the program": 1, "transfer or red packet": 1}),
}  # fmt: skip
"""Rows in each file, dialogues, and what is left out. Skipped chats have one row here."""
PARTS = {"telegram_chat.json": 1}
"""Reasons that count a part of a taken message."""


@pytest.mark.parametrize("name", FIXTURES)
def test_rows_that_are_no_words_are_counted_by_their_reason(name: str) -> None:
    rows, dialogues, reasons = FIXTURES[name]
    conversations, skipped, _late = read(PEOPLE / name)
    assert (len(conversations), skipped) == (dialogues, reasons)
    turns = sum(bool(turn.text) for one in conversations for turn in one.turns)
    assert turns + skipped.total() - PARTS.get(name, 0) == rows


def test_quotes_keep_the_words_of_their_author() -> None:
    (one,), _skipped, _late = read(PEOPLE / "wechat_memotrace.csv")
    assert role_texts(one) == [("user", "在吗"), ("assistant", "在 & 忙")]


def test_an_answer_to_an_image_keeps_an_empty_question() -> None:
    (one,), _skipped, _late = read(PEOPLE / "telegram_chat.json")
    assert role_texts(one)[2:4] == [("user", ""), ("assistant", "ha")]


def test_contacts_are_kept_apart() -> None:
    conversations, _skipped, _late = read(PEOPLE / "wechat_pywxdump.csv")
    assert {one.external_id.partition("#")[0] for one in conversations} == {"wxid_b", "wxid_c"}
    assert [role_texts(one)[-1] for one in conversations] == [
        ("assistant", "在\n怎么了"),
        ("assistant", "好"),
    ]


def test_a_zip_whose_only_chat_needs_my_name_says_so(tmp_path: Path) -> None:
    path = tmp_path / "WhatsApp Chat - Bo.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(WRITERS["whatsapp ios"](tmp_path, TALK, "Bo"), "_chat.txt")
        archive.writestr("0001-PHOTO.jpg", b"\xff\xd8\xff\xe0")
    with MemoryStore(tmp_path / "memory.db") as store:
        with pytest.raises(BadInput, match="does not say who") as error:
            import_paths(store, [path])
        assert shlex.split(error.value.hint)[3:] == ["--me", "Bo", str(path)]
        assert import_paths(store, [path], options=ImportOptions(me=ME)).added == len(DIALOGUES)


def test_a_language_model_among_two_speakers_is_the_assistant(tmp_path: Path) -> None:
    text = "[02.01.26, 10:11:12] Ann: Hallo Bot\n[02.01.26, 10:11:15] Meta AI: Hallo Ann\n"
    (one,), _skipped, _late = read(write(tmp_path, "chat.txt", text), me="")
    assert role_texts(one) == [("user", "Hallo Bot"), ("assistant", "Hallo Ann")]


@pytest.mark.parametrize(("name", "taken"), [("ChatGPT helper", 3), ("Weather", 0)])
def test_only_bots_that_are_language_models_are_read(name: str, taken: int, tmp_path: Path) -> None:
    chat = {
        **telegram_chat([(not is_me, text, time) for is_me, text, time in TALK], name),
        "type": "bot_chat",
    }
    value = {
        "about": "x",
        "personal_information": {"user_id": 111},
        "chats": {"list": [chat, chat | {"id": 1}]},
    }
    conversations, skipped, _late = read(write(tmp_path, "result.json", value), me="")
    assert len(conversations) == taken
    assert skipped["chat with a bot"] == len(TALK) * (2 - bool(taken))


DATES = {
    "a day over 12": ("13/8/26", "1/8/26", "2026-08-01"),
    "a month over 12": ("8/13/26", "8/1/26", "2026-08-01"),
    "days that run on": ("1/8/26", "2/8/26", "2026-08-02"),
    "months that run on": ("8/1/26", "8/2/26", "2026-08-02"),
    "year first": ("2026/8/1", "2026/8/2", "2026-08-02"),
    "chinese": ("2026年8月1日", "2026年8月2日", "2026-08-02"),
}


@pytest.mark.parametrize("name", DATES)
def test_the_order_of_day_and_month_is_that_of_the_whole_file(name: str, tmp_path: Path) -> None:
    first, last, expected = DATES[name]
    days = [first, last] if name != "a day over 12" and name != "a month over 12" else [last, first]
    more = ["1/9/26", "2/9/26"] if name == "days that run on" else ["9/1/26", "9/2/26"]
    days += more if "run on" in name else []
    text = "".join(
        f"{day}, {hour}:01 PM - {who}: hi\n" for day in days for hour, who in ((6, "Bo"), (6, "Ann"))
    )
    conversations, _skipped, _late = read(write(tmp_path, "chat.txt", text))
    from datetime import UTC, datetime

    dates = [datetime.fromtimestamp(one.started_at or 0, UTC).date().isoformat() for one in conversations]
    assert expected in dates
    assert dates == sorted(dates)


@pytest.mark.parametrize(
    ("clock", "expected"),
    [
        ("7:02\u202fPM", 19),
        ("7:02 p. m.", 19),
        ("12:02 AM", 0),
        ("12:02 PM", 12),
        ("下午7:02", 19),
        ("上午7:02", 7),
        ("오후 7:02", 19),
        ("19.02", 19),
        ("7:02:11\u2009am", 7),
    ],
)
def test_clocks_of_every_language_are_read(clock: str, expected: int, tmp_path: Path) -> None:
    text = f"14/10/2026, {clock} - Bo: hi\n14/10/2026, {clock} - Ann: hello\n"
    (one,), _skipped, _late = read(write(tmp_path, "chat.txt", text))
    assert int(one.started_at or 0) % DAY // HOUR == expected


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("<Media omitted>", "attachment"),
        ("<Medien ausgeschlossen>", "attachment"),
        ("<省略多媒体文件>", "attachment"),
        ("\u200eimage omitted", "image"),
        ("\u200e<attached: 0001-PHOTO.jpg>", "image"),
        ("PTT-1.opus (file attached)", "voice message"),
        ("report.pdf • \u200e2 pages \u200edocument omitted", "attachment"),
        ("This message was deleted", "deleted message"),
        ("你删除了这条消息", "deleted message"),
        ("Mensagem apagada", "deleted message"),
        ("Se eliminó este mensaje.", "deleted message"),
        ("Ce message a été supprimé", "deleted message"),
        ("Данное сообщение удалено", "deleted message"),
        ("このメッセージは削除されました", "deleted message"),
        ("null", "empty message"),
        ("location: https://maps.google.com/?q=1,2", "location"),
        ("I like <b>it</b>", ""),
        ("a < b > c", ""),
        ("see f.txt (the new one) please", ""),
        ("We deleted this message", ""),
        ("note: image omitted on purpose", ""),
    ],
)
def test_placeholders_of_whatsapp_are_no_words(words: str, reason: str, tmp_path: Path) -> None:
    lines = ["Bo: a", "Ann: b", f"Bo: {words}", "Bo: c", "Ann: d"]
    text = "".join(f"[14/10/2026, 10:00:0{n}] {line}\n" for n, line in enumerate(lines))
    (one,), skipped, _late = read(write(tmp_path, "chat.txt", text))
    assert role_texts(one)[2] == ("user", "c" if reason else f"{words}\nc")
    assert skipped[reason] == bool(reason)


@pytest.mark.parametrize(
    "notice",
    [
        "Missed voice call at 6:02 PM",
        "Messages and calls are end-to-end encrypted.",
        'Bo changed the subject from "Tea: green" to "Tea"',
        "\u200eBo: \u200eYou deleted this message.",
    ],
)
def test_notices_of_whatsapp_are_no_third_speaker(notice: str, tmp_path: Path) -> None:
    lines = ["Bo: a", "Ann: b", notice, "Bo: c", "Ann: d"]
    text = "".join(f"14/10/2026, 10:0{n} - {line}\n" for n, line in enumerate(lines))
    (one,), skipped, _late = read(write(tmp_path, "chat.txt", text))
    assert [text for _role, text in role_texts(one)] == ["a", "b", "c", "d"]
    assert skipped.total() == 1


def test_a_longer_export_replaces_the_shorter_one(tmp_path: Path) -> None:
    with MemoryStore(tmp_path / "memory.db") as store:
        for count in (4, 9, len(TALK), 9, 4):
            path = WRITERS["whatsapp ios"](tmp_path, TALK[:count], "Bo")
            import_paths(store, [path], options=ImportOptions(me=ME))
        assert sorted(map(role_texts, store.conversations())) == sorted(DIALOGUES)


@pytest.mark.parametrize("name", ["whatsapp ios", "telegram", "imessage"])
def test_another_silence_or_another_assistant_replaces_the_dialogues(name: str, tmp_path: Path) -> None:
    path = WRITERS[name](tmp_path, TALK, "Bo")
    mine = my_name(path)
    ways = [
        (mine, HOUR),
        (mine, DAY),
        ("Bo", HOUR),
        (mine, HOUR),
        ("Bo", DAY),
        (mine, 600),
        (mine, DAY),
        (mine, HOUR),
    ]
    with MemoryStore(tmp_path / "memory.db") as store:
        for me, silence_s in ways:
            import_paths(store, [path], options=ImportOptions(me=me, silence_s=silence_s))
            expected, _skipped, _late = read(path, me=me, silence_s=silence_s)
            assert sorted(map(role_texts, store.conversations())) == sorted(map(role_texts, expected))
            report = import_paths(store, [path], options=ImportOptions(me=me, silence_s=silence_s))
            assert report.added == 0


def test_two_contacts_of_one_name_do_not_replace_each_other(tmp_path: Path) -> None:
    other = [(is_me, f"other {text}", time + 7) for is_me, text, time in TALK]
    with MemoryStore(tmp_path / "memory.db") as store:
        for messages in (TALK, other):
            path = WRITERS["whatsapp ios"](tmp_path, messages, "Bo")
            import_paths(store, [path], options=ImportOptions(me=ME))
        assert store.count() == 2 * len(DIALOGUES)


def test_the_result_offers_the_late_answers(tmp_path: Path) -> None:
    path = WRITERS["whatsapp ios"](tmp_path, TALK, "Bo")
    with MemoryStore(tmp_path / "memory.db") as store:
        report: ImportReport = import_paths(store, [path], options=ImportOptions(me=ME))
    text = late_answers_text(report, ImportParams(paths=[str(path)], me=ME))
    assert text.startswith("1 more answer came after")
    command = shlex.split(text.partition("→ ")[2])
    assert command == ["h2q-tui", "memory", "import", "--silence", "24h", "--me", ME, str(path)]


@pytest.mark.parametrize(
    ("days", "order"),
    [
        (("1/2/26", "1/2/26"), "dmy"),
        (("1/2/26", "3/2/26"), "dmy"),
        (("1/2/26", "1/3/26"), "mdy"),
        (("13/2/26", "13/2/26"), ""),
        (("1/13/26", "1/13/26"), ""),
        (("2/2/26", "2/2/26"), ""),
        (("12/1/26", "1/2/26"), ""),
        (("1.2.26", "1.3.26"), ""),
        (("1-2-2026", "1-3-2026"), ""),
        (("2026/1/2", "2026/1/2"), ""),
    ],
)
def test_the_result_says_how_dates_are_read_that_can_be_read_in_two_ways(
    days: tuple[str, str], order: str, tmp_path: Path
) -> None:
    first, last = days
    text = f"{first}, 18:01 - Bo: one?\n{first}, 18:02 - Ann: two\n{last}, 19:01 - Bo: a?\n{last}, 19:02 - Ann: b\n"
    path = write(tmp_path, "chat.txt", text)
    with MemoryStore(tmp_path / "memory.db") as store:
        report = import_paths(store, [path], options=ImportOptions(me=ME))
    assert list(report.assumed_dates.values()) == [order] * bool(order)
    shown = {"dmy": "day/month/year", "mdy": "month/day/year"}
    lines = [f"chat.txt: nothing tells day and month apart; read as {shown[order]}"] if order else []
    assert list(assumed_dates_lines(report)) == lines


@pytest.mark.parametrize("is_folder", [False, True])
def test_late_answers_are_offered_where_nothing_else_is_in_the_file(is_folder: bool, tmp_path: Path) -> None:
    folder = tmp_path / "chats"
    folder.mkdir()
    path = WRITERS["whatsapp ios"](folder, [(False, "who comes?", T0), (True, "me", T0 + 18 * HOUR)], "Bo")
    named = folder if is_folder else path
    with MemoryStore(tmp_path / "memory.db") as store:
        with pytest.raises(BadInput) as error:
            import_paths(store, [named], options=ImportOptions(me=ME))
        command = shlex.split(error.value.hint)
        assert command == ["h2q-tui", "memory", "import", "--silence", "24h", "--me", ME, str(named)]
        wider = ImportOptions(me=ME, silence_s=parse_silence("24h"))
        assert import_paths(store, [named], options=wider).added == 1


@pytest.mark.parametrize(
    ("text", "seconds"), [("30min", 1800), ("1h", 3600), ("24H", 86400), ("2d", 172800), ("90s", 90)]
)
def test_a_silence_is_a_duration(text: str, seconds: float) -> None:
    assert parse_silence(text) == seconds


@pytest.mark.parametrize("text", ["", "1", "h", "0h", "-1h", "1.5h", "1h30", "1w"])
def test_other_silences_are_refused(text: str) -> None:
    with pytest.raises(UsageProblem):
        parse_silence(text)


@pytest.mark.parametrize("text", ["hi", "好" * 60, "a" * 127, "a" * 128, "é" * 3000])
def test_archived_strings_of_any_length_are_read(text: str) -> None:
    assert attributed_text(attributed(text)) == text


def test_titles_that_do_not_end_are_searched_once() -> None:
    assert quoting_text("<title>" * 200_000) == ""
    assert quoting_text("<msg><title>a &lt; b</title><x/></msg>") == "a < b"


@pytest.mark.parametrize("data", [b"", b"NSString", b"NSString+", b"NSString+\x81", b"NSString+\xff\x00a"])
def test_damaged_archived_strings_are_read_as_far_as_they_go(data: bytes) -> None:
    assert isinstance(attributed_text(data), str)


DAMAGED: dict[str, dict[str, Any]] = {
    "telegram": {
        "name": "Bo",
        "type": "personal_chat",
        "id": 222,
        "messages": [5, None, {}, {"type": "message"}],
    },
    "weflow": {"session": {"wxid": "b"}, "messages": [5, None, {}, {"type": 7, "isSend": "x", "content": 3}]},
    "chatlab": {
        "chatlab": {},
        "meta": 5,
        "members": [3],
        "messages": [None, {}, {"type": "x", "timestamp": "y"}],
    },
    "qq": {
        "chatInfo": {"selfUid": 5},
        "messages": [None, {"sender": 3}, {"sender": {"uid": 1}, "content": {}}],
    },
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_rows_are_counted(name: str, tmp_path: Path) -> None:
    conversations, skipped, _late = read(write(tmp_path, "chat.json", DAMAGED[name]))
    assert (conversations, skipped.total()) == ([], len(DAMAGED[name]["messages"]))


@pytest.mark.parametrize(
    "line",
    [
        "\u200f٤\u200f/١\u200f/٢٠٢٦، ٧:٠٢ م - {who}: {words}",
        "[4\u200f/1\u200f/2026, 19:02:00] {who}: {words}",
        "4.1.2026, 19:02 - {who}: {words}",
        "[2026/1/4 下午7:02:00] {who}：{words}",
        "2026-01-04 19:02 - {who}: {words}",
        "[2026. 1. 4. 오후 7:02:00] {who}: {words}",
        "[4.1.2026 klo 19.02.00] {who}: {words}",
        "04/01/2026 à 19:02 - {who}: {words}",
        "04/01/2026, 19:02 - {who}:{words}",
    ],
)
def test_times_of_every_script_are_read(line: str, tmp_path: Path) -> None:
    text = "".join(
        line.format(who=who, words=words) + "\n" for who, words in (("Bo", "\u05d0 hi"), ("Ann", "yes"))
    )
    (one,), _skipped, _late = read(write(tmp_path, "chat.txt", text))
    assert role_texts(one) == [("user", "\u05d0 hi"), ("assistant", "yes")]
    assert int(one.started_at or 0) % DAY == 19 * HOUR + 120


def test_a_log_with_levels_is_no_chat(tmp_path: Path) -> None:
    lines = "".join(f"[2026-08-01 10:00:0{n}] {'WARN' if n % 2 else 'INFO'}: worker {n}\n" for n in range(9))
    with pytest.raises(BadInput):
        detect_format(write(tmp_path, "server.txt", lines))


def test_a_log_is_no_chat(tmp_path: Path) -> None:
    lines = "".join(f"2026-08-01 10:00:0{n} INFO worker {n} started\n" for n in range(9))
    with pytest.raises(BadInput):
        detect_format(write(tmp_path, "server.txt", lines))


@pytest.mark.parametrize("name", ["whatsapp ios", "telegram"])
@pytest.mark.parametrize("forgotten", range(3))
def test_a_forgotten_dialogue_does_not_come_back_inside_a_wider_one(
    name: str, forgotten: int, tmp_path: Path
) -> None:
    messages = [
        (is_me, f"{'answer' if is_me else 'question'} {talk}", T0 + talk * 5 * HOUR + 20 * is_me)
        for talk in range(3)
        for is_me in (False, True)
    ]
    messages.insert(2 * forgotten + 2, (False, "unanswered", T0 + forgotten * 5 * HOUR + 40))
    path = WRITERS[name](tmp_path, messages, "Bo")
    mine = my_name(path)
    wide = ImportOptions(me=mine, silence_s=DAY)
    with MemoryStore(tmp_path / "memory.db") as store:
        import_paths(store, [path], options=ImportOptions(me=mine))
        (id_,) = (one.id for one in store.conversations() if one.started_at == T0 + forgotten * 5 * HOUR)
        store.forget([id_])
        left = sorted(one.id for one in store.conversations())
        for _time in range(2):
            report = import_paths(store, [path], options=wide)
            assert (report.added, report.skipped["forgotten earlier"]) == (0, 1)
            assert sorted(one.id for one in store.conversations()) == left, "what was not forgotten stays"
        assert import_paths(store, [path], options=wide, again=True).added == 1
        assert [len(one.turns) for one in store.conversations()] == [6]
        assert import_paths(store, [path], options=wide).added == 0
        assert store.count() == 1


@pytest.mark.parametrize("forgotten", range(3))
def test_no_outdated_cut_keeps_what_is_forgotten(forgotten: int, tmp_path: Path) -> None:
    messages = [
        (is_me, f"{'answer' if is_me else 'question'}{talk}", T0 + talk * 5 * HOUR + 900 * is_me)
        for talk in range(3)
        for is_me in (False, True)
    ]
    path = WRITERS["telegram"](tmp_path, messages, "Bo")
    with MemoryStore(tmp_path / "memory.db") as store:
        for silence_s in (HOUR, DAY, HOUR):
            import_paths(store, [path], options=ImportOptions(silence_s=silence_s))
        (id_,) = (one.id for one in store.conversations() if one.started_at == T0 + forgotten * 5 * HOUR)
        store.forget([id_])
        assert store.count() == 2
        texts = [text for (text,) in store.connection.execute("SELECT text FROM turns")]
        assert not any(str(forgotten) in text for text in texts)
        for silence_s in (DAY, HOUR):
            import_paths(store, [path], options=ImportOptions(silence_s=silence_s))
            shown = "".join(turn.text for one in store.conversations() for turn in one.turns)
            assert str(forgotten) not in shown
            assert store.count() == 2
