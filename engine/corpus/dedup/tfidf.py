"""Similar texts by TF-IDF of character n-grams (scikit-learn)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from engine.corpus.dedup.near import SimilarPair

MIN_COSINE = 0.5
"""Cosine from which texts are shown as a group. Nothing is dropped by it."""
MAX_TEXTS = 5_000
"""Texts compared all with all in a few seconds."""
MAX_LENGTH = 400
"""Code points of a text that are used."""
_MIN_TEXTS_FOR_MAX_DF = 200
"""Texts from which n-grams that occur in a tenth of them are excluded: they weigh next to nothing and cost most."""
_BLOCK = 512


def similar_pairs(folded: Sequence[str], min_cosine: float = MIN_COSINE) -> Iterator[SimilarPair]:
    """Pairs of folded texts with a cosine of at least `min_cosine`, in order of `second`.

    Raises ValueError for more than MAX_TEXTS texts.
    """
    if len(folded) > MAX_TEXTS:
        raise ValueError(f"{len(folded)} texts, {MAX_TEXTS} at most")
    if len(folded) < 2:
        return
    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer

    try:
        rows = TfidfVectorizer(
            analyzer="char",
            ngram_range=(2, 3),
            max_df=0.1 if len(folded) >= _MIN_TEXTS_FOR_MAX_DF else 1.0,
            lowercase=False,
            sublinear_tf=True,
            dtype=np.float32,
        ).fit_transform([text[:MAX_LENGTH] for text in folded])
    except ValueError:
        return  # no text has an n-gram
    for start in range(0, len(folded), _BLOCK):
        cosines = (rows[start : start + _BLOCK] @ rows.T).tocoo()
        above = cosines.data >= min_cosine
        found = sorted(
            (int(row) + start, int(column), float(value))
            for row, column, value in zip(
                cosines.row[above], cosines.col[above], cosines.data[above], strict=True
            )
        )
        for second, first, value in found:
            if first < second:
                yield SimilarPair(first, second, value)
