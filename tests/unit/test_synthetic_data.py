"""Synthetic data: recombined and retrieved rows, the guard of held-out text, and the share of real data."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.chat import ChatMessage
from engine.corpus.contamination import ContaminationError
from engine.corpus.dataset import DatasetRow, read_dataset
from engine.evolution import augmentation, mixture
from engine.evolution.augmentation import halves, passages, sentences
from engine.evolution.held_out_guard import HeldOutText
from engine.evolution.mixture import MixedBatches, write_mixed_dataset
from engine.evolution.synthetic import ID_PREFIX, REAL_FLOOR, SyntheticExample, SyntheticMethod, is_synthetic
from engine.inference.backends.native import NativeModel
from engine.models.card import Lineage
from engine.models.chatml import windows
from engine.training.recipe import Phase
from engine.training.token_windows import TokenWindows
from tests.models import talk, tiny_model
from tests.unit.training_run import tiny

ZH = "清晨的集市刚刚开门。卖菜的老人把青菜摆在木板上！水珠还挂在叶子上吗？是的，还挂着。"
EN = "The ferry leaves at noon. It carries cars and bicycles. Nobody waits for latecomers."
HELD = "灯塔的看守人每天傍晚都在日志里写上一行字，无论那天有没有发生什么事情。"


def turns(*texts: str) -> list[ChatMessage]:
    return [ChatMessage(role="assistant" if n % 2 else "user", content=text) for n, text in enumerate(texts)]


def row(id_: str, *texts: str) -> DatasetRow:
    return DatasetRow(id=id_, messages=turns(*texts))


def rows(count: int) -> list[DatasetRow]:
    """Distinct but similar conversations about hotels, every second one with two exchanges."""
    found = []
    for n in range(count):
        name = "".join(chr(0x4E00 + (n * 7919 + k * 104729) % 18000) for k in range(6))
        texts = [f"请问{name}酒店在哪里？", f"{name}酒店在河边第{n}条街上。它离车站不远。走路十分钟就到了。"]
        if n % 2:
            texts += [f"{name}酒店多少钱一晚？", f"{name}酒店一晚{n + 100}元，含早餐，可以取消。"]
        found.append(row(f"c{n}", *texts))
    return found


@given(st.text(max_size=300))
def test_sentences_joined_are_the_text_again(text: str) -> None:
    assert "".join(sentences(text)) == text


@pytest.mark.parametrize("text", [ZH, EN])
def test_chinese_and_english_are_split_at_sentence_ends(text: str) -> None:
    parts = sentences(text)
    assert len(parts) >= 3 and all(part.strip()[-1] in "。！？." for part in parts)
    first, second = halves(text) or ("", "")
    assert first and second and text.startswith(first) and text.endswith(second)
    assert len(first) + len(second) >= len(text) - 1
    assert all(len(piece.encode()) <= 60 or len(sentences(piece)) == 1 for piece in passages(text, 60))


def test_one_sentence_has_no_halves() -> None:
    assert halves("没有标点的一句话") is None


def test_a_later_part_of_a_conversation_has_its_own_turns() -> None:
    source = row(
        "a",
        "一号问题在这里",
        "一号回答在这里",
        "二号问题在这里",
        "二号回答在这里",
        "三号问题",
        "三号回答在这里",
    )
    (made,) = augmentation.recombine([source], random.Random(1))
    assert made.method is SyntheticMethod.RECOMBINED and made.sources == ["a"] and is_synthetic(made.id)
    assert made.messages[0].role == "user" and made.messages[0].content != "一号问题在这里"
    words = [message.content for message in source.messages]
    at = words.index(made.messages[0].content)
    assert [message.content for message in made.messages] == words[at : at + len(made.messages)]


def test_a_single_answer_is_continued_from_its_first_half() -> None:
    (made,) = augmentation.recombine([row("a", "集市怎么样？", ZH)], random.Random(0))
    first_half, question, second_half = made.messages[1:]
    assert not first_half.train and first_half.content + second_half.content == ZH
    assert question.content == "请继续。" and second_half.train


def test_retrieval_finds_related_chinese_conversations() -> None:
    found = [
        row("hotel1", "河边酒店的早餐几点开始？", "河边酒店的早餐七点开始，十点结束。"),
        row("hotel2", "河边酒店可以带狗入住吗？", "河边酒店可以带狗入住，要另付三十元。"),
        row("moon", "月亮为什么会有圆缺变化？", "因为太阳照亮月亮的那一面随时间转动。"),
        row("code", "How do I sort a list?", "Call sorted on it; it returns a new list."),
    ]
    made = {one.sources[0]: one for one in augmentation.retrieve(found, random.Random(0))}
    assert made["hotel1"].sources == ["hotel1", "hotel2"]
    assert [message.train for message in made["hotel1"].messages] == [False, False, True, True]
    assert "moon" not in made and "code" not in made


def test_the_general_tail_of_a_text_is_never_read(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    body = "".join(
        f"第{n}天的早上下了一点小雨。到了中午天就晴了。晚上又起了风，吹了一夜。" for n in range(400)
    )
    tail = "秘密的结尾不该出现。" * 60
    file.write_text(body[: 9 * len(tail)] + tail, encoding="utf-8")
    made = list(augmentation.text_passages([file, tmp_path / "missing.txt"], random.Random(0)))
    assert made and all(one.sources == [str(file)] for one in made)
    assert not any("秘密的结尾" in message.content for one in made for message in one.messages)


def planted(*texts: str) -> SyntheticExample:
    return SyntheticExample(f"{ID_PREFIX}x", "", turns(*texts), ["a"], SyntheticMethod.RECOMBINED)


@pytest.mark.parametrize(
    ("texts", "how"),
    [
        (("他做什么？", HELD), "exact"),
        (("他做什么？", HELD.replace("每天", "天天")), "near"),
        (
            ("他做什么？", "我读到这样一段话：" + HELD + "后面还有很多别的内容，和这段话没有任何关系。" * 3),
            "quoting",
        ),
        (("灯塔有多高？", "大约三十米，夜里能照得很远。"), ""),
    ],
)
def test_planted_held_out_text_is_found(texts: tuple[str, ...], how: str) -> None:
    held = HeldOutText([turns("看守人写什么？", HELD)])
    overlap = held.overlaps([planted(*texts)])
    assert bool(overlap.rows) == bool(how)
    if how:
        assert 0 in getattr(overlap, how)


def test_quotations_of_general_text_are_found() -> None:
    held = HeldOutText([], [EN * 3])
    assert held.overlaps([planted("Say it.", "Well: " + EN)]).quoting == {0}


def write_rows(path: Path, found: list[DatasetRow]) -> Path:
    path.write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in found))
    return path


@pytest.fixture(scope="module")
def champion() -> NativeModel:
    return NativeModel(tiny_model([talk("你好", "好")], steps=2))


def test_a_dataset_keeps_its_real_share_and_overlaps_no_held_out_text(
    tmp_path: Path, champion: NativeModel
) -> None:
    real = rows(40)
    stolen = row("stolen", *[message.content for message in real[3].messages[2:]])
    held = HeldOutText([stolen.messages])
    source = write_rows(tmp_path / "real.jsonl", real)
    mixed = write_mixed_dataset(
        source, Lineage(), [], held, champion, tmp_path / "mix.jsonl", real_share=0.7, answers=2, seed=1
    )
    written = list(read_dataset(mixed.path))
    new = [one for one in written if is_synthetic(one.id)]
    assert new and [one.id for one in written if not is_synthetic(one.id)] == [one.id for one in real]
    assert mixed.stats.real_share >= 0.69 and mixed.stats.overlapping >= 1
    assert (mixed.stats.overlap_exact, mixed.stats.overlap_near) == (0, 0)
    assert not any(held.is_quoted_in(message.content) for one in new for message in one.messages)
    assert mixed.lineage.dataset_sha256 == mixed.sha256


def test_an_overlap_that_passes_the_guard_raises(
    tmp_path: Path, champion: NativeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = rows(20)
    held = HeldOutText([one.messages[2:] for one in real if len(one.messages) > 2])
    monkeypatch.setattr(mixture, "exclude_held_out", lambda candidates, _held, _budget: (list(candidates), 0))
    with pytest.raises(ContaminationError, match="made:"):
        write_mixed_dataset(
            write_rows(tmp_path / "r.jsonl", real), Lineage(), [], held, champion, tmp_path / "m.jsonl",
            real_share=0.5, answers=0, seed=0,
        )  # fmt: skip
    assert not (tmp_path / "m.jsonl").exists()


def test_the_same_seed_gives_the_same_dataset(tmp_path: Path, champion: NativeModel) -> None:
    source = write_rows(tmp_path / "r.jsonl", rows(12))
    one, other, third = (
        write_mixed_dataset(
            source,
            Lineage(),
            [],
            HeldOutText([]),
            champion,
            tmp_path / f"{n}.jsonl",
            real_share=0.6,
            answers=1,
            seed=s,
        )
        for n, s in enumerate((4, 4, 5))
    )
    assert one.sha256 == other.sha256 != third.sha256


@settings(max_examples=40, deadline=None)
@given(
    real=st.lists(st.integers(1, 90), min_size=1, max_size=30),
    made=st.lists(st.integers(1, 90), max_size=40),
    epoch=st.integers(0, 3),
)
def test_at_least_half_of_every_batch_is_real_and_every_real_window_occurs_once(
    real: list[int], made: list[int], epoch: int
) -> None:
    sizes = [(f"r{n}", size) for n, size in enumerate(real)] + [
        (f"{ID_PREFIX}{n}", size) for n, size in enumerate(made)
    ]
    cut = [window for _name, size in sizes for window in windows(talk("q", "x" * size), 128)]
    data = TokenWindows.of(cut, [name for name, _size in sizes])
    batches = MixedBatches(data, None, tiny(Phase.NATIVE), 128, 4096)
    plan = batches._plan(epoch)
    drawn = [int(member) for members in plan for member in members]
    assert sorted(member for member in drawn if member < len(real)) == list(range(len(real)))
    assert len(drawn) == len(set(drawn))
    assert min(batches.real_shares(epoch)) >= REAL_FLOOR
