"""The header of a GGUF file without the tensors: what a list of models shows. Imports nothing heavy.

Format: ggml's GGUF specification, versions 2 and 3.
"""

from __future__ import annotations

import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from engine.core.errors import BadInput
from engine.core.i18n import _

READ_ARCHITECTURES = ("qwen2", "qwen3", "llama", "gemma3", "phi3", "smollm3", "granite", "qwen35")
"""Values of `general.architecture` in `engine.models.gguf.architectures`."""
READ_PRE_TOKENIZERS = (
    "qwen2", "deepseek-r1-qwen", "llama-bpe", "llama3", "llama-v3", "smaug-bpe", "smollm", "refact", "tekken",
    "gpt-4o", "qwen35", "gpt-2",
)  # fmt: skip
"""Values of `tokenizer.ggml.pre` in `engine.models.gguf.tokenizer`."""
BYTE_LEVEL, SENTENCEPIECE = "gpt2", "llama"
"""Values of `tokenizer.ggml.model`."""
MAX_ITEMS = 1 << 22
"""Maximum entries of an array or table; the largest vocabularies have about 300,000 tokens and as many merges."""
MAX_STRING = 1 << 24
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING = 8
ARRAY = 9
_FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S",
    12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS",
    20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M",
    28: "IQ2_S", 29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4",
}  # fmt: skip
"""llama.cpp's `llama_ftype`, in `general.file_type`."""


_MAX_RANK = 8
"""Sides of a tensor: four in every file that llama.cpp writes."""


@dataclass(frozen=True)
class GgufSummary:
    """What a list shows of a GGUF file. Unknown texts are "", unknown numbers 0."""

    architecture: str
    kind: str
    """`general.type`: "model", or "adapter" for a LoRA file."""
    quantization: str
    """The most frequent type of its weights, as file names have it: `Q4_K_M`."""
    context: int
    tokenizer: str
    """`tokenizer.ggml.model`: "gpt2" for byte-level BPE, "llama" for SentencePiece."""
    pre_tokenizer: str
    experts: int
    parameters: int = 0
    """Number of weights."""

    @property
    def problem(self) -> str:
        """Why the file cannot be loaded as a model; "" when nothing in the header speaks against it."""
        if self.kind != "model":
            return _("this GGUF file is not a complete model ({kind})").format(kind=self.kind)
        if self.architecture not in READ_ARCHITECTURES:
            return _("the architecture {name} is not supported; supported: {supported}").format(
                name=self.architecture or "?", supported=_(", ").join(READ_ARCHITECTURES)
            )
        if self.experts:
            return _("mixture-of-experts models are not supported")
        if self.tokenizer != SENTENCEPIECE and (
            self.tokenizer != BYTE_LEVEL or self.pre_tokenizer not in READ_PRE_TOKENIZERS
        ):
            return _("the tokenizer {name} is not supported; supported: {supported}").format(
                name=f"{self.tokenizer or '?'}/{self.pre_tokenizer}",
                supported=_(", ").join(["SentencePiece", *READ_PRE_TOKENIZERS]),
            )
        return ""


def read_summary(path: Path) -> GgufSummary:
    """The summary of the file at `path`. Raises BadInput when it is missing, unreadable or not a GGUF file."""
    with open_binary(path) as file:
        reader = GgufReader(path, file)
        tensors = reader.start()
        values: dict[str, Any] = {}
        for _number in range(reader.count("Q")):
            key, kind = reader.string(), reader.scalar("I")
            if kind == ARRAY:
                reader.skip_items(reader.scalar("I"))
            else:
                values[key] = reader.value(kind)
        parameters = _parameters(reader, tensors)
    architecture = str(values.get("general.architecture", ""))
    context = values.get(f"{architecture}.context_length", 0)
    experts = values.get(f"{architecture}.expert_count", 0)
    return GgufSummary(
        architecture=architecture,
        kind=str(values.get("general.type", "model")),
        quantization=_FILE_TYPES.get(values.get("general.file_type", -1), ""),
        context=context if isinstance(context, int) else 0,
        tokenizer=str(values.get("tokenizer.ggml.model", "")),
        pre_tokenizer=str(values.get("tokenizer.ggml.pre", "default")),
        experts=experts if isinstance(experts, int) else 0,
        parameters=parameters,
    )


def read_metadata(path: Path) -> dict[str, Any]:
    """The values of the header by key; None for an array. Raises BadInput as `read_summary`."""
    with open_binary(path) as file:
        reader = GgufReader(path, file)
        reader.start()
        values: dict[str, Any] = {}
        for _number in range(reader.count("Q")):
            key, kind = reader.string(), reader.scalar("I")
            if kind == ARRAY:
                reader.skip_items(reader.scalar("I"))
                values[key] = None
            else:
                values[key] = reader.value(kind)
        return values


def _parameters(reader: GgufReader, tensors: int) -> int:
    """The number of weights, from the entries of the tensors that follow the values; 0 where they are broken."""
    count = 0
    try:
        for _number in range(tensors):
            reader.string()
            rank = reader.scalar("I")
            if rank > _MAX_RANK:
                return 0
            count += math.prod(reader.scalar("Q") for _side in range(rank))
            reader.read_exactly(struct.calcsize("<IQ"))  # type and offset
    except BadInput:
        return 0
    return count


def open_binary(path: Path) -> BinaryIO:
    """The file, open for reading. Raises BadInput."""
    try:
        return path.open("rb")
    except FileNotFoundError as problem:
        raise BadInput(_("the file does not exist"), path=path) from problem
    except (IsADirectoryError, PermissionError) as problem:
        raise BadInput(
            _("the file cannot be read ({reason})").format(reason=problem.strerror), path=path
        ) from problem


def truncated(path: Path) -> BadInput:
    """The error for a file that ends too early."""
    return BadInput(_("the GGUF file is truncated"), path=path)


class GgufReader:
    """Reads the values of a header one after the other. Every method raises BadInput for a broken or truncated file."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self.file = path, file
        self.size = os.fstat(file.fileno()).st_size

    def start(self) -> int:
        """Reads the magic and the version; returns the number of tensors. The number of values follows."""
        if self.file.read(4) != b"GGUF":
            raise BadInput(_("this is not a GGUF file"), path=self.path)
        version: int = self.scalar("I")
        if version in (2 << 24, 3 << 24):
            raise BadInput(
                _("the GGUF file is for big-endian machines; only little-endian files are read"),
                path=self.path,
            )
        if version not in (2, 3):
            raise BadInput(
                _("GGUF version {version} is not supported; versions 2 and 3 are").format(version=version),
                path=self.path,
            )
        return self.count("Q")

    def value(self, kind: int) -> Any:
        """A number, a truth value or a string."""
        if kind in _SCALARS:
            return self.scalar(_SCALARS[kind])
        if kind == _STRING:
            return self.string()
        raise self.broken()

    def items(self, kind: int | None) -> list[Any]:
        """An array with items of type `kind`."""
        count = self.count("Q")
        if kind == _STRING:
            return [self.string() for _number in range(count)]
        if kind not in _SCALARS:
            raise self.broken()
        code = "<" + str(count) + _SCALARS[kind]
        return list(struct.unpack(code, self.read_exactly(struct.calcsize(code))))

    def skip_items(self, kind: int) -> None:
        """Passes over an array with items of type `kind`."""
        count = self.count("Q")
        if kind in _SCALARS:
            self._skip(struct.calcsize("<" + str(count) + _SCALARS[kind]))
        elif kind == _STRING:
            for _number in range(count):
                self._skip(self.scalar("Q"))
        else:
            raise self.broken()

    def string(self) -> str:
        """A text, encoded as UTF-8."""
        length: int = self.scalar("Q")
        if length > MAX_STRING:
            raise self.broken()
        try:
            return self.read_exactly(length).decode("utf-8")
        except UnicodeDecodeError:
            raise self.broken() from None

    def count(self, code: str) -> int:
        """A number of entries."""
        number: int = self.scalar(code)
        if number > MAX_ITEMS:
            raise self.broken()
        return number

    def scalar(self, code: str) -> Any:
        """One number of `struct`'s format `code`, little-endian."""
        return struct.unpack("<" + code, self.read_exactly(struct.calcsize("<" + code)))[0]

    def read_exactly(self, length: int) -> bytes:
        """The next `length` bytes."""
        data = self.file.read(length)
        if len(data) != length:
            raise truncated(self.path)
        return data

    def broken(self) -> BadInput:
        """The error for a header that breaks the format."""
        return BadInput(_("the header of the GGUF file is broken"), path=self.path)

    def _skip(self, length: int) -> None:
        if self.file.tell() + length > self.size:
            raise truncated(self.path)
        self.file.seek(length, os.SEEK_CUR)
