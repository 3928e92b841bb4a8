"""The bytes of every token of a vocabulary in a few megabytes, to decode without the tokenizer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from engine.models.tokenizer import byte_alphabet

if TYPE_CHECKING:
    from engine.models.chat_template import ChatTemplate

_PROBE = "Yes, 1 + 1 = 2: naïve 你好，世界！"
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_BLANK = "▁"


class TokenBytes:
    """Decodes ids of one vocabulary; a tokenizer of 150,000 entries takes 240 MB, this about two."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        """`pieces[n]` are the bytes of token n."""
        self._data = b"".join(pieces)
        self._ends = np.cumsum([len(piece) for piece in pieces], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`; incomplete characters are left out, unknown ids are nothing."""
        found = bytearray()
        for id_ in ids:
            if 0 <= id_ < len(self._ends):
                start = int(self._ends[id_ - 1]) if id_ else 0
                found += self._data[start : int(self._ends[id_])]
        return found.decode("utf-8", "ignore")


def token_bytes(chat: ChatTemplate) -> TokenBytes | None:
    """The table of a tokenizer; None where it would not decode as the tokenizer does.

    Knows byte-level BPE and SentencePiece's blanks and byte tokens.
    """
    tokenizer = chat.tokenizer
    controls = set(tokenizer.added_tokens_decoder) | set(tokenizer.all_special_ids)
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    alphabet = {character: byte for byte, character in enumerate(byte_alphabet())}
    blanks = any(token is not None and token.startswith(_BLANK) for token in tokens[:2000])
    pieces = []
    for id_, token in enumerate(tokens):
        if token is None or id_ in controls:
            pieces.append(b"")
        elif blanks:
            byte = _BYTE.fullmatch(token)
            pieces.append(bytes([int(byte[1], 16)]) if byte else token.replace(_BLANK, " ").encode())
        else:
            pieces.append(_bytes_of(token, alphabet))
    table = TokenBytes(pieces)
    ids = chat.encode(_PROBE)
    return table if table.decode(ids).strip() == chat.decode(ids).strip() else None


def _bytes_of(token: str, alphabet: dict[str, int]) -> bytes:
    """A token of byte-level BPE, whose characters stand for bytes; others are their own UTF-8."""
    try:
        return bytes(alphabet[character] for character in token)
    except KeyError:
        return token.encode("utf-8", "replace")
