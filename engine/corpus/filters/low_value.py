"""Low-value turns: small talk, noise, repetition and truncated answers, in Chinese and English.

A turn is split into clauses and each clause is classified. A turn is low-value when every clause is small talk, or when
it ends with small talk and the rest is a short remark without question, information or instruction.
"""

from __future__ import annotations

import re
import zlib
from enum import StrEnum
from functools import lru_cache

import msgspec

from engine.corpus.filters import small_talk
from engine.corpus.filters.normalise import nfkc
from engine.corpus.filters.simplified_chinese import simplified
from engine.corpus.filters.truncation import find_loop, is_truncated, loop_share


class TurnKind(StrEnum):
    """The kind of a turn or clause. `_PRECEDENCE` decides which clause gives a turn its kind."""

    THANKS = "thanks"
    WELCOME = "welcome"
    GOODBYE = "goodbye"
    OFFER = "offer"
    GREETING = "greeting"
    ACKNOWLEDGEMENT = "acknowledgement"
    NOISE = "noise"
    EMPTY = "empty"
    REPETITION = "repetition"
    TRUNCATED = "truncated"
    REMARK = "remark"
    CONTENT = "content"


class LowValueResult(msgspec.Struct, frozen=True):
    """`score` is 1.0 for small talk only, less with remarks, 0.0 for content."""

    low: bool
    """The turn is low-value."""
    kind: TurnKind
    score: float


_PRECEDENCE = (
    TurnKind.THANKS,
    TurnKind.WELCOME,
    TurnKind.GOODBYE,
    TurnKind.OFFER,
    TurnKind.GREETING,
    TurnKind.ACKNOWLEDGEMENT,
    TurnKind.NOISE,
)
_CLOSING = frozenset((TurnKind.THANKS, TurnKind.WELCOME, TurnKind.GOODBYE))
_MAX_SMALL_TALK = 120
"""Code points above which a turn is content, whatever small talk it contains."""
_MAX_REPEATED_SHARE = 0.8
"""Share of repetition above which a short text is nothing else."""
_MIN_ROUNDS = 10
"""Repetitions from which it is not a refrain."""
_MAX_THANKS = 24
_MAX_THANKS_LATIN = 90
"""Code points above which a clause with thanks has other content."""
_MAX_CACHED_CLAUSE = 24
"""Code points up to which a clause recurs in other turns often enough to keep its kind."""
_MAX_REMARK = 18
_MAX_REMARKS = 32

_CLAUSE = re.compile(r"([^。！!？?，,、；;：~～…\n.]*)([。！!？?，,、；;：~～…\n.]+|$)")
_CJK = re.compile(r"[\u3400-\u9fff]")
_CJK_SPACE = re.compile(r"(?<=[\u3400-\u9fff])\s+(?=[\u3400-\u9fff])")


@lru_cache(maxsize=4096)
def classify(text: str) -> LowValueResult:
    """Classifies a turn without its context."""
    normal = nfkc(text).strip().lower()
    if not normal:
        return LowValueResult(True, TurnKind.EMPTY, 1.0)
    if _is_noise(normal):
        return LowValueResult(True, TurnKind.NOISE, 1.0)
    if len(normal) > _MAX_SMALL_TALK:
        looped = loop_share(normal)
        if not looped and len(normal) > 200 and _compression_ratio(normal) < 0.08:
            looped = 0.9
        return LowValueResult(True, TurnKind.REPETITION, round(looped, 3)) if looped else _CONTENT
    looped, rounds = find_loop(normal)
    if looped > _MAX_REPEATED_SHARE and rounds >= _MIN_ROUNDS:
        return LowValueResult(True, TurnKind.REPETITION, round(looped, 3))
    return _classify_clauses(simplified(normal))


def classify_reply(text: str, question: str) -> LowValueResult:
    """Classifies an answer to `question`.

    A single word that answers a question or completes a task is content. A truncated answer is low-value, because it
    would teach the model to stop anywhere.
    """
    alone = classify(text)
    if not alone.low and is_truncated(text):
        return _TRUNCATED
    if not alone.low or not question:
        return alone
    if classify(question).low:
        return alone
    normal = simplified(nfkc(question).strip().lower())
    if alone.kind is TurnKind.REPETITION:
        return _CONTENT if small_talk.ASKS_TO_REPEAT.search(normal) else alone
    if small_talk.ASKS_FOR_WORDING.search(normal):
        return _CONTENT
    if alone.kind is TurnKind.ACKNOWLEDGEMENT and (
        normal.endswith("?") or small_talk.QUESTION.search(normal) or small_talk.ASKS_TO_CHOOSE.search(normal)
    ):
        return _CONTENT
    return alone


_CONTENT = LowValueResult(False, TurnKind.CONTENT, 0.0)
_TRUNCATED = LowValueResult(True, TurnKind.TRUNCATED, 0.8)


def _classify_clauses(normal: str) -> LowValueResult:
    spaced = len(normal.split(None, 1)) > 1
    parts = _CLAUSE.findall(_CJK_SPACE.sub("，", normal) if spaced else normal)
    # One clause with content makes the turn content; most often it is the longest.
    texts = [part for part, _end in parts]
    index = texts.index(max(texts, key=len))
    longest = _strip_edges(texts[index])
    if longest and _classify_clause(longest, asks="?" in parts[index][1]) is TurnKind.CONTENT:
        return _CONTENT
    clauses = [(clause, "?" in end) for part, end in parts if (clause := _strip_edges(part))]
    if not clauses:
        return LowValueResult(True, TurnKind.NOISE, 1.0)
    kinds: list[TurnKind] = []
    for clause, asks in clauses:
        kind = _classify_clause(clause, asks=asks)
        if kind is TurnKind.CONTENT:
            return _CONTENT
        kinds.append(kind)
    lengths = [len(clause) for clause, _asks in clauses]
    remarks = sum(length for kind, length in zip(kinds, lengths, strict=True) if kind is TurnKind.REMARK)
    named = next((kind for kind in _PRECEDENCE if kind in kinds), TurnKind.REMARK)
    score = 1.0 - 0.5 * remarks / max(1, sum(lengths))
    if not remarks:
        return LowValueResult(True, named, 1.0)
    if _CLOSING.isdisjoint(kinds) or remarks > _MAX_REMARKS:
        return _CONTENT
    return LowValueResult(True, named, round(score, 3))


def _strip_edges(piece: str) -> str:
    """The clause without punctuation at its edges."""
    start, end = 0, len(piece)
    while start < end and not piece[start].isalnum():
        start += 1
    while end > start and not piece[end - 1].isalnum():
        end -= 1
    return piece[start:end]


def _classify_clause(clause: str, *, asks: bool) -> TurnKind:
    """The kind of one clause; `asks`: it ends with a question mark."""
    return _classify_short(clause, asks) if len(clause) <= _MAX_CACHED_CLAUSE else _kind_of(clause, asks)


def _kind_of(clause: str, asks: bool) -> TurnKind:
    bare = small_talk.PARTICLES.sub("", clause) or clause
    forms = (bare,) if bare == clause else (bare, clause)
    if small_talk.CLOSING_QUESTION.search(clause):
        return TurnKind.OFFER
    if any(map(small_talk.GREETING.fullmatch, forms)):
        return TurnKind.GREETING
    if small_talk.WELCOME.fullmatch(bare):
        return TurnKind.WELCOME
    if any(map(small_talk.GOODBYE.fullmatch, forms)):
        return TurnKind.GOODBYE
    chinese = _CJK.search(clause) is not None
    known = any(map(small_talk.ACKNOWLEDGEMENT.fullmatch, forms))
    short = len(clause) <= (_MAX_THANKS if chinese else _MAX_THANKS_LATIN)
    if not known and not short:
        return TurnKind.CONTENT
    if asks or small_talk.QUESTION.search(clause):
        return TurnKind.CONTENT
    if known:
        return TurnKind.ACKNOWLEDGEMENT
    if small_talk.THANKS.search(clause):
        content = small_talk.INSTRUCTS.search(clause) or small_talk.EXPLAINS_WORDS.search(clause)
        return TurnKind.CONTENT if content else TurnKind.THANKS
    if len(clause) > (_MAX_REMARK if chinese else 2 * _MAX_REMARK):
        return TurnKind.CONTENT
    return (
        TurnKind.CONTENT
        if small_talk.INFORMS.search(clause) or small_talk.INSTRUCTS.search(clause)
        else TurnKind.REMARK
    )


_classify_short = lru_cache(maxsize=4096)(_kind_of)


def _is_noise(normal: str) -> bool:
    """Whether the text is punctuation only or one repeated letter ("??", "哈哈哈哈", "aaaaaa"); digits are not noise."""
    letters = filter(str.isalnum, normal)
    first = next(letters, "")
    count = 1
    for letter in letters:
        if letter != first:
            return False
        count += 1
    return not first or (count >= 4 and not first.isdigit())


def _compression_ratio(normal: str) -> float:
    """Compression ratio: low for repetitive text."""
    data = normal.encode("utf-8", "surrogatepass")
    return len(zlib.compress(data, 1)) / len(data)
