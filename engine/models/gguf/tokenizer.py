"""The tokenizer of a GGUF file, byte-level BPE or SentencePiece, with the same ids as llama.cpp.

llama.cpp does not normalise text (Qwen's tokenizer in transformers applies NFC), so neither does this one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gguf import TokenType

from engine.core.errors import BadInput
from engine.core.i18n import _
from engine.models.gguf.file import GgufFile
from engine.models.gguf.header import BYTE_LEVEL, SENTENCEPIECE
from engine.models.gguf.sentencepiece import sentencepiece_backend
from engine.models.tokenizer import CHAT_TEMPLATE

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

_CONTRACTIONS = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


@dataclass(frozen=True)
class PreTokenizer:
    """A pre-tokenizer of llama.cpp (`llm_tokenizer_bpe`): each pattern splits the pieces of the previous one."""

    patterns: tuple[str, ...]
    ignore_merges: bool = False
    """A piece that is itself a token is not merged from parts."""
    add_bos: bool = False
    """BOS precedes every text unless the file says otherwise."""


QWEN2 = PreTokenizer((_CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + _TAIL,))
LLAMA3 = PreTokenizer(
    (_CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + _TAIL,), ignore_merges=True, add_bos=True
)
SMOLLM = PreTokenizer((r"\p{N}", _GPT2))
# llama.cpp takes every letter but A to Z for a small one, and the reverse; the tokenizers' own patterns ask Unicode.
_BIG, _SMALL = r"(?:(?=\p{L})[^a-z])", r"(?:(?=\p{L})[^A-Z])"
_LEAD = r"[^\r\n\p{L}\p{N}]?"
_CASED = (rf"{_LEAD}{_BIG}*{_SMALL}+", rf"{_LEAD}{_BIG}+{_SMALL}*")
_SLASH_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TEKKEN = PreTokenizer((rf"{_CASED[0]}|{_CASED[1]}|\p{{N}}" + _SLASH_TAIL,), ignore_merges=True, add_bos=True)
GPT4O = PreTokenizer(
    (rf"{_CASED[0]}{_CONTRACTIONS}?|{_CASED[1]}{_CONTRACTIONS}?|\p{{N}}{{1,3}}" + _SLASH_TAIL,)
)
QWEN35 = PreTokenizer(
    (
        _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    )
)
GPT2 = PreTokenizer((_GPT2,))
PRE_TOKENIZERS = {
    "qwen2": QWEN2,
    "deepseek-r1-qwen": QWEN2,
    "llama-bpe": LLAMA3,
    "llama3": LLAMA3,
    "llama-v3": LLAMA3,
    "smaug-bpe": LLAMA3,
    "smollm": SMOLLM,
    "refact": SMOLLM,
    "tekken": TEKKEN,
    "gpt-4o": GPT4O,
    "qwen35": QWEN35,
    "gpt-2": GPT2,
}
"""Supported values of `tokenizer.ggml.pre`."""
_ENDS = (
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<end_of_turn>",
    "<|end|>",
    "<|endoftext|>",
    "<|end_of_text|>",
)
"""Control tokens that llama.cpp always treats as the end of generation."""
LLAMA3_CHAT = (
    "{{- bos_token }}{%- for message in messages %}"
    "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] + '<|eot_id|>' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"
)


def vocabulary_of(file: GgufFile) -> list[str]:
    """The tokens by id. Raises BadInput for an unsupported tokenizer."""
    kind, pre = file.text("tokenizer.ggml.model"), file.text("tokenizer.ggml.pre", "default")
    if kind != SENTENCEPIECE and (kind != BYTE_LEVEL or pre not in PRE_TOKENIZERS):
        raise BadInput(
            _("the tokenizer {name} is not supported; supported: {supported}").format(
                name=f"{kind or '?'}/{pre}", supported=_(", ").join(["SentencePiece", *PRE_TOKENIZERS])
            ),
            path=file.path,
        )
    tokens = file.items("tokenizer.ggml.tokens")
    if not tokens or not all(isinstance(token, str) for token in tokens) or len(set(tokens)) != len(tokens):
        raise file.invalid("tokenizer.ggml.tokens")
    return tokens


def chat_template_of(file: GgufFile, tokens: list[str]) -> str | None:
    """The template of the file, else the one that matches its control tokens, else None."""
    if template := file.text("tokenizer.chat_template"):
        return template
    vocabulary = set(tokens)
    if {"<|im_start|>", "<|im_end|>"} <= vocabulary:
        return CHAT_TEMPLATE
    if {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"} <= vocabulary:
        return LLAMA3_CHAT
    return None


def eos_ids_of(file: GgufFile, tokens: list[str]) -> tuple[int, ...]:
    """Ids that end an answer: those of the file first, then those that llama.cpp adds."""
    named = [file.metadata.get(f"tokenizer.ggml.{key}_token_id") for key in ("eos", "eot", "eom")]
    types = file.items("tokenizer.ggml.token_type")
    end_tokens = {token: number for number, token in enumerate(tokens) if token in _ENDS}
    more = [
        end_tokens[token]
        for token in _ENDS
        if token in end_tokens and (not types or types[end_tokens[token]] != TokenType.NORMAL)
    ]
    ids = [n for n in (*named, *more) if isinstance(n, int) and 0 <= n < len(tokens)]
    return tuple(dict.fromkeys(ids))


def tokenizer_of(
    file: GgufFile, tokens: list[str], template: str | None, eos: int | None, context: int
) -> PreTrainedTokenizerFast:
    """A transformers tokenizer. Raises BadInput when merges or token types are broken."""
    from transformers import PreTrainedTokenizerFast

    tokenizer_class: Any = PreTrainedTokenizerFast
    bos, pad = (_token(file, tokens, key) for key in ("bos", "padding"))
    wrapped: PreTrainedTokenizerFast = tokenizer_class(
        tokenizer_object=_backend(file, tokens),
        bos_token=bos,
        eos_token=None if eos is None else tokens[eos],
        pad_token=pad or (None if eos is None else tokens[eos]),
        clean_up_tokenization_spaces=False,
        model_max_length=context,
    )
    wrapped.chat_template = template
    return wrapped


def _backend(file: GgufFile, tokens: list[str]) -> Tokenizer:
    from tokenizers import AddedToken, processors

    types = file.items("tokenizer.ggml.token_type") or [TokenType.NORMAL] * len(tokens)
    if len(types) != len(tokens):
        raise file.invalid("tokenizer.ggml.token_type")
    sentencepiece = file.text("tokenizer.ggml.model") == SENTENCEPIECE
    tokenizer = (
        sentencepiece_backend(file, tokens, types) if sentencepiece else _byte_level_backend(file, tokens)
    )
    for kind, special in ((TokenType.CONTROL, True), (TokenType.USER_DEFINED, False)):
        added = [
            AddedToken(token, special=special, normalized=False)
            for token, type_ in zip(tokens, types, strict=True)
            if type_ == kind and token
        ]
        (tokenizer.add_special_tokens if special else tokenizer.add_tokens)(added)
    bos = _token(file, tokens, "bos")
    adds = sentencepiece or pre_tokenizer_of(file).add_bos
    if bos and file.metadata.get("tokenizer.ggml.add_bos_token", adds):
        tokenizer.post_processor = processors.TemplateProcessing(
            single=[bos, "$A"], pair=[bos, "$A", bos, "$B:1"], special_tokens=[(bos, tokens.index(bos))]
        )
    return tokenizer


def pre_tokenizer_of(file: GgufFile) -> PreTokenizer:
    """The pre-tokenizer of a byte-level vocabulary that `vocabulary_of` accepts."""
    return PRE_TOKENIZERS[file.text("tokenizer.ggml.pre", "default")]


def _byte_level_backend(file: GgufFile, tokens: list[str]) -> Tokenizer:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    pre = pre_tokenizer_of(file)
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=_merges(file, vocabulary),
            fuse_unk=False,
            ignore_merges=pre.ignore_merges,
        )
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            *(pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in pre.patterns),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _merges(file: GgufFile, vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """The merges whose parts and result are tokens; llama.cpp ignores the others too."""
    merges = []
    for line in file.items("tokenizer.ggml.merges"):
        if not isinstance(line, str) or " " not in line[1:]:
            raise file.invalid("tokenizer.ggml.merges")
        cut = line.index(" ", 1)
        left, right = line[:cut], line[cut + 1 :]
        if left in vocabulary and right in vocabulary and left + right in vocabulary:
            merges.append((left, right))
    return merges


def _token(file: GgufFile, tokens: list[str], key: str) -> str | None:
    number: Any = file.metadata.get(f"tokenizer.ggml.{key}_token_id")
    return tokens[number] if isinstance(number, int) and 0 <= number < len(tokens) else None
