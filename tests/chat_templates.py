"""Chat templates of public models, each with a small tokenizer of the same kind: bytes or SentencePiece, BOS, added tokens.

The texts lie in `tests/data/chat_templates`. Long parts about tools are left out.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from engine.models.gguf.tokenizer import LLAMA3 as LLAMA3_SPLITS

LLAMA3_PATTERN = LLAMA3_SPLITS.patterns[0]
FOLDER = Path(__file__).parent / "data" / "chat_templates"
_TEXT = (
    "The quick brown fox jumps over the lazy dog. What is your name? How do I make tea?\n\n\nUser: a\nAssistant: b",
    "Boil some water, pour it over the leaves and wait.\n<|im_start|>user\n### Response:\n[INST] [/INST] assistant model",
    "你好，你叫什么名字？我叫小明。今天天气怎么样？ def f(x):\n    return x  \n",
)


@dataclass(frozen=True)
class PublicTemplate:
    """A template and what its tokenizer is like."""

    special: tuple[str, ...]
    """The first is the padding token."""
    bos: str | None = None
    eos: str | None = None
    added: tuple[str, ...] = ()
    """Added tokens that are not special."""
    pieces: str = ""
    """SentencePiece with this kind of prefix: "first", "always", "never" or "legacy"; "": byte-level BPE."""
    adds_bos: bool = False
    eats_blanks: bool = False
    """The special tokens take the blanks after them (Phi-3)."""


IM = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
THINK = ("<think>", "</think>", "<tool_response>", "</tool_response>")
GEMMA = ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>")
LLAMA3 = ("<|end_of_text|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
PHI = ("<|endoftext|>", "<|assistant|>", "<|user|>", "<|system|>", "<|end|>")
R1 = ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>")
PUBLIC: dict[str, PublicTemplate] = {
    "qwen3": PublicTemplate(IM, None, "<|im_end|>", THINK),
    "qwen35": PublicTemplate(IM, None, "<|im_end|>", THINK),
    "qwen25": PublicTemplate(IM, None, "<|im_end|>"),
    "smollm2": PublicTemplate(IM, "<|im_start|>", "<|im_end|>"),
    "chatml": PublicTemplate(IM, "<|endoftext|>", "<|im_end|>", adds_bos=True),
    "llama32": PublicTemplate(LLAMA3, "<|begin_of_text|>", "<|eot_id|>", adds_bos=True),
    "llama2": PublicTemplate(("<unk>", "<s>", "</s>"), "<s>", "</s>", pieces="legacy", adds_bos=True),
    "gemma2": PublicTemplate(GEMMA, "<bos>", "<eos>", ("\n\n", "\n\n\n", "<table>"), "never", adds_bos=True),
    "gemma3": PublicTemplate(GEMMA, "<bos>", "<eos>", ("\n\n", "\n\n\n", "<table>"), "never", adds_bos=True),
    "gemma4": PublicTemplate(("<pad>", "<eos>", "<bos>", "<|turn>", "<turn|>", "<|channel>", "<channel|>"), "<bos>", "<eos>"),
    "mistral_v01": PublicTemplate(("<unk>", "<s>", "</s>"), "<s>", "</s>", pieces="legacy", adds_bos=True),
    "mistral_v03": PublicTemplate(("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]"), "<s>", "</s>", pieces="first", adds_bos=True),
    "mistral_small_31": PublicTemplate(("<pad>", "<s>", "</s>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"), "<s>", "</s>", adds_bos=True),
    "phi3": PublicTemplate(PHI, "<|endoftext|>", "<|endoftext|>", pieces="legacy", eats_blanks=True),
    "phi4": PublicTemplate((*IM, "<|im_sep|>"), "<|endoftext|>", "<|im_end|>"),
    "phi4_mini": PublicTemplate(PHI, "<|endoftext|>", "<|endoftext|>"),
    "deepseek_r1": PublicTemplate(R1, *R1, added=("<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"), adds_bos=True),
    "granite31": PublicTemplate(("<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>"), "<|end_of_text|>", "<|end_of_text|>"),
    "glm4": PublicTemplate(("<|endoftext|>", "[gMASK]", "<sop>", "<|user|>", "<|assistant|>", "<|system|>", "<|observation|>"), None, "<|endoftext|>"),
    "zephyr": PublicTemplate(("<unk>", "<s>", "</s>"), "<s>", "</s>", pieces="legacy", adds_bos=True),
    "vicuna": PublicTemplate(("<unk>", "<s>", "</s>"), "<s>", "</s>", pieces="legacy", adds_bos=True),
    "alpaca": PublicTemplate(("<unk>", "<s>", "</s>"), "<s>", "</s>", pieces="first", adds_bos=True),
    "plain": PublicTemplate(("<|endoftext|>",), "<|endoftext|>", "<|endoftext|>"),
    "plain_bos": PublicTemplate(LLAMA3, "<|begin_of_text|>", "<|end_of_text|>", adds_bos=True),
}  # fmt: skip
"""By name; the two without a file have no template."""
UNSUPPORTED: dict[str, PublicTemplate] = {
    "gpt_oss": PublicTemplate(("<|startoftext|>", "<|return|>", "<|start|>", "<|end|>", "<|message|>", "<|channel|>"), "<|startoftext|>", "<|return|>"),
    "no_generation_prompt": PublicTemplate(IM, None, "<|im_end|>"),
}  # fmt: skip
"""Templates that write something between the prompt and an answer, which a model would have to write itself."""


@cache
def public_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """The tokenizer of a template."""
    public = {**PUBLIC, **UNSUPPORTED}[name]
    backend = _pieces(public.pieces) if public.pieces else _bytes()
    backend.add_special_tokens(
        [
            AddedToken(text, special=True, normalized=False, rstrip=public.eats_blanks)
            for text in public.special
        ]
    )
    backend.add_tokens([AddedToken(text, special=False, normalized=False) for text in public.added])
    if public.adds_bos:
        assert public.bos is not None
        backend.post_processor = processors.TemplateProcessing(
            single=[public.bos, "$A"],
            pair=[public.bos, "$A", public.bos, "$B:1"],
            special_tokens=[(public.bos, backend.token_to_id(public.bos))],
        )
    make: Any = PreTrainedTokenizerFast
    file = FOLDER / f"{name}.jinja"
    wrapped: PreTrainedTokenizerFast = make(
        tokenizer_object=backend,
        bos_token=public.bos,
        eos_token=public.eos,
        pad_token=public.special[0],
        chat_template=file.read_text(encoding="utf-8") if file.is_file() else None,
        clean_up_tokenization_spaces=False,
    )
    return wrapped


def _bytes() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(_TEXT * 4, trainer)
    return tokenizer


def _pieces(kind: str) -> Tokenizer:
    """BPE over characters with `▁` for blanks and bytes for what is unknown, as tokenizer.json of Llama 2 has it."""
    learned = Tokenizer(models.BPE())
    learned.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="never")
    trainer = trainers.BpeTrainer(vocab_size=420, show_progress=False)
    learned.train_from_iterator([line for text in _TEXT for line in text.split("\n")] * 4, trainer)
    stored = json.loads(learned.to_str())["model"]
    vocabulary = {f"<0x{byte:02X}>": byte for byte in range(256)}
    for token in sorted(stored["vocab"], key=stored["vocab"].get):
        vocabulary.setdefault(token, len(vocabulary))
    vocabulary.setdefault("▁", len(vocabulary))
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=[tuple(pair) for pair in stored["merges"]],
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    if kind == "legacy":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=kind, split=False)
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            *([] if kind == "never" else [decoders.Strip(" ", 1, 0)]),
        ]
    )
    return tokenizer
