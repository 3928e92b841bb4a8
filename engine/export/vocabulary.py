"""A tokenizer in GGUF's form: tokens, types, merges, pre-tokenizer, control ids and chat template."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf import GGUFValueType, GGUFWriter, TokenType

from engine.core.errors import BadInput
from engine.core.i18n import _
from engine.models.gguf.file import GgufFile
from engine.models.gguf.header import BYTE_LEVEL, SENTENCEPIECE
from engine.models.gguf.sentencepiece import BYTE, SPACE
from engine.models.gguf.tokenizer import PRE_TOKENIZERS

DUMMY_MERGE = "<|im_start|> <|im_end|>"
"""llama.cpp rejects a vocabulary without merges; one between two control tokens is never applied."""
_GENERATION = re.compile(r"\{%(-?)\s*(end)?generation\s*(-?)%\}")
_CONTRACTION = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_ASCII = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"


@dataclass(frozen=True)
class Vocabulary:
    """Everything llama.cpp needs to reproduce the ids of the model's tokenizer."""

    tokens: list[str]
    types: list[int]
    merges: list[str]
    pre: str
    """llama.cpp's name of the pre-tokenizer; "default" for SentencePiece."""
    eos: tuple[int, ...]
    bos: int | None
    pad: int | None
    add_bos: bool
    chat_template: str | None
    normalizes: bool
    """The tokenizer applies NFC; llama.cpp does not."""
    scores: list[float] | None = None
    """Of SentencePiece, for each token: the pair with the highest is joined first. None for byte-level BPE."""
    unknown: int | None = None
    space_prefix: bool = False
    """SentencePiece puts a blank before a text."""


def read_vocabulary(folder: Path, size: int, eos: tuple[int, ...]) -> Vocabulary:
    """The vocabulary of a Hugging Face directory, padded to the `size` rows of the embedding.

    `eos` are the model's ids that end an answer. Raises BadInput for a tokenizer that is neither SentencePiece nor
    byte-level BPE with a pre-tokenizer of llama.cpp.
    """
    file = folder / "tokenizer.json"
    stored = _json(file)
    try:
        model, added = stored["model"], stored.get("added_tokens") or []
        words: dict[str, int] = dict(model["vocab"])
        merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
        kind, pieces = model.get("type", "BPE"), bool(model.get("byte_fallback"))
        prefix = _space_prefix(stored) if pieces else None
        pre = (
            _pre_tokenizer(stored, bool(merges)) if not pieces else "default" if prefix is not None else None
        )
        normalizes = False if pieces else _normalizes(stored)
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        raise BadInput(_("the model's tokenizer is broken"), path=file) from problem
    scores = _scores(words, merges) if pieces else None
    if kind != "BPE" or pre is None or normalizes is None or (pieces and scores is None):
        raise BadInput(
            _(
                "the tokenizer cannot be exported for llama.cpp: only SentencePiece and byte-level BPE ({supported})"
            ).format(supported=_(", ").join(PRE_TOKENIZERS)),
            path=file,
        )
    kinds = {token["id"]: token for token in added}
    by_id = {number: text for text, number in words.items()} | {n: t["content"] for n, t in kinds.items()}
    if not by_id or max(by_id) >= size:
        raise BadInput(_("the model's tokenizer has more tokens than its weights have rows"), path=file)
    settings = _optional(folder / "tokenizer_config.json")
    bos, unknown = _id_of(settings.get("bos_token"), by_id), _id_of(model.get("unk_token"), by_id)
    types = [_type(number, by_id, kinds) for number in range(size)]
    tokens = [by_id.get(number, f"[PAD{number}]") for number in range(size)]
    if pieces:
        _mark_pieces(tokens, types, unknown)
    return Vocabulary(
        tokens=tokens,
        types=types,
        merges=merges or [DUMMY_MERGE],
        pre=pre,
        eos=eos or tuple(n for n in (_id_of(settings.get("eos_token"), by_id),) if n is not None),
        bos=bos,
        pad=_id_of(settings.get("pad_token"), by_id),
        add_bos=bos is not None and _begins_with_bos(stored.get("post_processor"), by_id[bos]),
        chat_template=plain_template(_template(folder, settings)),
        normalizes=normalizes,
        scores=None if scores is None else [scores.get(token, _NEVER_JOINED) for token in tokens],
        unknown=unknown,
        space_prefix=bool(prefix),
    )


def write_vocabulary(writer: GGUFWriter, vocabulary: Vocabulary) -> None:
    """Writes the keys `tokenizer.*`."""
    writer.add_tokenizer_model(BYTE_LEVEL if vocabulary.scores is None else SENTENCEPIECE)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.scores is None:
        writer.add_token_merges(vocabulary.merges)
    else:
        writer.add_token_scores(vocabulary.scores)
        writer.add_add_space_prefix(vocabulary.space_prefix)
        if vocabulary.unknown is not None:
            writer.add_unk_token_id(vocabulary.unknown)
    writer.add_add_bos_token(vocabulary.add_bos)
    if vocabulary.eos:
        writer.add_eos_token_id(vocabulary.eos[0])
    if vocabulary.bos is not None:
        writer.add_bos_token_id(vocabulary.bos)
    if vocabulary.pad is not None:
        writer.add_pad_token_id(vocabulary.pad)
    if vocabulary.chat_template:
        writer.add_chat_template(vocabulary.chat_template)


def copy_vocabulary(writer: GGUFWriter, file: GgufFile) -> None:
    """Copies the keys `tokenizer.*` of another GGUF file with their types."""
    for key, value in file.metadata.items():
        if key.startswith("tokenizer."):
            kind, inner = file.types[key]
            writer.add_key_value(
                key, value, GGUFValueType(kind), None if inner is None else GGUFValueType(inner)
            )


def _space_prefix(stored: dict[str, Any]) -> bool | None:
    """Whether SentencePiece puts a blank before a text; None for a tokenizer that prepares texts in another way."""
    prefixes, replaces = False, False
    normalizer, pre_tokenizer = stored.get("normalizer"), stored.get("pre_tokenizer")
    steps = normalizer["normalizers"] if normalizer and normalizer["type"] == "Sequence" else [normalizer]
    for step in [*steps, pre_tokenizer]:
        match step:
            case None:
                continue
            case {"type": "Prepend", "prepend": "▁"}:
                prefixes = True
            case {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}:
                replaces = True
            case {"type": "Metaspace", "split": False}:
                prefixes, replaces = step.get("prepend_scheme", "always") != "never", True
            case {"type": "Split", "pattern": {"String": " "}} if replaces:
                continue  # Gemma: no blank is left at which to split
            case _:
                return None
    return prefixes if replaces else None


_NEVER_JOINED = -1e9


def _scores(words: dict[str, int], merges: list[str]) -> dict[str, float] | None:
    """Scores by which llama.cpp joins tokens in the order of the merges; None where one order cannot say it."""
    scores: dict[str, float] = {}
    last = ""
    for merge in merges:
        left, _blank, right = merge.partition(" ")
        token = left + right
        if token not in words:
            return None
        if token != last and token in scores:
            return None
        scores.setdefault(token, -float(len(scores)))
        last = token
    return scores


def _mark_pieces(tokens: list[str], types: list[int], unknown: int | None) -> None:
    """Sets the types of byte and unknown tokens, and blanks in tokens that are matched in the text as it stands."""
    bytes_ = {BYTE.format(byte) for byte in range(256)}
    for number, token in enumerate(tokens):
        if number == unknown:
            types[number] = int(TokenType.UNKNOWN)
        elif token in bytes_:
            types[number] = int(TokenType.BYTE)
        elif types[number] == TokenType.USER_DEFINED:
            tokens[number] = token.replace(SPACE, " ")


def plain_template(template: str | None) -> str | None:
    """`template` without the `generation` tags, which only transformers supports.

    They become a condition that is always true, so that whitespace around them is trimmed as before.
    """
    if template is None:
        return None
    return _GENERATION.sub(
        lambda mark: "{%" + mark[1] + (" endif " if mark[2] else " if true ") + mark[3] + "%}", template
    )


def _pre_tokenizer(stored: dict[str, Any], merging: bool) -> str | None:
    """llama.cpp's name of the tokenizer's pre-tokenizer; None for one that it does not have."""
    pre_tokenizer = stored.get("pre_tokenizer")
    steps = (
        pre_tokenizer["pretokenizers"]
        if pre_tokenizer and pre_tokenizer["type"] == "Sequence"
        else [pre_tokenizer]
        if pre_tokenizer
        else []
    )
    if not steps or steps[-1]["type"] != "ByteLevel" or steps[-1].get("add_prefix_space"):
        return None
    cuts = steps[:-1]
    if steps[-1].get("use_regex", True):
        if not cuts:
            return "gpt-2"
        digits = len(cuts) == 1 and cuts[0]["type"] == "Digits" and cuts[0].get("individual_digits")
        return "smollm" if digits else None
    if not cuts:
        # Without merges the pre-tokenizer makes no difference.
        return None if merging else "qwen2"
    if any(cut["type"] != "Split" or cut["behavior"] != "Isolated" or cut.get("invert") for cut in cuts):
        return None
    patterns = tuple(cut["pattern"]["Regex"].replace(_CONTRACTION, _ASCII) for cut in cuts)
    return next((name for name, known in PRE_TOKENIZERS.items() if known.patterns == patterns), None)


def _normalizes(stored: dict[str, Any]) -> bool | None:
    """False: no normalizer; True: NFC; None: another one."""
    normalizer = stored.get("normalizer")
    if normalizer is None:
        return False
    return True if normalizer["type"] == "NFC" else None


def _type(number: int, by_id: dict[int, str], added: dict[int, Any]) -> int:
    if number not in by_id:
        return int(TokenType.UNUSED)
    if number not in added:
        return int(TokenType.NORMAL)
    return int(TokenType.CONTROL if added[number].get("special") else TokenType.USER_DEFINED)


def _begins_with_bos(processor: Any, bos: str) -> bool:
    """Whether the tokenizer puts BOS before every text."""
    if not isinstance(processor, dict):
        return False
    if processor.get("type") == "Sequence":
        return any(_begins_with_bos(part, bos) for part in processor.get("processors") or [])
    first = (processor.get("single") or [{}])[0]
    return bool(first.get("SpecialToken", {}).get("id") == bos)


def _template(folder: Path, settings: dict[str, Any]) -> str | None:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    template = settings.get("chat_template")
    if isinstance(template, list):
        named = {part.get("name"): part.get("template") for part in template if isinstance(part, dict)}
        template = named.get("default")
    return template if isinstance(template, str) else None


def _id_of(token: Any, by_id: dict[int, str]) -> int | None:
    text = token.get("content") if isinstance(token, dict) else token
    return next((number for number, known in by_id.items() if known == text), None)


def _optional(file: Path) -> dict[str, Any]:
    return _json(file) if file.is_file() else {}


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as problem:
        raise BadInput(_("the model has no {file}").format(file=file.name), path=file.parent) from problem
    except (ValueError, OSError) as problem:
        raise BadInput(_("{file} is broken").format(file=file.name), path=file) from problem
    if not isinstance(content, dict):
        raise BadInput(_("{file} is broken").format(file=file.name), path=file)
    return content
