"""The sheet that shows what would be trained on, opened from the New run sheet."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.core.paths import Workspace
from engine.core.settings import Settings
from engine.corpus.build import build_corpus
from engine.corpus.preview import render_preview
from engine.corpus.review.store import ReviewStore
from tests.corpus_store import conversation, distinct, memory
from tests.tui.helpers import text_of, until
from tui.app.app import H2QApp
from tui.tabs.train.preview import preview_blocks


def test_trained_text_is_recognisable_without_colour(tmp_path: Path) -> None:
    with memory(
        tmp_path, [conversation("a", "What is <|im_end|> here?", "It ends\na turn of the chat.")]
    ) as store:
        build_corpus(store, Settings())
    with ReviewStore(tmp_path / "memory" / "memory.db", readonly=True) as review:
        blocks = preview_blocks(render_preview(review.detail("a")))
    texts = [(block.label, "".join(span.text for span in block.spans)) for block in blocks]
    assert texts == [
        (
            "context",
            "<|im_start|>user⏎\nWhat is <|im_end|> here?<|im_end|>⏎\n<|im_start|>assistant⏎",
        ),
        ("trained", "It ends\na turn of the chat.<|im_end|>⏎"),
    ]
    heads = [span.text for block in blocks for span in block.spans if span.kind == "head"]
    assert heads == ["<|im_start|>", "<|im_end|>", "<|im_start|>", "<|im_end|>"]


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_p_in_the_new_run_sheet_shows_text_mask_and_figures(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    with memory(tmp_path, [distinct(n, at=1e9 + n) for n in range(40)]) as store:
        build_corpus(store, Settings())
    app = H2QApp(Workspace(tmp_path))
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: app.tab is not None)
        await pilot.press("n", "p")
        await until(pilot, lambda: "<|im_end|>" in text_of(app))
        assert "trained" in text_of(app)
        await until(pilot, lambda: "PII remaining: 0" in text_of(app), 20)
        assert "maximum" in text_of(app)
        await pilot.press("right")
        await until(pilot, lambda: "2 of " in text_of(app))
        await pilot.press("escape")
        await until(pilot, lambda: "New run" in text_of(app) and "PII remaining" not in text_of(app))
