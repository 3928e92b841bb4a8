"""What the stages that compare conversations know of each: a few figures and digests, no text."""

from __future__ import annotations

from hashlib import blake2b

import msgspec

from engine.corpus.enums import Action, Stage
from engine.corpus.ledger import Evidence, LedgerRow


class Item(msgspec.Struct, array_like=True):
    """One conversation on its way through the stages. Later stages add rows and may drop it."""

    id: str
    end: float | None
    """Its last time, in seconds since the epoch; None without a date."""
    key: bytes
    """Of its folded words by role: equal for exact duplicates."""
    words: bytes
    """`digest_of` its folded words."""
    opening: bytes
    """`digest_of` its folded first question with content; b"" when too short to tell conversations apart."""
    opening_turn: int
    """Where that question stands."""
    lengths: tuple[int, int]
    """Of the folded words and of the folded question."""
    characters: int
    language: str
    dropped: LedgerRow | None = None
    """The first row that left it out."""
    held: LedgerRow | None = None
    rows: list[LedgerRow] = []
    """Of the stages that compare conversations."""
    cluster: str = ""

    def drop(
        self, stage: Stage, reason: str, *, twin: str | None = None, similarity: float | None = None
    ) -> None:
        """Leaves it out of the corpus; the first stage that does so names it."""
        row = drop_row(self.id, stage, reason, twin=twin, similarity=similarity)
        self.rows.append(row)
        self.dropped = self.dropped or row


def drop_row(
    id_: str, stage: Stage, reason: str, *, twin: str | None = None, similarity: float | None = None
) -> LedgerRow:
    return LedgerRow(
        conversation=id_,
        stage=stage,
        action=Action.DROP,
        reason=reason,
        twin=twin,
        evidence=Evidence(similarity=similarity),
    )


def digest_of(folded: str) -> bytes:
    """16 bytes that stand for a folded text; b"" for none."""
    if not folded:
        return b""
    return blake2b(folded.encode("utf-8", "surrogatepass"), digest_size=16).digest()
