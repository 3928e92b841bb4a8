"""Data sets: which columns are questions and answers, in JSONL, CSV and Parquet alike, and what is left out of a row."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from engine.core.errors import BadInput
from engine.memory.importers.formats import detect_format
from engine.memory.importers.transcripts.marked_text import marked_turns
from engine.memory.store import MemoryStore
from engine.pipeline.import_run import import_paths
from tests.unit.test_importers import read, role_texts, write

DATASETS = Path(__file__).parents[1] / "data" / "exports" / "datasets"
Q, A = "What is a fox?", "An animal."
PAIR = [("user", Q), ("assistant", A)]
LONGER = [("user", "Hi"), ("assistant", "Hello"), *PAIR]

PAIR_COLUMNS = [
    ("prompt", "completion"),
    ("prompt", "response"),
    ("Prompt", "Response"),
    ("input", "output"),
    ("INPUT", "OUTPUT"),
    ("question", "answer"),
    ("query", "response"),
    ("user_input", "model_output"),
    ("User Input", "Model Response"),
    ("input", "target"),
    ("instruction", "response"),
    ("instruction", "output"),
    ("human", "assistant"),
    ("ask", "answer"),
    ("Q", "A"),
    ("title", "answer"),
    ("问题", "回答"),
    ("问题", "答案"),
    ("提问", "答案"),
    ("提问", "回答"),
    ("输入", "输出"),
    ("指令", "输出"),
    ("问", "答"),
    ("用户", "助手"),
]


def table(folder: Path, suffix: str, rows: list[dict[str, str]]) -> Path:
    path = folder / f"rows.{suffix}"
    if suffix == "parquet":
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif suffix == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    elif suffix == "json":
        path.write_text(json.dumps({"data": rows}), encoding="utf-8")
    else:
        with path.open("w", encoding="utf-8-sig", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if suffix == "tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


@pytest.mark.parametrize(("question", "answer"), PAIR_COLUMNS)
@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "tsv", "parquet"])
def test_a_question_and_an_answer_are_found_by_their_columns(
    question: str, answer: str, suffix: str, tmp_path: Path
) -> None:
    path = table(
        tmp_path, suffix, [{"no": "7", question: Q, answer: A}, {"no": "8", question: "x", answer: ""}]
    )
    (conversation,), skipped = read(path)
    assert role_texts(conversation) == PAIR
    assert skipped == {"row without an answer": 1}


ROWS: dict[str, tuple[Any, list[tuple[str, str]]]] = {
    "dolly": (
        {"instruction": "Summarise.", "context": "A long text.", "response": A, "category": "x"},
        [("user", "Summarise.\nA long text."), ("assistant", A)],
    ),
    "swift": (
        {"query": Q, "response": A, "history": [["Hi", "Hello"]], "system": "Be kind."},
        [("system", "Be kind."), *LONGER],
    ),
    "history as messages": (
        {
            "instruction": Q,
            "output": A,
            "history": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}],
        },
        LONGER,
    ),
    "history as pairs by name": (
        {"prompt": Q, "response": A, "history": [{"user": "Hi", "assistant": "Hello"}]},
        LONGER,
    ),
    "history in a table cell": ({"prompt": Q, "response": A, "history": "[['Hi', 'Hello']]"}, LONGER),
    "history in a JSON cell": ({"prompt": Q, "response": A, "history": '[["Hi", "Hello"]]'}, LONGER),
    "system prompt": ({"system_prompt": "Be kind.", "question": Q, "answer": A}, [("system", "Be kind."), *PAIR]),
    "squad": (
        {"question": Q, "context": "Foxes are animals.", "answers": {"text": [A, A], "answer_start": [0, 0]}},
        [("user", f"{Q}\nFoxes are animals."), ("assistant", A)],
    ),
    "title and description": (
        {"qid": "1", "title": "Foxes", "desc": Q, "answer": A},
        [("user", f"Foxes\n{Q}"), ("assistant", A)],
    ),
    "number as answer": ({"question": "1+1?", "answer": 2}, [("user", "1+1?"), ("assistant", "2")]),
    "thinking": ({"prompt": Q, "response": f"<think>Hm.</think>{A}"}, PAIR),
    "belle": ({"instruction": "Human:Hi\nAssistant:Hello\nHuman:" + Q + "\nAssistant:", "input": "", "output": A}, LONGER),
    "human and assistant": (
        {"conversation": [{"human": "Hi", "assistant": "Hello"}, {"human": Q, "assistant": A}]},
        LONGER,
    ),
    "items": ({"id": "1", "items": [{"from": "human", "value": Q}, {"from": "gpt", "value": A}]}, PAIR),
    "bing": ({"conversations": [{"from": "user", "value": Q}, {"from": "bing", "value": A}]}, PAIR),
    "bard": ({"conversations": [{"from": "human", "value": Q}, {"from": "bard", "text": A}]}, PAIR),
    "pairs": ({"conversation": [["Hi", "Hello"], [Q, A]]}, LONGER),
    "texts in turn": ({"id": "0", "data": ["Hi", "Hello", Q, A]}, LONGER),
    "messages as pairs": ({"messages": [{"user": "Hi", "assistant": "Hello"}, {"user": Q, "assistant": A}]}, LONGER),
    "list in a table cell": ({"conversations": json.dumps([{"from": "human", "value": Q}, {"from": "gpt", "value": A}])}, PAIR),
    "messages in a table cell": ({"messages": json.dumps([{"role": "user", "content": Q}, {"role": "assistant", "content": A}])}, PAIR),
    "guanaco": ({"text": f"### Human: Hi### Assistant: Hello### Human: {Q}### Assistant: {A}"}, LONGER),
    "llama": ({"text": f"<s>[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nHi [/INST] Hello </s><s>[INST] {Q} [/INST] {A} </s>"}, [("system", "Be kind."), *LONGER]),
    "chatml": ({"text": f"<|im_start|>user\n{Q}<|im_end|>\n<|im_start|>assistant\n{A}<|im_end|>\n"}, PAIR),
    "llama 3": (
        {"text": f"<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n{Q}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n{A}<|eot_id|>"},
        PAIR,
    ),
    "gemma": ({"text": f"<bos><start_of_turn>user\n{Q}<end_of_turn>\n<start_of_turn>model\n{A}<end_of_turn>\n"}, PAIR),
    "phi": ({"text": f"<|user|>\n{Q}<|end|>\n<|assistant|>\n{A}<|end|>\n<|endoftext|>"}, PAIR),
    "deepseek": ({"text": f"<｜begin▁of▁sentence｜><｜User｜>{Q}<｜Assistant｜>{A}<｜end▁of▁sentence｜>"}, PAIR),
    "glm": ({"text": f"[gMASK]<sop><|user|>\n{Q}<|assistant|>\n{A}"}, PAIR),
    "zephyr": ({"text": f"<|user|>\n{Q}</s>\n<|assistant|>\n{A}</s>"}, PAIR),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_each_shape_of_a_row_gives_its_turns(name: str, tmp_path: Path) -> None:
    row, turns = ROWS[name]
    (conversation, _copy), _skipped = read(
        write(tmp_path, "rows.jsonl", f"{json.dumps(row)}\n{json.dumps(row)}\n")
    )
    assert role_texts(conversation) == turns


PREFERENCES: dict[str, Any] = {
    "texts": {"prompt": Q, "chosen": A, "rejected": "A plant."},
    "question": {"question": Q, "chosen": A, "rejected": "A plant."},
    "instruction": {"instruction": "What is", "input": "a fox?", "chosen": A, "rejected": "A plant."},
    "messages": {
        "prompt": [{"role": "user", "content": Q}],
        "chosen": [{"role": "assistant", "content": A}],
        "rejected": [{"role": "assistant", "content": "A plant."}],
    },
    "whole dialogues": {
        "prompt": Q,
        "chosen": [{"role": "user", "content": Q}, {"role": "assistant", "content": A}],
        "rejected": [{"role": "user", "content": Q}, {"role": "assistant", "content": "A plant."}],
        "messages": [{"role": "user", "content": Q}, {"role": "assistant", "content": A}],
    },
    "marked texts": {
        "chosen": f"\n\nHuman: {Q}\n\nAssistant: {A}",
        "rejected": f"\n\nHuman: {Q}\n\nAssistant: A plant.",
    },
    "sharegpt": {
        "conversations": [{"from": "human", "value": Q}],
        "chosen": {"from": "gpt", "value": A},
        "rejected": {"from": "gpt", "value": "A plant."},
    },
    "swift": {
        "messages": [{"role": "user", "content": Q}, {"role": "assistant", "content": A}],
        "rejected_response": "A plant.",
    },
    "openai": {
        "input": {"messages": [{"role": "user", "content": Q}], "tools": []},
        "preferred_output": [{"role": "assistant", "content": A}],
        "non_preferred_output": [{"role": "assistant", "content": "A plant."}],
    },
}


@pytest.mark.parametrize("name", PREFERENCES)
def test_of_a_preference_the_chosen_answer_is_taken_and_the_rejected_one_counted(
    name: str, tmp_path: Path
) -> None:
    path = write(tmp_path, "rows.json", [PREFERENCES[name]] * 2)
    assert detect_format(path) == "preference"
    conversations, skipped = read(path)
    expected = [("user", "What is\na fox?" if name == "instruction" else Q), ("assistant", A)]
    assert [role_texts(one) for one in conversations] == [expected] * 2
    assert skipped == {"answer that its source rejects": 2}


def test_rejected_turns_behind_a_common_beginning_are_counted() -> None:
    conversations, skipped = read(DATASETS / "preferences.jsonl")
    assert [len(one.turns) for one in conversations] == [2, 4]
    assert skipped == {"answer that its source rejects": 2, "row without an answer": 1}


@pytest.mark.parametrize("label", [True, "True", "true"])
def test_rows_marked_as_bad_examples_are_left_out(label: object, tmp_path: Path) -> None:
    rows = [
        {"prompt": Q, "completion": A, "label": label},
        {"prompt": Q, "completion": "No.", "label": not label},
    ]
    rows[1]["label"] = "False" if isinstance(label, str) else False
    (conversation,), skipped = read(write(tmp_path, "kto.json", rows))
    assert role_texts(conversation) == PAIR
    assert skipped == {"answer that its source rejects": 1}


@pytest.mark.parametrize(
    ("row", "taken"),
    [
        (
            {
                "messages": [{"role": "user", "content": Q}, {"role": "assistant", "content": A}],
                "label": False,
            },
            0,
        ),
        (
            {"conversations": [{"from": "human", "value": Q}, {"from": "gpt", "value": A}], "kto_tag": False},
            0,
        ),
        ({"question": Q, "answer": A, "label": False}, 2),
    ],
)
def test_a_label_means_a_bad_example_only_in_data_of_that_kind(
    row: object, taken: int, tmp_path: Path
) -> None:
    conversations, _skipped = read(write(tmp_path, "rows.json", [row, row]))
    assert len(conversations) == taken


@pytest.mark.parametrize(
    "table",
    [
        {"question": [Q, "x"], "answer": [A, ""]},
        {"question": {"0": Q, "1": "x"}, "answer": {"0": A, "1": None}},
        {"id": {"0": 1, "1": 2}, "instruction": {"0": Q, "1": "x"}, "output": {"0": A, "1": None}},
    ],
)
def test_an_object_of_columns_is_a_table(table: object, tmp_path: Path) -> None:
    (conversation,), skipped = read(write(tmp_path, "table.json", table))
    assert role_texts(conversation) == PAIR
    assert skipped == {"row without an answer": 1}


MASKS: dict[str, Any] = {
    "weight of a message": {"conversations": [{"from": "human", "value": Q}, {"from": "gpt", "value": A, "weight": 0}]},
    "loss of a message": {"conversations": [{"from": "human", "value": Q}, {"from": "gpt", "value": A, "loss": False}]},
    "training of a message": {"conversations": [{"from": "human", "value": Q}, {"from": "gpt", "value": A, "train": False}]},
    "loss, in OpenAI's shape": {"messages": [{"role": "user", "content": Q}, {"role": "assistant", "content": A, "loss": False}]},
    "weight of a row": {"prompt": Q, "response": A, "weight": 0},
    "loss of a row": {"instruction": Q, "output": A, "loss": False},
}  # fmt: skip


@pytest.mark.parametrize("name", MASKS)
def test_answers_that_the_source_excludes_bear_no_loss(name: str, tmp_path: Path) -> None:
    kept = json.loads(json.dumps(MASKS[name]).replace('"weight": 0', '"weight": 1').replace("false", "true"))
    (excluded, trained), _skipped = read(write(tmp_path, "rows.json", [MASKS[name], kept]))
    assert [turn.masked for turn in excluded.turns] == [False, True]
    assert not any(turn.masked for turn in trained.turns)


@pytest.mark.parametrize(
    "text", ['["a", "b"]', '{"text": "x"}', '{"role": "user", "content": "x"}', "[1, 2]", "{}", "null"]
)
def test_words_that_are_json_stay_words(text: str, tmp_path: Path) -> None:
    rows = [
        {"prompt": text, "response": text},
        {"instruction": text, "output": text},
        {"chosen": text, "rejected": "x", "prompt": text},
    ]
    for number, row in enumerate(rows):
        (conversation, _copy), _skipped = read(write(tmp_path, f"rows{number}.json", [row, row]))
        assert role_texts(conversation) == [("user", text), ("assistant", text)]


def test_an_excluded_message_keeps_its_time(tmp_path: Path) -> None:
    messages = [
        {"role": "user", "content": Q},
        {"role": "assistant", "content": A, "loss": False, "timestamp": 1785578460},
    ]
    (conversation, _copy), _skipped = read(write(tmp_path, "rows.json", [{"messages": messages}] * 2))
    assert (conversation.turns[1].masked, conversation.turns[1].time) == (True, 1785578460)


def test_of_several_answers_the_first_is_taken_and_the_others_are_alternatives(tmp_path: Path) -> None:
    rows = [{"question": Q, "answers": [A, "A mammal.", A]}] * 2
    (conversation, _copy), _skipped = read(write(tmp_path, "rows.json", rows))
    assert (conversation.turns[1].text, conversation.turns[1].alternatives) == (A, ("A mammal.",))


def test_the_best_ranked_branch_of_a_tree_is_read() -> None:
    (tree, alone), skipped = read(DATASETS / "oasst_trees.jsonl")
    assert role_texts(tree) == [
        ("user", "What is a fox?"),
        ("assistant", "An animal."),
        ("user", "How big?"),
        ("assistant", "Like a small dog."),
    ]
    assert tree.turns[1].alternatives == ("A plant.",)
    assert tree.turns[0].time == pytest.approx(1675607030.98)
    assert role_texts(alone) == [("user", "Nobody answered")]
    # 9 messages: 5 taken, 1 alternative, 3 elsewhere.
    assert skipped == {"message of another branch": 3}


def test_flat_rows_of_trees_are_put_together_in_any_order() -> None:
    (fox, greeting, orphan), skipped = read(DATASETS / "oasst_messages.jsonl")
    assert (role_texts(fox), fox.turns[1].alternatives) == (PAIR, ("A plant.",))
    assert role_texts(greeting) == [("user", "你好"), ("assistant", "你好！")]
    assert role_texts(orphan) == [("assistant", "Late.")]
    assert skipped == {"repeated message": 1}


def test_flat_rows_in_a_circle_are_read_once(tmp_path: Path) -> None:
    rows = [
        {"message_id": "1", "parent_id": "2", "text": "a", "role": "prompter"},
        {"message_id": "2", "parent_id": "1", "text": "b", "role": "assistant"},
        {"message_id": "3", "parent_id": "3", "text": "c", "role": "prompter"},
    ]
    conversations, _skipped = read(write(tmp_path, "rows.json", rows))
    assert sorted(turn.text for one in conversations for turn in one.turns) == ["a", "b", "c"]


def test_a_list_of_lists_is_one_conversation_each(tmp_path: Path) -> None:
    rows = [["Question", "Answer"], [Q, A], ["Hi", "Hello", Q, A], ["alone"]]
    conversations, skipped = read(write(tmp_path, "rows.json", rows))
    assert [role_texts(one) for one in conversations] == [PAIR, LONGER]
    assert skipped == {"row of another shape": 2}
    pairs, _skipped = read(write(tmp_path, "pairs.json", [[["Hi", "Hello"], [Q, A]]] * 2))
    assert role_texts(pairs[0]) == LONGER


@pytest.mark.parametrize("columns", [{"prompt": Q, "response": A}, {"instruction": Q, "output": A}])
def test_a_list_of_messages_wins_over_columns_that_repeat_a_turn(
    columns: dict[str, str], tmp_path: Path
) -> None:
    messages = [{"role": role[:9], "content": text} for role, text in LONGER]
    (conversation, _copy), _skipped = read(
        write(tmp_path, "rows.json", [{**columns, "messages": messages}] * 2)
    )
    assert role_texts(conversation) == LONGER


def test_messages_named_by_their_only_key_are_one_conversation(tmp_path: Path) -> None:
    (conversation,), _skipped = read(write(tmp_path, "talk.json", [{"user": Q}, {"assistant": A}]))
    assert role_texts(conversation) == PAIR


@pytest.mark.parametrize(
    "row",
    [
        {"question": Q, "choices": ["a", "b"], "answer": 1},
        {"input": {"x": 1}, "output": {"y": 2}},
        {"text": "### Foxes\nAn animal.", "label": 0},
        {"text": "Human beings", "id": 1},
        {"answer": A, "score": 1},
        {"a": 1, "b": 2},
        {"id": "x", "question": [Q, "And a wolf?"], "answer": ["An animal.", "Too."]},
        {"prompt": True, "response": False},
    ],
)
def test_other_rows_are_not_taken_for_pairs(row: object, tmp_path: Path) -> None:
    with pytest.raises(BadInput):
        read(write(tmp_path, "rows.json", [row, row]))


def test_damaged_rows_are_counted_and_the_others_read(tmp_path: Path) -> None:
    rows = [{"prompt": Q, "response": A}, 5, None, {"x": 1}, {"prompt": Q, "response": A, "history": 3}]
    (conversation,), skipped = read(write(tmp_path, "rows.json", rows))
    assert role_texts(conversation) == PAIR
    assert skipped == {"row of another shape": 3, "history of another shape": 1}


@pytest.mark.parametrize("file", sorted(DATASETS.iterdir()), ids=lambda file: file.name)
def test_a_second_import_adds_nothing(file: Path, tmp_path: Path) -> None:
    with MemoryStore(tmp_path / "memory.db") as store:
        assert import_paths(store, [file]).added
        assert import_paths(store, [file]).added == 0


@pytest.mark.parametrize(
    "text", ["Human beings err.", "### Notes\n- a", "", "[INST", "<|x|>", "System of a down"]
)
def test_texts_without_marks_are_plain(text: str) -> None:
    assert not marked_turns(text)


def test_a_mark_with_nothing_behind_it_is_no_turn() -> None:
    assert [words for _role, words in marked_turns("Human: a\n\nAssistant:") or ()] == ["a"]
