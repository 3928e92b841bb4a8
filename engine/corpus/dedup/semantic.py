"""The semantic stage: what is about the same is grouped, and what says the same is left out where that is sure.

With an embedder, a conversation is left out only when its questions and its answers both lie above the
cosine from which surely 95 % of the labelled pairs say the same (`embedding.calibration`), both were read to their
end, and no figure, negation or name differs. Without one, character n-grams group and nothing is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from engine.core.errors import H2QError
from engine.core.i18n import _
from engine.corpus.dedup.drop import competes, rank
from engine.corpus.dedup.near import Pair
from engine.corpus.dedup.texts import folded_words
from engine.corpus.enums import Action, Stage, State
from engine.corpus.filters.result import Item
from engine.corpus.ledger import Database, Evidence, LedgerRow
from engine.corpus.review.decision_log import ever_edited
from engine.memory.transactions import write_in_chunks

if TYPE_CHECKING:
    from engine.corpus.embedding.calibration import Calibration
    from engine.corpus.embedding.protocol import Embedder, Matrix

UNKNOWN = 0.02
"""Share of unknown tokens from which an embedder cannot read the corpus: it would call all Chinese alike."""
MOST = 50_000
"""Conversations compared all with all; of more, the newest."""
_SAMPLE = 1_000
"""Conversations on which the share of unknown tokens is measured."""
_BLOCK = 512
_GRAMS = "n-grams"

Say = Callable[[str, str], None]
"""Text and level of a line of the log."""


def by_meaning(
    store: Database,
    items: Sequence[Item],
    decided: Mapping[str, str],
    *,
    setting: str,
    root: Path,
    say: Say,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Pair]:
    """Adds rows to `items` and may drop some; returns the twins found, by index of `items`.

    `setting` is `Settings.embedder`; an embedder that cannot be had or cannot read the corpus is named in the
    log with the reason, and n-grams take its place.
    """
    from engine.corpus.embedding.load import OFF, open_embedder

    place = {item.id: index for index, item in enumerate(items)}
    ordered = sorted(
        (item for item in items if competes(item, decided)), key=lambda item: rank(item, decided)
    )
    used, twins = "", []
    if setting != OFF and len(ordered) > 1:
        try:
            embedder = open_embedder(setting, root)
            if embedder is not None:
                used = embedder.name
                twins = _by_vectors(store, ordered, decided, embedder, say, on_progress)
        except H2QError as problem:
            say(_("the embedder is not used: {why}").format(why=problem), "warning")
            used, embedder = "", None
        if embedder is None:
            used = _by_ngrams(store, ordered, say)
    _note(store, used)
    return [
        Pair(min(place[one], place[other]), max(place[one], place[other]), similarity)
        for one, other, similarity in twins
    ]


def refusal(embedder: Embedder, calibration: Calibration, texts: Sequence[str]) -> str:
    """Why an embedder is not fit for these texts, or ""."""
    share = embedder.unknown_share(texts)
    if share > UNKNOWN:
        return _("{name} does not know {share} % of the corpus's tokens, and 2 % is the most").format(
            name=embedder.name, share=f"{100 * share:.0f}"
        )
    if not calibration.groups:
        return _("{name} cannot tell sentences that say the same from unrelated ones").format(
            name=embedder.name
        )
    return ""


def _by_vectors(
    store: Database,
    ordered: Sequence[Item],
    decided: Mapping[str, str],
    embedder: Embedder,
    say: Say,
    on_progress: Callable[[int, int], None] | None,
) -> list[tuple[str, str, float]]:
    """Raises H2QError when the embedder is refused."""
    from engine.core.errors import BadInput
    from engine.corpus.embedding.cache import sides, vectors

    ordered = _newest(ordered, MOST, say)
    step = max(1, len(ordered) // _SAMPLE)
    sample = sides(store, [item.id for item in ordered[::step]])
    calibration = _calibrated(store, embedder)
    why = refusal(
        embedder, calibration, [text for said in sample.values() for text in (said.questions, said.answers)]
    )
    if why:
        raise BadInput(why)
    found = vectors(store, embedder, [item.id for item in ordered], on_progress)
    close = list(_close(found, [calibration.groups.get(item.language, 2.0) for item in ordered]))
    twins = _drop_twins(store, ordered, decided, close, embedder, calibration)
    _group(ordered, ((first, second, mean) for first, second, mean, _least in close))
    names = ", ".join(sorted(calibration.drops)) or _("none")
    say(
        _(
            "grouped by {name}; left out by meaning: {n} (languages in which it is sure enough: {languages})"
        ).format(name=embedder.name, n=len(twins), languages=names),
        "info",
    )
    return twins


def _newest(ordered: Sequence[Item], most: int, say: Say) -> Sequence[Item]:
    """At most so many of the items, the newest, in their order: comparing all with all grows with the square, and
    character n-grams cost a millisecond and 25 kB for each besides."""
    if len(ordered) <= most:
        return ordered
    say(
        _("the newest {most} of {n} conversations are compared by meaning").format(
            most=f"{most:,}", n=f"{len(ordered):,}"
        ),
        "info",
    )
    newest = sorted(ordered, key=lambda item: (item.end is None, -(item.end or 0.0), item.id))[:most]
    kept = {item.id for item in newest}
    return [item for item in ordered if item.id in kept]


def _close(found: Matrix, least: Sequence[float]) -> Iterator[tuple[int, int, float, float]]:
    """(first, second, mean of the two cosines, smaller of them) for each pair above both its thresholds."""
    import numpy as np

    floor = np.asarray(least, dtype=np.float32)
    for start in range(0, len(found), _BLOCK):
        rows = found[start : start + _BLOCK]
        asked = rows[:, 0] @ found[:, 0].T
        told = rows[:, 1] @ found[:, 1].T
        mean = (asked + told) / 2
        near = np.argwhere(mean >= np.maximum(floor[start : start + _BLOCK, None], floor[None, :]))
        for row, first in near.tolist():
            if first < row + start:
                yield (
                    first,
                    row + start,
                    float(mean[row, first]),
                    float(min(asked[row, first], told[row, first])),
                )


def _drop_twins(
    store: Database,
    ordered: Sequence[Item],
    decided: Mapping[str, str],
    close: Iterable[tuple[int, int, float, float]],
    embedder: Embedder,
    calibration: Calibration,
) -> list[tuple[str, str, float]]:
    from engine.corpus.dedup.semantic_guards import may_mean_the_same
    from engine.corpus.embedding.cache import sides

    # Vectors are of the words as they came; what the person wrote anew may say something else.
    rewritten = ever_edited(store.connection)
    twins: dict[int, tuple[int, float]] = {}
    for first, second, _mean, least in sorted(close, key=lambda pair: (pair[1], -pair[3], pair[0])):
        one, other = ordered[first], ordered[second]
        if (
            first in twins
            or second in twins
            or one.language != other.language
            or rewritten & {one.id, other.id}
            or decided.get(other.id) == State.ACCEPTED
            or least < calibration.drops.get(one.language, 2.0)
        ):
            continue
        said = sides(store, [one.id, other.id])
        whole = all(
            not side.cut and embedder.reads_whole(side.questions) and embedder.reads_whole(side.answers)
            for side in said.values()
        )
        here, there = said[one.id], said[other.id]
        if (
            whole
            and may_mean_the_same(here.questions, there.questions)
            and may_mean_the_same(here.answers, there.answers)
        ):
            twins[second] = (first, least)
            other.drop(Stage.SEMANTIC, "same_meaning", twin=one.id, similarity=round(least, 4))
    return [(ordered[first].id, ordered[second].id, least) for second, (first, least) in twins.items()]


def _by_ngrams(store: Database, ordered: Sequence[Item], say: Say) -> str:
    """The name of what was used."""
    from engine.corpus.dedup import tfidf

    ordered = _newest(ordered, tfidf.MOST, say)
    groups = _group(
        ordered,
        (
            (pair.first, pair.second, pair.similarity)
            for pair in tfidf.alike(folded_words(store.connection, [item.id for item in ordered]))
        ),
    )
    say(
        _("grouped by character n-grams: {n} groups; nothing is left out by meaning").format(n=groups), "info"
    )
    return _GRAMS


def _group(ordered: Sequence[Item], pairs: Iterable[tuple[int, int, float]]) -> int:
    """Each conversation joins the most similar of the better ones that lead a group, so that groups do not
    grow into chains. Returns how many groups there are; pairs may come in any order."""
    better: dict[int, list[tuple[float, int]]] = {}
    for first, second, similarity in pairs:
        better.setdefault(second, []).append((similarity, first))
    members: set[int] = set()
    led: set[int] = set()
    for second in sorted(better):
        leaders = [
            (similarity, -first)
            for similarity, first in better[second]
            if first not in members and ordered[first].dropped is None
        ]
        if leaders and ordered[second].dropped is None:
            similarity, first = max(leaders)
            members.add(second)
            led.add(-first)
            ordered[second].rows.append(
                LedgerRow(
                    conversation=ordered[second].id,
                    stage=Stage.SEMANTIC,
                    action=Action.GROUP,
                    reason="alike",
                    twin=ordered[-first].id,
                    evidence=Evidence(similarity=round(similarity, 4)),
                )
            )
    return len(led)


def _calibrated(store: Database, embedder: Embedder) -> Calibration:
    """Measured once for an embedder, then read."""
    from engine.corpus.embedding.calibration import Calibration, calibrate, version

    key = f"calibration {embedder.name}"
    row = store.connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    if row:
        kept = msgspec.json.decode(row[0], type=Calibration)
        if kept.pairs == version():
            return kept
    found = calibrate(embedder)
    _set(store, key, msgspec.json.encode(found).decode())
    return found


def _note(store: Database, used: str) -> None:
    _set(store, "corpus_semantic", used)


def _set(store: Database, key: str, value: str) -> None:
    def write(row: tuple[str, str]) -> None:
        store.connection.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", row)

    write_in_chunks(store.connection, [(key, value)], write)
