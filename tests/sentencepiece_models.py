"""A tokenizer of SentencePiece's kind with few tokens, as Mistral's and Gemma's are stored by transformers."""

from __future__ import annotations

from functools import cache
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tests.hf_models import TEXT

GEMMA_TEMPLATE = (
    "{{ bos_token }}{%- for message in messages %}"
    "{{- '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\\n' }}"
    "{{- message['content'] | trim }}{{- '<end_of_turn>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<start_of_turn>model\\n' }}{%- endif %}"
)
MISTRAL_TEMPLATE = (
    "{{ bos_token }}{%- for message in messages %}"
    "{%- if message['role'] == 'user' %}{{- '[INST] ' + message['content'] + ' [/INST]' }}"
    "{%- else %}{{- message['content'] + eos_token }}{%- endif %}{%- endfor %}"
)


def sentencepiece_tokenizer(*, prefix: bool) -> PreTrainedTokenizerFast:
    """Byte fallback, blanks as U+2581; `prefix`: one before every text (Mistral), else none (Gemma)."""
    pieces = _pieces()
    control = ["<unk>", "<s>", "</s>", "<start_of_turn>", "<end_of_turn>"]
    tokens = [*control, *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    merges = [
        (piece[:cut], piece[cut:])
        for piece in pieces
        for cut in range(1, len(piece))
        if piece[:cut] in vocabulary and piece[cut:] in vocabulary
    ]
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    first: list[Any] = [normalizers.Prepend("▁")] if prefix else []
    tokenizer.normalizer = normalizers.Sequence([*first, normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    # Runs of line breaks and blanks are tokens of their own in Gemma.
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in ("\n\n", "▁▁▁")])
    make: Any = PreTrainedTokenizerFast
    wrapped: PreTrainedTokenizerFast = make(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>" if prefix else "<end_of_turn>",
        unk_token="<unk>",
        chat_template=MISTRAL_TEMPLATE if prefix else GEMMA_TEMPLATE,
    )
    return wrapped


@cache
def _pieces() -> tuple[str, ...]:
    """Pieces in the order in which they were joined, single characters first."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=400, show_progress=False)
    tokenizer.train_from_iterator(TEXT * 4, trainer)
    return tuple(sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__))
