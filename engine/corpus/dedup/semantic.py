"""The semantic stage: groups conversations about the same subject, and drops semantic duplicates where that is safe.

With an embedder, a conversation is dropped only when the cosines of its questions and of its answers both exceed the
calibrated threshold (`embedding.calibration`), no text was truncated, and numbers, negations and names agree. Without
one, character n-grams group and nothing is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from engine.core.errors import BadInput, H2QError
from engine.core.i18n import _
from engine.corpus.dedup.drop import is_competing, plain_texts, rank
from engine.corpus.dedup.near import SimilarPair
from engine.corpus.enums import CorpusStage, LedgerAction, ReviewState
from engine.corpus.filters.run import CorpusEntry
from engine.corpus.ledger import Database, Evidence, LedgerRow
from engine.corpus.review.decision_log import ever_edited
from engine.memory.transactions import write_in_chunks

if TYPE_CHECKING:
    from engine.corpus.embedding.backends import Embedder, Matrix
    from engine.corpus.embedding.calibration import Calibration

MAX_UNKNOWN_SHARE = 0.02
"""Share of unknown tokens above which an embedder is refused: it would call all Chinese texts alike."""
MAX_COMPARED = 50_000
"""Conversations compared all with all; of more, only the newest."""
_SAMPLE = 1_000
"""Conversations on which the share of unknown tokens is measured."""
_BLOCK = 512
_NGRAMS = "n-grams"
_NEVER = 2.0
"""A cosine that no pair reaches."""

Log = Callable[[str, str], None]
"""Writes a message with its level to the log."""


def semantic_stage(
    store: Database,
    entries: Sequence[CorpusEntry],
    decided: Mapping[str, str],
    *,
    setting: str,
    root: Path,
    log: Log,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[SimilarPair]:
    """Adds ledger rows to `entries` and may drop some; returns the semantic duplicates by index of `entries`.

    `setting` is `Settings.embedder`. An embedder that cannot be loaded or does not suit the corpus is logged with the
    reason, and n-grams replace it.
    """
    from engine.corpus.embedding.embedder import OFF, open_embedder

    position = {entry.id: index for index, entry in enumerate(entries)}
    ranked = sorted(
        (entry for entry in entries if is_competing(entry, decided)), key=lambda entry: rank(entry, decided)
    )
    used, duplicates = "", []
    if setting != OFF and len(ranked) > 1:
        try:
            embedder = open_embedder(setting, root)
            if embedder is not None:
                used = embedder.name
                duplicates = _group_by_vectors(store, ranked, decided, embedder, log, on_progress)
        except H2QError as problem:
            log(_("the embedder is not used: {why}").format(why=problem), "warning")
            used, embedder = "", None
        if embedder is None:
            used = _group_by_ngrams(store, ranked, log)
    _set_meta(store, "corpus_semantic", used)
    return [
        SimilarPair(min(position[one], position[other]), max(position[one], position[other]), similarity)
        for one, other, similarity in duplicates
    ]


def refusal(embedder: Embedder, calibration: Calibration, texts: Sequence[str]) -> str:
    """Why an embedder does not suit these texts, or ""."""
    share = embedder.unknown_share(texts)
    if share > MAX_UNKNOWN_SHARE:
        return _("{name} does not know {share} % of the tokens of the corpus; the limit is 2 %").format(
            name=embedder.name, share=f"{100 * share:.0f}"
        )
    if not calibration.groups:
        return _("{name} cannot distinguish paraphrases from unrelated sentences").format(name=embedder.name)
    return ""


def _group_by_vectors(
    store: Database,
    ranked: Sequence[CorpusEntry],
    decided: Mapping[str, str],
    embedder: Embedder,
    log: Log,
    on_progress: Callable[[int, int], None] | None,
) -> list[tuple[str, str, float]]:
    """Raises H2QError when the embedder is refused."""
    from engine.corpus.embedding.vector_cache import read_dialogues, vectors

    ranked = _newest(ranked, MAX_COMPARED, log)
    step = max(1, len(ranked) // _SAMPLE)
    sample = read_dialogues(store, [entry.id for entry in ranked[::step]])
    calibration = _calibration(store, embedder)
    why = refusal(
        embedder,
        calibration,
        [text for dialogue in sample.values() for text in (dialogue.questions, dialogue.answers)],
    )
    if why:
        raise BadInput(why)
    embedded = vectors(store, embedder, [entry.id for entry in ranked], on_progress)
    groups = [calibration.groups.get(entry.language, _NEVER) for entry in ranked]
    drops = [calibration.drops.get(entry.language, _NEVER) for entry in ranked]
    similar = list(_similar_pairs(embedded, list(map(min, groups, drops))))
    duplicates = _drop_duplicates(store, ranked, decided, similar, embedder, calibration)
    _group(
        ranked,
        (
            (first, second, mean)
            for first, second, mean, _least in similar
            if mean >= max(groups[first], groups[second])
        ),
    )
    log(
        _(
            "grouped by {name}; semantic duplicates dropped: {n} (languages with a safe threshold: {languages})"
        ).format(
            name=embedder.name,
            n=len(duplicates),
            languages=_(", ").join(sorted(calibration.drops)) or _("none"),
        ),
        "info",
    )
    return duplicates


def _newest(ranked: Sequence[CorpusEntry], limit: int, log: Log) -> Sequence[CorpusEntry]:
    """The newest entries up to `limit`, in their order: comparing all with all grows with the square, and character
    n-grams also cost a millisecond and 25 kB for each."""
    if len(ranked) <= limit:
        return ranked
    log(
        _("semantic comparison: only the newest {most} of {n} conversations").format(
            most=f"{limit:,}", n=f"{len(ranked):,}"
        ),
        "info",
    )
    newest = sorted(ranked, key=lambda entry: (entry.end_time is None, -(entry.end_time or 0.0), entry.id))
    kept = {entry.id for entry in newest[:limit]}
    return [entry for entry in ranked if entry.id in kept]


def _similar_pairs(embedded: Matrix, thresholds: Sequence[float]) -> Iterator[tuple[int, int, float, float]]:
    """(first, second, mean of the two cosines, smaller of them) for each pair above both its thresholds.

    `embedded` has shape (entries, 2, dimensions): the vectors of questions and of answers.
    """
    import numpy as np

    floor = np.asarray(thresholds, dtype=np.float32)
    for start in range(0, len(embedded), _BLOCK):
        rows = embedded[start : start + _BLOCK]
        questions = rows[:, 0] @ embedded[:, 0].T
        answers = rows[:, 1] @ embedded[:, 1].T
        mean = (questions + answers) / 2
        above = np.argwhere(mean >= np.maximum(floor[start : start + _BLOCK, None], floor[None, :]))
        for row, first in above.tolist():
            if first < row + start:
                yield (
                    first,
                    row + start,
                    float(mean[row, first]),
                    float(min(questions[row, first], answers[row, first])),
                )


def _drop_duplicates(
    store: Database,
    ranked: Sequence[CorpusEntry],
    decided: Mapping[str, str],
    similar: Iterable[tuple[int, int, float, float]],
    embedder: Embedder,
    calibration: Calibration,
) -> list[tuple[str, str, float]]:
    from engine.corpus.dedup.semantic_guards import may_mean_the_same
    from engine.corpus.embedding.vector_cache import read_dialogues

    # Vectors are of the imported text; the text of an edited turn may mean something else.
    edited = ever_edited(store.connection)
    duplicates: dict[int, tuple[int, float]] = {}
    for first, second, _mean, least in sorted(similar, key=lambda pair: (pair[1], -pair[3], pair[0])):
        one, other = ranked[first], ranked[second]
        if (
            first in duplicates
            or second in duplicates
            or one.language != other.language
            or edited & {one.id, other.id}
            or decided.get(other.id) == ReviewState.ACCEPTED
            or least < calibration.drops.get(one.language, _NEVER)
        ):
            continue
        dialogues = read_dialogues(store, [one.id, other.id])
        untruncated = all(
            not dialogue.truncated
            and embedder.fits_context(dialogue.questions)
            and embedder.fits_context(dialogue.answers)
            for dialogue in dialogues.values()
        )
        left, right = dialogues[one.id], dialogues[other.id]
        if (
            untruncated
            and may_mean_the_same(left.questions, right.questions)
            and may_mean_the_same(left.answers, right.answers)
        ):
            duplicates[second] = (first, least)
            other.drop(CorpusStage.SEMANTIC, "same_meaning", duplicate_of=one.id, similarity=round(least, 4))
    return [(ranked[first].id, ranked[second].id, least) for second, (first, least) in duplicates.items()]


def _group_by_ngrams(store: Database, ranked: Sequence[CorpusEntry], log: Log) -> str:
    """Returns the name of the method, for the statistics."""
    from engine.corpus.dedup import tfidf

    ranked = _newest(ranked, tfidf.MAX_TEXTS, log)
    texts = plain_texts(store.connection, [entry.id for entry in ranked])
    groups = _group(
        ranked, ((pair.first, pair.second, pair.similarity) for pair in tfidf.similar_pairs(texts))
    )
    log(
        _("grouped by character n-grams: {n} groups; no semantic duplicates dropped").format(n=groups),
        "detail",
    )
    return _NGRAMS


def _group(ranked: Sequence[CorpusEntry], pairs: Iterable[tuple[int, int, float]]) -> int:
    """Adds each conversation to the group of the most similar better one, if it is similar to every member (complete linkage),
    so that neither chains nor a common subject make groups that nobody can look through.

    Returns the number of groups; pairs may come in any order."""
    better: dict[int, dict[int, float]] = {}
    for first, second, similarity in pairs:
        better.setdefault(second, {})[first] = similarity
    leader_of: dict[int, int] = {}
    members: dict[int, list[int]] = {}
    for second in sorted(better):
        if ranked[second].dropped is not None:
            continue
        similar = {first: value for first, value in better[second].items() if ranked[first].dropped is None}
        leaders = [
            (value, -first)
            for first, value in similar.items()
            if first not in leader_of and all(member in similar for member in members.get(first, ()))
        ]
        if leaders:
            similarity, negative = max(leaders)
            leader = -negative
            leader_of[second] = leader
            members.setdefault(leader, []).append(second)
            ranked[second].rows.append(
                LedgerRow(
                    conversation=ranked[second].id,
                    stage=CorpusStage.SEMANTIC,
                    action=LedgerAction.GROUP,
                    reason="alike",
                    duplicate_of=ranked[leader].id,
                    evidence=Evidence(similarity=round(similarity, 4)),
                )
            )
    return len(members)


def _calibration(store: Database, embedder: Embedder) -> Calibration:
    """The calibration of an embedder; measured once, then read."""
    from engine.corpus.embedding.calibration import Calibration, calibrate, calibration_version
    from engine.corpus.embedding.measured import CALIBRATION_KEY

    key = CALIBRATION_KEY + embedder.name
    row = store.connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    if row:
        stored = msgspec.json.decode(row[0], type=Calibration)
        if stored.pairs == calibration_version():
            return stored
    measured = calibrate(embedder)
    _set_meta(store, key, msgspec.json.encode(measured).decode())
    return measured


def _set_meta(store: Database, key: str, value: str) -> None:
    def write(row: tuple[str, str]) -> None:
        store.connection.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", row)

    write_in_chunks(store.connection, [(key, value)], write)
