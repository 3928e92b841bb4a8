"""SentencePiece vocabularies (Mistral, Llama 2, Gemma) as a tokenizer with llama.cpp's ids.

llama.cpp joins the pair of neighbours whose joined token has the highest score; a BPE with the pairs in order of that
score does the same (Kudo and Richardson 2018, `--model_type=bpe`). Characters without a token become bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gguf import TokenType

from engine.models.gguf.file import GgufFile

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPACE = "▁"
BYTE = "<0x{:02X}>"
_LONGEST = 48
"""Maximum characters of a token in SentencePiece, whose default is 16 and Gemma's 32."""


def sentencepiece_backend(file: GgufFile, tokens: Sequence[str], types: Sequence[int]) -> Tokenizer:
    """The tokenizer without added tokens. Raises BadInput when scores or byte tokens are missing."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    scores = file.items("tokenizer.ggml.scores")
    if len(scores) != len(tokens) or not all(isinstance(score, int | float) for score in scores):
        raise file.invalid("tokenizer.ggml.scores")
    vocabulary = {token: number for number, token in enumerate(tokens)}
    if any(BYTE.format(byte) not in vocabulary for byte in range(256)):
        raise file.invalid("tokenizer.ggml.tokens")
    unknown = file.metadata.get("tokenizer.ggml.unknown_token_id")
    prefixed = bool(file.metadata.get("tokenizer.ggml.add_space_prefix", True))
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=merges_of(tokens, types, scores),
            unk_token=tokens[unknown]
            if isinstance(unknown, int) and 0 <= unknown < len(tokens)
            else BYTE.format(0),
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    prefix: list[Any] = [normalizers.Prepend(SPACE)] if prefixed else []
    tokenizer.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", SPACE)])
    strip: list[Any] = [decoders.Strip(" ", 1, 0)] if prefixed else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    return tokenizer


def merges_of(tokens: Sequence[str], types: Sequence[int], scores: Sequence[float]) -> list[tuple[str, str]]:
    """Every pair of tokens that joins to a token, best score first. Control and byte tokens are never joined.

    A control token could otherwise be spelled in a text.
    """
    texts = {
        token: number
        for number, token in enumerate(tokens)
        if types[number] in (TokenType.NORMAL, TokenType.USER_DEFINED) and token
    }
    pairs: list[tuple[float, int, int, str, str]] = []
    for token, number in texts.items():
        if len(token) > _LONGEST:
            continue
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in texts and right in texts:
                pairs.append((-scores[number], texts[left], texts[right], left, right))
    return [(left, right) for _score, _left, _right, left, right in sorted(pairs)]
