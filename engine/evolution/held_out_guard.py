"""All that no new row may share words with: every conversation that is not in training, and the general set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from engine.corpus.enums import Split
from engine.corpus.ledger import Database
from engine.corpus.training_messages import prepared
from engine.evolution.apart import HeldText
from engine.training.text_files import general_tail
from engine.validation.cases import GENERAL_BLOCK, HeldOutLike, TextSource, cut_general
from engine.validation.validate import shipped_texts


def all_held_back(
    store: Database, window: Sequence[HeldOutLike], files: Sequence[Path], fixed: Sequence[str]
) -> HeldText:
    """The open test window, what waits for the next one or straddles its border, the blocks of general text
    that a verdict reads (shipped, and the tails of `files`), and the `fixed` texts of the canary.

    Raises OSError when a text cannot be read.
    """
    conversations = [
        item.messages for part in (Split.TEST, Split.WAITING, Split.BORDER) for item in prepared(store, part)
    ]
    conversations += [list(item.messages) for item in window]
    # Keyed as a verdict keys them; only the blocks are read of a text, however long it is.
    texts: dict[str, TextSource] = {**shipped_texts(), **{file.name: general_tail(file) for file in files}}
    blocks = cut_general(texts, GENERAL_BLOCK)
    return HeldText(conversations, [*(block.text.decode("utf-8", "ignore") for block in blocks), *fixed])
