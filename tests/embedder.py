"""A small sentence-transformers model of random weights, made, saved and loaded by the real libraries."""

from __future__ import annotations

import string
from pathlib import Path

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def save_embedder(folder: Path, characters: str) -> Path:
    """A random BERT whose vocabulary is single `characters` and Latin letters; mean pooling."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizer

    torch.set_num_threads(1)
    torch.manual_seed(0)
    bert = folder.parent / f"{folder.name}-bert"
    bert.mkdir(parents=True)
    letters = string.ascii_lowercase + string.digits + ".,?!，。？！：、"
    pieces = [
        *_SPECIAL,
        *letters,
        *(f"##{letter}" for letter in letters),
        *sorted(set(characters) - set(letters)),
    ]
    (bert / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    BertTokenizer(str(bert / "vocab.txt")).save_pretrained(bert)
    config = BertConfig(
        vocab_size=len(pieces),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
    )
    BertModel(config).save_pretrained(bert, safe_serialization=True)
    words = Transformer(str(bert), max_seq_length=256)
    model = SentenceTransformer(modules=[words, Pooling(32)], device="cpu")
    model.save(str(folder), safe_serialization=True)
    return folder
