"""What the person's rejections have in common, as a filter line that could reject for them. Light: the app imports it.

The rule is simple and stated with its figures: a phrase, a source, a language or a length that many of the
rejected share, that hardly any conversation shares which the person accepted, and that is not simply common.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

import msgspec

from engine.corpus.review.decision_log import edits, verdicts
from engine.corpus.review.store import ReviewStore

LEAST = 5
"""Rejections that must share a pattern."""
LEAST_SHARE = 0.2
"""Share of the rejections that must."""
LEAST_PRECISION = 0.9
"""Rejected among those that the person decided and the pattern covers."""
LEAST_LIFT = 2.0
"""How much more often it stands among the rejected than in the whole corpus, and than among the accepted."""
LATEST = 400
"""Rejections that are read, the newest."""
_WORDS = 4
_CHARACTERS = 6
_LENGTHS = (40, 80, 160, 320)
_PIECES = re.compile(r"[A-Za-z0-9'’]+|[\u3400-\u9fff]+")


class Pattern(msgspec.Struct, frozen=True, kw_only=True):
    """A filter line with what speaks for it. All in conversations."""

    line: str
    rejected: int
    """The person's rejections under it."""
    of_rejected: int
    """All the person's rejections."""
    accepted: int
    """What the person accepted under it."""
    of_accepted: int
    others: int
    """Under it, not decided by the person, and not left out yet: what a rule would reject."""

    @property
    def precision(self) -> float:
        return self.rejected / (self.rejected + self.accepted)


def patterns(store: ReviewStore, limit: int = 3) -> list[Pattern]:
    """The patterns that are worth asking about, the one with the most rejections first."""
    decided = verdicts(store.connection)
    known = set(store.rules())
    reasons = dict(
        store.connection.execute(
            "SELECT conversation_id, reason FROM decisions WHERE undone = 0 AND verdict = 'rejected' ORDER BY seq"
        ).fetchall()
    )
    # What a rule rejected is no witness for the next one.
    rejected = [id_ for id_, reason in reasons.items() if decided[id_] == "rejected" and reason != "rule"]
    accepted = {id_ for id_, verdict in decided.items() if verdict == "accepted"}
    if len(rejected) < LEAST:
        return []
    wanted = set(rejected)
    total = store.count()
    found: list[Pattern] = []
    for line in _candidates(store, rejected[-LATEST:]):
        if line in known:
            continue
        under = store.ids(line)
        hits = len(wanted.intersection(under))
        pattern = Pattern(
            line=line,
            rejected=hits,
            of_rejected=len(rejected),
            accepted=len(accepted.intersection(under)),
            of_accepted=len(accepted),
            others=len(
                [id_ for id_ in store.ids(f"{line} -state:rejected -state:dropped") if id_ not in decided]
            ),
        )
        common = len(under) / max(1, total)
        if (
            hits >= LEAST
            and hits / len(rejected) >= LEAST_SHARE
            and pattern.precision >= LEAST_PRECISION
            and hits / len(rejected) >= LEAST_LIFT * max(common, pattern.accepted / max(1, len(accepted)))
        ):
            found.append(pattern)
    found.sort(key=lambda one: (-one.rejected, one.accepted, -len(one.line)))
    return _different(found)[:limit]


def _candidates(store: ReviewStore, ids: Sequence[str]) -> Iterator[str]:
    """Filter lines that may describe some of `ids`."""
    marks = msgspec.json.encode(list(ids)).decode()
    facts = store.connection.execute(
        "SELECT c.source, k.language, c.characters FROM corpus k JOIN conversations c ON c.id = k.conversation_id "
        "WHERE k.conversation_id IN (SELECT value FROM json_each(?))",
        (marks,),
    ).fetchall()
    texts: dict[str, list[str]] = {}
    changed = edits(store.connection, ids)
    for id_, position, text in store.connection.execute(
        "SELECT conversation_id, position, substr(text, 1, 2000) FROM turns WHERE role IN ('user', 'assistant') "
        "AND conversation_id IN (SELECT value FROM json_each(?))",
        (marks,),
    ):
        change = changed.get(id_, {}).get(position)
        text = text if change is None else change.text[:2000]
        texts.setdefault(id_, []).append(text)
    for field, place in (("source", 0), ("lang", 1)):
        for value, count in Counter(row[place] for row in facts).most_common(2):
            if count >= LEAST and value and '"' not in value:
                yield f'{field}:"{value}"' if " " in value else f"{field}:{value}"
    for bound in _LENGTHS:
        yield f"len<{bound}"
    yield from _phrases([" \n ".join(parts) for parts in texts.values()])


def _phrases(texts: Sequence[str]) -> Iterator[str]:
    """Runs of words (or of 汉字) that several texts share, each as long as it is in all of them, quoted."""
    counts: Counter[str] = Counter()
    for text in texts:
        # In the order of the text: equal counts must come in the same order in every process.
        counts.update(list(dict.fromkeys(_grams(text))))
    least = max(LEAST, int(LEAST_SHARE * len(texts)))
    tried: list[str] = []
    for gram, count in counts.most_common(200):
        if count < least or len(tried) >= 6:
            break
        if any(gram.lower() in known.lower() for known in tried):
            continue
        holders = [text for text in texts if gram.lower() in text.lower()]
        if len(holders) < least:
            continue
        phrase = _grown(gram, holders)
        if '"' not in phrase and "\n" not in phrase:
            tried.append(phrase)
            yield f'"{phrase}"'


def _grams(text: str) -> Iterator[str]:
    """Four words in a row as they stand, or six 汉字."""
    words = [match for match in _PIECES.finditer(text) if match[0].isascii()]
    for first in range(len(words) - _WORDS + 1):
        start, end = words[first].start(), words[first + _WORDS - 1].end()
        gram = text[start:end]
        if "\n" not in gram and '"' not in gram and len(gram) <= 60:
            yield gram
    for match in _PIECES.finditer(text):
        if not match[0].isascii():
            run = match[0]
            for start in range(len(run) - _CHARACTERS + 1):
                yield run[start : start + _CHARACTERS]


def _grown(gram: str, holders: Sequence[str]) -> str:
    """The longest text around `gram` that all holders share, at most 40 characters, cut at words."""
    text = holders[0]
    at = text.lower().index(gram.lower())
    start, end = at, at + len(gram)
    others = [holder.lower() for holder in holders[1:]]

    def shared(low: int, high: int) -> bool:
        piece = text[low:high].lower()
        return '"' not in piece and "\n" not in piece and all(piece in other for other in others)

    while end < len(text) and end - start < 40 and shared(start, end + 1):
        end += 1
    while start > 0 and end - start < 40 and shared(start - 1, end):
        start -= 1
    # Whole words read better; the gram itself is made of them.
    while end > at + len(gram) and end < len(text) and _in_word(text, end):
        end -= 1
    while start < at and start > 0 and _in_word(text, start):
        start += 1
    return text[start:end].strip()


def _in_word(text: str, place: int) -> bool:
    before, after = text[place - 1], text[place]
    return before.isascii() and before.isalnum() and after.isascii() and after.isalnum()


def _different(found: Sequence[Pattern]) -> list[Pattern]:
    """Without those that cover the same rejections and others as one before."""
    seen: set[tuple[int, int, int]] = set()
    kept = []
    for pattern in found:
        key = (pattern.rejected, pattern.accepted, pattern.others)
        if key not in seen:
            seen.add(key)
            kept.append(pattern)
    return kept
