"""Chats as data and as files: versions, votes, what a model reads, what is kept, what is erased."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from engine.chats.record import ChatAnswer, ChatExchange, ChatRecord, tally
from engine.chats.store import ChatStore, chats_folder, erase_from_chats, find_chats, read_chat
from engine.core.errors import BadInput
from engine.core.paths import Workspace
from engine.inference.language_model import Finish, Generated, Sampling
from engine.workspace.reset import reset

NOW = 1_700_000_000.0


def answered(record: ChatRecord, question: str, *answers: str, model: str = "m") -> ChatExchange:
    exchange = record.ask(question, NOW)
    for text in answers:
        answer = exchange.begin(model, NOW)
        answer.text, answer.finish = text, "stop"
    return exchange


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


def test_the_model_reads_the_shown_versions_and_the_system_prompt() -> None:
    record = ChatRecord(system="Be brief.")
    first = answered(record, "q1", "a1", "a2")
    answered(record, "unanswered")
    last = record.ask("q3", NOW)
    first.show(0)
    read = [(one.role, one.content) for one in record.messages(last)]
    assert read == [("system", "Be brief."), ("user", "q1"), ("assistant", "a1"), ("user", "q3")]
    assert [one.content for one in record.messages(first)] == ["Be brief.", "q1"], "nothing that came later"


def test_versions_are_walked_and_stop_at_their_ends() -> None:
    exchange = answered(ChatRecord(), "q", "a", "b", "c")
    assert exchange.text == "c"
    assert exchange.show(exchange.shown - 1) and exchange.text == "b"
    assert exchange.show(0) and exchange.text == "a"
    assert not exchange.show(-1) and not exchange.show(3) and exchange.text == "a"


@pytest.mark.parametrize(
    ("choice", "text", "best"), [("left", "L", 0), ("right", "R", 1), ("equal", "L", None)]
)
def test_a_vote_names_the_models_and_decides_what_the_chat_goes_on_from(
    choice: str, text: str, best: int | None
) -> None:
    record = ChatRecord()
    exchange = record.ask("q", NOW)
    for answer, words in zip(exchange.begin_pair(["one", "two"], NOW), "LR", strict=True):
        answer.text = words
    assert exchange.is_blind
    assert exchange.vote(choice, NOW) is not None
    assert (exchange.is_blind, exchange.text, exchange.best_of_pair) == (False, text, best)
    assert exchange.vote("left", NOW) is None, "one vote on a pair"
    wins = {"left": (1, 0, 0), "right": (0, 1, 0), "equal": (0, 0, 1)}[choice]
    assert tally([record], "one", "two") == wins
    assert tally([record], "two", "one") == (wins[1], wins[0], wins[2]), "whichever side it stood on"
    assert tally([record], "one", "three") == (0, 0, 0)


def test_kept_turns_are_one_conversation_with_the_other_versions_as_alternatives() -> None:
    record = ChatRecord(system="Be brief.")
    first = answered(record, "q1", "a1", "a2")
    answered(record, "q2", "b1")
    third = answered(record, "q3", "c1")
    first.kept = first.shown
    third.correct("mine", NOW)
    third.kept = third.shown
    kept = record.kept_conversation()
    assert [(turn.role, turn.text) for turn in kept.turns] == [
        ("system", "Be brief."), ("user", "q1"), ("assistant", "a2"), ("user", "q3"), ("assistant", "mine"),
    ]  # fmt: skip
    assert [turn.alternatives for turn in kept.turns if turn.role == "assistant"] == [("a1",), ("c1",)]
    first.show(0)
    assert record.kept_conversation().turns[2].text == "a2", "what was kept stays, whatever is shown"


def test_figures_of_a_generation_are_kept_with_its_answer() -> None:
    answer = ChatAnswer(model="m")
    answer.end(
        Generated(
            finish=Finish.LENGTH,
            bytes=9,
            seconds=2.0,
            prompt_tokens=10,
            tokens=5,
            context=64,
            first_token_s=1.0,
        )
    )
    assert (answer.is_cut, answer.prompt_tokens, answer.tokens, answer.context) == (True, 10, 5, 64)
    assert answer.tokens_per_s == 4.0


def test_a_chat_is_a_private_file_and_reads_back_equal(ws: Workspace) -> None:
    record = ChatRecord(system="s", sampling=Sampling(temperature=0.1, seed=3, max_tokens=9))
    exchange = answered(record, "q", "a")
    exchange.begin_pair(["one", "two"], NOW)
    exchange.vote("right", NOW)
    for answer in exchange.answers:
        answer.finish = "stop"
    ChatStore(ws).save(record, NOW)
    (path,) = chats_folder(ws).iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert read_chat(path) == record == ChatStore(ws).load(record.id)


def test_a_chat_without_a_question_leaves_no_file(ws: Workspace) -> None:
    ChatStore(ws).save(ChatRecord(), NOW)
    assert not chats_folder(ws).exists()


@pytest.mark.parametrize(
    "change",
    [
        {"shown": 7}, {"shown": -3}, {"pair": [0, 9]}, {"kept": 5},
        {"votes": [{"left": 0, "right": 4, "choice": "left", "at": 1.0}]}, {"unknown": "field"},
    ],
)  # fmt: skip
def test_a_file_that_was_edited_into_nonsense_opens_without_what_is_not_there(
    ws: Workspace, change: dict[str, object]
) -> None:
    record = ChatRecord()
    answered(record, "q", "a")
    store = ChatStore(ws)
    store.save(record, NOW)
    path = chats_folder(ws) / f"{record.id}.json"
    data = json.loads(path.read_text())
    data["exchanges"][0] |= change
    path.write_text(json.dumps(data))
    (exchange,) = store.load(record.id).exchanges
    assert exchange.text == "a" and exchange.pair is None and exchange.kept is None and not exchange.votes


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"exchanges": 3}', b"\xff\xfe", b'{"id": null}'])
def test_a_file_that_is_no_chat_is_one_sentence_and_hides_no_other(ws: Workspace, data: bytes) -> None:
    record = ChatRecord()
    answered(record, "q", "a")
    ChatStore(ws).save(record, NOW)
    (chats_folder(ws) / "bad.json").write_bytes(data)
    with pytest.raises(BadInput, match="not a chat"):
        ChatStore(ws).load("bad")
    assert [chat.id for chat in find_chats(ws)] == [record.id]


def test_an_answer_within_which_the_app_was_killed_opens_as_stopped(ws: Workspace) -> None:
    record = ChatRecord()
    record.ask("q", NOW).begin("m", NOW).text = "half"
    ChatStore(ws).save(record, NOW)
    assert ChatStore(ws).load(record.id).exchanges[0].answers[0].finish == "stopped"


def test_chats_are_found_by_all_words_the_newest_first(ws: Workspace) -> None:
    store = ChatStore(ws)
    for number, (question, answer) in enumerate(
        [
            ("Where is PARIS?", "In France."),
            ("What is paging?", "Memory in pages."),
            ("巴黎在哪里？", "在法国。"),
        ]
    ):
        record = ChatRecord()
        answered(record, question, answer)
        store.save(record, NOW + number)

    def titles(words: str) -> list[str]:
        return [chat.title for chat in find_chats(ws, words)]

    assert titles("") == ["巴黎在哪里？", "What is paging?", "Where is PARIS?"]
    assert titles("paris") == titles("france Ｐａｒｉｓ") == ["Where is PARIS?"]
    assert titles("法国") == ["巴黎在哪里？"]
    assert titles("paris paging") == []
    assert "pages" in find_chats(ws, "pages")[0].excerpt


def test_erased_exchanges_leave_file_and_open_chat(ws: Workspace) -> None:
    store, record = ChatStore(ws), ChatRecord()
    answered(record, "my PIN is 4711", "noted")
    answered(record, "hello there", "hi")
    store.save(record, NOW)
    assert len(erase_from_chats(ws, lambda text: "4711" in text)) == 1
    assert [one.question for one in ChatStore(ws).load(record.id).exchanges] == ["hello there"]
    answered(record, "later", "yes")
    assert store.save(record, NOW), "says that something was erased"
    assert [one.question for one in record.exchanges] == ["hello there", "later"]
    assert "4711" not in (chats_folder(ws) / f"{record.id}.json").read_text()


def test_a_chat_that_was_erased_wholly_does_not_come_back(ws: Workspace) -> None:
    store, record = ChatStore(ws), ChatRecord()
    answered(record, "my PIN is 4711", "noted")
    store.save(record, NOW)
    erase_from_chats(ws, lambda text: "4711" in text)
    assert not list(chats_folder(ws).iterdir())
    assert store.save(record, NOW) and not list(chats_folder(ws).iterdir())


def test_a_few_characters_alone_do_not_erase_an_exchange(ws: Workspace) -> None:
    record = ChatRecord()
    answered(record, "yes", "Then let us begin with the first chapter.")
    answered(record, "yes", "no")
    ChatStore(ws).save(record, NOW)
    erase_from_chats(ws, lambda text: text in ("yes", "no"))
    assert len(ChatStore(ws).load(record.id).exchanges) == 1


@pytest.mark.parametrize(("everything", "left"), [(False, 1), (True, 0)])
def test_a_reset_deletes_chats_only_with_all(ws: Workspace, everything: bool, left: int) -> None:
    record = ChatRecord()
    answered(record, "q", "a")
    ChatStore(ws).save(record, NOW)
    reset(ws, everything)
    assert len(list(chats_folder(ws).glob("*.json"))) == left


def test_a_deleted_chat_is_gone(ws: Workspace) -> None:
    store, record = ChatStore(ws), ChatRecord()
    answered(record, "q", "a")
    store.save(record, NOW)
    store.delete(record.id)
    assert find_chats(ws) == [] and not list(chats_folder(ws).iterdir())
