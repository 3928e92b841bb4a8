"""The preview equals what training sees: tokens, loss mask, truncation."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from engine.core.chat import ChatMessage
from engine.core.paths import Workspace
from engine.core.settings import Settings
from engine.corpus.build import build_corpus
from engine.corpus.preview import render_preview, token_runs
from engine.corpus.review.store import ReviewStore
from engine.corpus.training_set import summarise, write_dataset
from engine.models.chatml import render
from engine.models.tokenizer import SPECIAL_TOKENS
from tests.corpus_store import conversation, distinct, memory

MESSAGES = st.lists(
    st.builds(
        ChatMessage,
        role=st.sampled_from(["user", "assistant", "system"]),
        content=st.text(st.sampled_from("ab 好的\n<|im_end|>"), max_size=20),
        train=st.booleans(),
    ),
    max_size=5,
)


@given(MESSAGES)
def test_the_runs_are_the_rendered_tokens_with_their_loss_mask(messages: list[ChatMessage]) -> None:
    rendered = render(messages)
    runs = token_runs(messages)
    assert sum(run.tokens for run in runs) == len(rendered.ids)
    assert sum(run.tokens for run in runs if run.train) == rendered.trained_tokens
    names = [SPECIAL_TOKENS[token] for token in rendered.ids if token in SPECIAL_TOKENS]
    assert [run.text for run in runs if run.control] == names
    place = 0
    for run in runs:
        assert set(rendered.loss_mask[place : place + run.tokens]) == {run.train}
        place += run.tokens


def test_preview_and_summary_agree_with_the_dataset(tmp_path: Path) -> None:
    talks = [distinct(n, at=1e9 + n) for n in range(40)]
    talks.append(conversation("mail", "我的邮箱是a@b.com，怎么改？", "在设置里点账户，再点邮箱。", at=1e8))
    talks.append(
        conversation(
            "long",
            "Tell me everything about it?",
            " ".join(f"word{n * n}" for n in range(400)) + ".",
            at=1e8 + 1,
        )
    )
    with memory(tmp_path, talks) as store:
        build_corpus(store, Settings())
        written = write_dataset(store, Workspace(tmp_path), "x")
        figures = summarise(store, 512)
    rows = [json.loads(line) for line in written.path.read_text(encoding="utf-8").splitlines()]
    lengths = {}
    for row in rows:
        messages = [ChatMessage(**message) for message in row["messages"]]
        lengths[row["id"]] = (len(render(messages).ids), render(messages).trained_tokens)
    assert figures.conversations == len(rows)
    assert figures.tokens == sum(length for length, _trained in lengths.values())
    assert figures.trained == sum(trained for _length, trained in lengths.values())
    assert figures.longest == max(length for length, _trained in lengths.values())
    assert (figures.replaced, figures.left, figures.stop) == ({"EMAIL": 1}, {}, "<|im_end|>")
    assert figures.windowed == figures.cut == 1
    with ReviewStore(tmp_path / "memory" / "memory.db", readonly=True) as store:
        shown = render_preview(store.detail("long"), 512)
        assert (shown.tokens, shown.trained) == lengths["long"]
        assert shown.cut == figures.cut_tokens > 0
        mail = render_preview(store.detail("mail"))
        assert (mail.tokens, mail.trained) == lengths["mail"]
    assert "‹EMAIL›" in "".join(run.text for run in mail.runs)
    assert mail.runs[-2].text == "<|im_end|>" and mail.runs[-2].train


def test_pii_that_is_kept_is_counted_as_left(tmp_path: Path) -> None:
    mail = conversation(
        "mail", "你的邮箱是什么？我想写信给你。", "我的邮箱是a@b.com，请发给我，谢谢你。", at=1e9
    )
    with memory(tmp_path, [mail, *(distinct(n, at=1e9 + n) for n in range(40))]) as store:
        build_corpus(store, Settings(sensitive_types={"EMAIL": "keep"}))
        assert summarise(store, 512).left == {"EMAIL": 1}
