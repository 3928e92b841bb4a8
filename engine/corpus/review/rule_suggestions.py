"""Suggests rules: filter lines that many of the user's rejections match. Light: the app imports it.

A suggestion is a phrase, source, language or length that many rejected conversations share, hardly any accepted one
does, and that is not common in the corpus.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

import msgspec

from engine.corpus.review.decision_log import decided_states, edits_in_force
from engine.corpus.review.store import ReviewStore

MIN_REJECTIONS = 5
"""Rejections that must match."""
MIN_SHARE = 0.2
"""Share of the rejections that must match."""
MIN_PRECISION = 0.9
"""Share of rejections among the decided matches."""
MIN_LIFT = 2.0
"""Ratio of the share of matches among the rejected to that in the corpus, and to that among the accepted."""
_MAX_READ = 400
"""Rejections that are read, the newest."""
_GRAM_WORDS = 4
_GRAM_CHARACTERS = 6
_MAX_PHRASE = 40
"""Characters of a phrase."""
_LENGTHS = (40, 80, 160, 320)
_TOKENS = re.compile(r"[A-Za-z0-9'’]+|[\u3400-\u9fff]+")


class RuleSuggestion(msgspec.Struct, frozen=True, kw_only=True):
    """A filter line with its figures, in conversations."""

    line: str
    rejected: int
    """Rejections of the user that match."""
    of_rejected: int
    """All rejections of the user."""
    accepted: int
    """Accepted conversations that match."""
    of_accepted: int
    others: int
    """Undecided matches that are not dropped yet: what a rule would reject."""

    @property
    def precision(self) -> float:
        return self.rejected / (self.rejected + self.accepted)


def suggest_rules(store: ReviewStore, limit: int = 3) -> list[RuleSuggestion]:
    """The best suggestions, the one with the most rejections first."""
    decided = decided_states(store.connection)
    known = set(store.rules())
    reasons = dict(
        store.connection.execute(
            "SELECT conversation_id, reason FROM decisions WHERE undone = 0 AND verdict = 'rejected' ORDER BY seq"
        ).fetchall()
    )
    # Rejections by a rule are no evidence for another rule.
    rejected = [id_ for id_, reason in reasons.items() if decided[id_] == "rejected" and reason != "rule"]
    accepted = {id_ for id_, verdict in decided.items() if verdict == "accepted"}
    if len(rejected) < MIN_REJECTIONS:
        return []
    wanted = set(rejected)
    total = store.count()
    found: list[RuleSuggestion] = []
    for line in _candidates(store, rejected[-_MAX_READ:]):
        if line in known:
            continue
        under = store.ids(line)
        hits = len(wanted.intersection(under))
        suggestion = RuleSuggestion(
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
            hits >= MIN_REJECTIONS
            and hits / len(rejected) >= MIN_SHARE
            and suggestion.precision >= MIN_PRECISION
            and hits / len(rejected) >= MIN_LIFT * max(common, suggestion.accepted / max(1, len(accepted)))
        ):
            found.append(suggestion)
    found.sort(key=lambda one: (-one.rejected, one.accepted, -len(one.line)))
    return _without_repetitions(found)[:limit]


def _candidates(store: ReviewStore, ids: Sequence[str]) -> Iterator[str]:
    """Filter lines that may describe some of `ids`."""
    id_list = msgspec.json.encode(list(ids)).decode()
    facts = store.connection.execute(
        "SELECT c.source, k.language, c.characters FROM corpus k JOIN conversations c ON c.id = k.conversation_id "
        "WHERE k.conversation_id IN (SELECT value FROM json_each(?))",
        (id_list,),
    ).fetchall()
    texts: dict[str, list[str]] = {}
    edits = edits_in_force(store.connection, ids)
    for id_, position, text in store.connection.execute(
        "SELECT conversation_id, position, substr(text, 1, 2000) FROM turns WHERE role IN ('user', 'assistant') "
        "AND conversation_id IN (SELECT value FROM json_each(?))",
        (id_list,),
    ):
        edit = edits.get(id_, {}).get(position)
        text = text if edit is None else edit.text[:2000]
        texts.setdefault(id_, []).append(text)
    for field, column in (("source", 0), ("lang", 1)):
        for value, count in Counter(row[column] for row in facts).most_common(2):
            if count >= MIN_REJECTIONS and value and '"' not in value:
                yield f'{field}:"{value}"' if " " in value else f"{field}:{value}"
    for bound in _LENGTHS:
        yield f"len<{bound}"
    yield from _phrases([" \n ".join(parts) for parts in texts.values()])


def _phrases(texts: Sequence[str]) -> Iterator[str]:
    """Quoted phrases that several texts share, each as long as all of them have it."""
    counts: Counter[str] = Counter()
    for text in texts:
        # Ordered, so that equal counts have the same order in every process.
        counts.update(list(dict.fromkeys(_grams(text))))
    minimum = max(MIN_REJECTIONS, int(MIN_SHARE * len(texts)))
    phrases: list[str] = []
    for gram, count in counts.most_common(200):
        if count < minimum or len(phrases) >= 6:
            break
        if any(gram.lower() in known.lower() for known in phrases):
            continue
        holders = [text for text in texts if gram.lower() in text.lower()]
        if len(holders) < minimum:
            continue
        phrase = _extend(gram, holders)
        if '"' not in phrase and "\n" not in phrase:
            phrases.append(phrase)
            yield f'"{phrase}"'


def _grams(text: str) -> Iterator[str]:
    """Four consecutive words with what is between them, or six Chinese characters."""
    words = [match for match in _TOKENS.finditer(text) if match[0].isascii()]
    for first in range(len(words) - _GRAM_WORDS + 1):
        start, end = words[first].start(), words[first + _GRAM_WORDS - 1].end()
        gram = text[start:end]
        if "\n" not in gram and '"' not in gram and len(gram) <= 60:
            yield gram
    for match in _TOKENS.finditer(text):
        if not match[0].isascii():
            run = match[0]
            for start in range(len(run) - _GRAM_CHARACTERS + 1):
                yield run[start : start + _GRAM_CHARACTERS]


def _extend(gram: str, holders: Sequence[str]) -> str:
    """The longest text around `gram` that all holders share, up to _MAX_PHRASE characters, cut at words."""
    text = holders[0]
    at = text.lower().index(gram.lower())
    start, end = at, at + len(gram)
    others = [holder.lower() for holder in holders[1:]]

    def shared(low: int, high: int) -> bool:
        part = text[low:high].lower()
        return '"' not in part and "\n" not in part and all(part in other for other in others)

    while end < len(text) and end - start < _MAX_PHRASE and shared(start, end + 1):
        end += 1
    while start > 0 and end - start < _MAX_PHRASE and shared(start - 1, end):
        start -= 1
    # End at word boundaries; the gram itself does.
    while end > at + len(gram) and end < len(text) and _in_word(text, end):
        end -= 1
    while start < at and start > 0 and _in_word(text, start):
        start += 1
    return text[start:end].strip()


def _in_word(text: str, position: int) -> bool:
    """Whether `position` is within a Latin word."""
    before, after = text[position - 1], text[position]
    return before.isascii() and before.isalnum() and after.isascii() and after.isalnum()


def _without_repetitions(found: Sequence[RuleSuggestion]) -> list[RuleSuggestion]:
    """Without suggestions that match as many conversations of each kind as an earlier one."""
    seen: set[tuple[int, int, int]] = set()
    kept = []
    for suggestion in found:
        key = (suggestion.rejected, suggestion.accepted, suggestion.others)
        if key not in seen:
            seen.add(key)
            kept.append(suggestion)
    return kept
