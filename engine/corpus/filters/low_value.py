"""Low-value turns: greetings, thanks, good-byes, bare acknowledgements and noise, in Chinese and English.

A turn is cut into clauses and each clause is named. A turn is low in value when every clause is
courtesy, or when courtesy closes it and what remains is a short remark that asks, tells and orders nothing.
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
from engine.corpus.filters.truncation import is_cut, loop, loop_share


class Kind(StrEnum):
    """What a turn or clause is. The order is that of `_STRENGTH`: which one names the turn."""

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


class Judgement(msgspec.Struct, frozen=True):
    """Whether a turn is low in value, what it is, and how sure: 1.0 courtesy alone, less with remarks."""

    low: bool
    kind: Kind
    score: float


_STRENGTH = (
    Kind.THANKS,
    Kind.WELCOME,
    Kind.GOODBYE,
    Kind.OFFER,
    Kind.GREETING,
    Kind.ACKNOWLEDGEMENT,
    Kind.NOISE,
)
_CLOSING = frozenset((Kind.THANKS, Kind.WELCOME, Kind.GOODBYE))
_LONGEST = 120
"""Code points beyond which a turn is content, whatever courtesy it holds."""
_ALL_LOOP = 0.8
"""Share of a short text beyond which it is nothing but a phrase over and over."""
_ROUNDS = 10
"""Rounds from which that is no refrain."""
_THANKS_LONGEST = 24
_THANKS_LONGEST_LATIN = 90
"""Code points of a clause beyond which thanks are said beside something else."""
_REMARK_LONGEST = 18
_REMARKS_LONGEST = 32

_CLAUSE = re.compile(r"([^。！!？?，,、；;：~～…\n.]*)([。！!？?，,、；;：~～…\n.]+|$)")
_CJK = re.compile(r"[\u3400-\u9fff]")
_CJK_SPACE = re.compile(r"(?<=[\u3400-\u9fff])\s+(?=[\u3400-\u9fff])")
_EDGE = re.compile(r"^[\W_]+|[\W_]+$")


@lru_cache(maxsize=4096)
def judge(text: str) -> Judgement:
    """The turn by itself, without what came before it."""
    normal = nfkc(text).strip().lower()
    if not normal:
        return Judgement(True, Kind.EMPTY, 1.0)
    if _is_noise(normal):
        return Judgement(True, Kind.NOISE, 1.0)
    if len(normal) > _LONGEST:
        looped = loop_share(normal)
        if not looped and len(normal) > 200 and _ratio(normal) < 0.08:
            looped = 0.9
        return Judgement(True, Kind.REPETITION, round(looped, 3)) if looped else _CONTENT
    looped, rounds = loop(normal)
    if looped > _ALL_LOOP and rounds >= _ROUNDS:
        return Judgement(True, Kind.REPETITION, round(looped, 3))
    return _judge_clauses(simplified(normal))


def judge_in_context(text: str, question: str) -> Judgement:
    """As `judge`, for an answer to `question`: a bare word that answers a question or does a task is its content,
    and an answer that was cut off would teach to stop anywhere."""
    alone = judge(text)
    if not alone.low and is_cut(text):
        return _CUT
    if not alone.low or not question:
        return alone
    if judge(question).low:
        return alone
    normal = simplified(nfkc(question).strip().lower())
    if alone.kind is Kind.REPETITION:
        return _CONTENT if small_talk.ASKS_TO_REPEAT.search(normal) else alone
    if small_talk.ASKS_FOR_WORDS.search(normal):
        return _CONTENT
    if alone.kind is Kind.ACKNOWLEDGEMENT and (
        normal.endswith("?") or small_talk.QUESTION.search(normal) or small_talk.CHOOSES.search(normal)
    ):
        return _CONTENT
    return alone


_CONTENT = Judgement(False, Kind.CONTENT, 0.0)
_CUT = Judgement(True, Kind.TRUNCATED, 0.8)


def _judge_clauses(normal: str) -> Judgement:
    spaced = len(normal.split(None, 1)) > 1
    pieces = _CLAUSE.findall(_CJK_SPACE.sub("，", normal) if spaced else normal)
    # One clause of content makes the turn content, and the longest is it most often.
    texts = [piece for piece, _end in pieces]
    place = texts.index(max(texts, key=len))
    longest = _inner(texts[place])
    if longest and _name(longest, asks="?" in pieces[place][1]) is Kind.CONTENT:
        return _CONTENT
    clauses = [(clause, "?" in end) for piece, end in pieces if (clause := _inner(piece))]
    if not clauses:
        return Judgement(True, Kind.NOISE, 1.0)
    kinds: list[Kind] = []
    for clause, asks in clauses:
        kind = _name(clause, asks=asks)
        if kind is Kind.CONTENT:
            return _CONTENT
        kinds.append(kind)
    lengths = [len(clause) for clause, _asks in clauses]
    remarks = sum(length for kind, length in zip(kinds, lengths, strict=True) if kind is Kind.REMARK)
    named = next((kind for kind in _STRENGTH if kind in kinds), Kind.REMARK)
    score = 1.0 - 0.5 * remarks / max(1, sum(lengths))
    if not remarks:
        return Judgement(True, named, 1.0)
    if _CLOSING.isdisjoint(kinds) or remarks > _REMARKS_LONGEST:
        return _CONTENT
    return Judgement(True, named, round(score, 3))


def _inner(piece: str) -> str:
    """Without what is no letter or digit at its edges."""
    return piece if piece[:1].isalnum() and piece[-1:].isalnum() else _EDGE.sub("", piece)


def _name(clause: str, *, asks: bool) -> Kind:
    """What one clause is; `asks` when a question mark closes it."""
    bare = small_talk.PARTICLES.sub("", clause) or clause
    forms = (bare,) if bare == clause else (bare, clause)
    if small_talk.CLOSING_QUESTION.search(clause):
        return Kind.OFFER
    if any(map(small_talk.GREETING.fullmatch, forms)):
        return Kind.GREETING
    if small_talk.WELCOME.fullmatch(bare):
        return Kind.WELCOME
    if any(map(small_talk.GOODBYE.fullmatch, forms)):
        return Kind.GOODBYE
    chinese = _CJK.search(clause) is not None
    known = any(map(small_talk.ACKNOWLEDGEMENT.fullmatch, forms))
    short = len(clause) <= (_THANKS_LONGEST if chinese else _THANKS_LONGEST_LATIN)
    if not known and not short:
        return Kind.CONTENT
    if asks or small_talk.QUESTION.search(clause):
        return Kind.CONTENT
    if known:
        return Kind.ACKNOWLEDGEMENT
    if small_talk.THANKS.search(clause):
        told = small_talk.ORDERS.search(clause) or small_talk.TALKS_OF_WORDS.search(clause)
        return Kind.CONTENT if told else Kind.THANKS
    if len(clause) > (_REMARK_LONGEST if chinese else 2 * _REMARK_LONGEST):
        return Kind.CONTENT
    return (
        Kind.CONTENT if small_talk.TELLS.search(clause) or small_talk.ORDERS.search(clause) else Kind.REMARK
    )


def _is_noise(normal: str) -> bool:
    """Signs alone, or one letter over and over ("??", "哈哈哈哈", "aaaaaa"); figures are never noise."""
    letters = filter(str.isalnum, normal)
    first = next(letters, "")
    count = 1
    for letter in letters:
        if letter != first:
            return False
        count += 1
    return not first or (count >= 4 and not first.isdigit())


def _ratio(normal: str) -> float:
    data = normal.encode("utf-8", "surrogatepass")
    return len(zlib.compress(data, 1)) / len(data)
