"""The byte-level tokenizer of the native model: token n is byte n, control tokens are above 255.

`hf_tokenizer` is the same vocabulary in the `tokenizers` format, so a model directory loads in transformers and
exports to GGUF with the same ids.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from itertools import groupby
from typing import Any

END_OF_TEXT = 256
IM_START = 257
IM_END = 258
SPECIAL_TOKENS: dict[int, str] = {
    END_OF_TEXT: "<|endoftext|>",
    IM_START: "<|im_start|>",
    IM_END: "<|im_end|>",
    **{number: f"<|reserved_{number - 259}|>" for number in range(259, 264)},
}
_CONTROL_IDS = {text: number for number, text in SPECIAL_TOKENS.items()}
_CONTROLS = re.compile(f"({'|'.join(map(re.escape, _CONTROL_IDS))})")
VOCAB = 264
"""256 bytes, three control tokens, five reserved; a multiple of eight for the matrix kernels."""

CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
"""ChatML for programs that render text; this program inserts control tokens by id (`chatml`)."""


def encode(text: str) -> list[int]:
    """The bytes of `text`; lone surrogates become U+FFFD. Text never yields an id above 255."""
    return list(text.encode("utf-8", errors="replace") if text.isascii() else _utf8(text))


def encode_controls(text: str) -> list[int]:
    """Ids of a text in which control tokens count as such."""
    return [
        id_
        for part in _CONTROLS.split(text)
        for id_ in ([_CONTROL_IDS[part]] if part in _CONTROL_IDS else encode(part))
    ]


def show_ids(ids: Sequence[int]) -> str:
    """Text of the ids with their control tokens; U+2060 stands inside those that the bytes merely spell."""
    runs = groupby(ids, key=lambda token: token < 256)
    return "".join(
        _CONTROLS.sub(lambda found: f"<\u2060{found[0][1:]}", decode(list(run)))
        if is_bytes
        else "".join(SPECIAL_TOKENS.get(token, "") for token in run)
        for is_bytes, run in runs
    )


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode("utf-8")


def decode(ids: list[int]) -> str:
    """Text of the byte tokens; control tokens are skipped, invalid sequences become U+FFFD."""
    return bytes(token for token in ids if token < 256).decode("utf-8", errors="replace")


class Utf8Stream:
    """Incremental UTF-8 decoder of byte tokens.

    `push` buffers an incomplete sequence; invalid bytes are dropped and counted in `dropped`.
    """

    def __init__(self) -> None:
        self.dropped = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: int) -> str:
        """The characters that `token` completes, mostly none or one."""
        if token > 255:
            return ""
        text = self._decoder.decode(bytes([token]))
        self.dropped += text.count("\ufffd")
        return text.replace("\ufffd", "")


def byte_alphabet() -> list[str]:
    """GPT-2's printable character for each byte, in byte order (`bytes_to_unicode`)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    stand_in = {byte: chr(byte) for byte in printable}
    for number, byte in enumerate(byte for byte in range(256) if byte not in stand_in):
        stand_in[byte] = chr(256 + number)
    return [stand_in[byte] for byte in range(256)]


def hf_tokenizer() -> dict[str, Any]:
    """The content of `tokenizer.json`: byte-level BPE without merges, ids equal to bytes."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": number,
                "content": text,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for number, text in SPECIAL_TOKENS.items()
        ],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {text: number for number, text in enumerate(byte_alphabet())}
            | {text: number for number, text in SPECIAL_TOKENS.items()},
            "merges": [],
        },
    }


def hf_tokenizer_config(context: int) -> dict[str, Any]:
    """The content of `tokenizer_config.json`.

    The class is set because AutoTokenizer would otherwise choose Qwen's tokenizer with an NFC normalizer.
    """
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context,
        "eos_token": SPECIAL_TOKENS[IM_END],
        "pad_token": SPECIAL_TOKENS[END_OF_TEXT],
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
