"""What the filters say of a turn that the person wrote anew, before the next build looks at the corpus.

Review, preview and dataset share it: what is shown is what would be trained on.
"""

from __future__ import annotations

from typing import NamedTuple

from engine.corpus.filters import low_value, pii, prompt_injection


class Look(NamedTuple):
    """One turn by itself."""

    spans: list[tuple[str, int, int]]
    """Private spans (type, start, end), in code points; they are redacted."""
    markers: list[tuple[str, int, int]]
    """Text that could act on the template."""
    masked: str
    """Reason code when it would bear no loss, else ""."""
    score: float


def look(role: str, text: str, question: str = "") -> Look:
    """`question` is the turn of the person that an answer follows."""
    judged = low_value.judge_in_context(text, question) if role == "assistant" else low_value.judge(text)
    low = judged.low and role in ("user", "assistant")
    return Look(
        spans=[(span.type.value, span.start, span.end) for span in pii.find(text)],
        markers=list(prompt_injection.find(text)),
        masked=judged.kind.value if low else "",
        score=judged.score,
    )
