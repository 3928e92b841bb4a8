"""Which texts are alike by their character n-grams, weighted by how rare they are (TF-IDF, scikit-learn)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

ALIKE = 0.5
"""Cosine from which texts are shown as a group. Nothing is left out by it."""
MOST = 5_000
"""Texts compared all with all in a few seconds; beyond, nothing is grouped."""
LONGEST = 400
"""Code points of a text that are read."""
_MANY = 200
"""Texts from which an n-gram that stands in a tenth of them is left out: it weighs next to nothing and costs most."""
_BLOCK = 512


class Likeness(msgspec.Struct, frozen=True):
    """Two texts by index, `first < second`, and their cosine."""

    first: int
    second: int
    similarity: float


def alike(folded: Sequence[str], least: float = ALIKE) -> Iterator[Likeness]:
    """Pairs of folded texts with a cosine of at least `least`, in order of `second`.

    Raises ValueError for more than MOST texts: the caller says so to the person first.
    """
    if len(folded) > MOST:
        raise ValueError(f"{len(folded)} texts, {MOST} at most")
    if len(folded) < 2:
        return
    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer

    try:
        rows = TfidfVectorizer(
            analyzer="char",
            ngram_range=(2, 3),
            max_df=0.1 if len(folded) >= _MANY else 1.0,
            lowercase=False,
            sublinear_tf=True,
            dtype=np.float32,
        ).fit_transform([text[:LONGEST] for text in folded])
    except ValueError:
        return  # not one n-gram in them
    for start in range(0, len(folded), _BLOCK):
        near = (rows[start : start + _BLOCK] @ rows.T).tocoo()
        kept = near.data >= least
        found = sorted(
            (int(row) + start, int(column), float(value))
            for row, column, value in zip(near.row[kept], near.col[kept], near.data[kept], strict=True)
        )
        for second, first, value in found:
            if first < second:
                yield Likeness(first, second, value)
