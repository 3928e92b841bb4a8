"""What is said before anything leaves this machine, in the command line and in the app. Imports nothing heavy."""

from __future__ import annotations

from engine.core.i18n import _, n_
from engine.hive.outgoing import OutgoingAdapter


def size_text(size: float) -> str:
    """Bytes as people read them: "812 B", "12 KB", "34.5 MB"."""
    if size < 1000:
        return f"{size:.0f} B"
    if size < 1e6:
        return f"{size / 1e3:.0f} KB"
    return f"{size / 1e6:.1f} MB" if size < 1e9 else f"{size / 1e9:.2f} GB"


def leaving_lines(
    adapter: OutgoingAdapter, place: str, *, sender: str = "", hash_length: int = 64
) -> list[str]:
    """What leaves, line by line: files with sizes and hashes, the figures with them, where they go, and what does not.

    `sender` is the name that the place knows this person by, "" when it is not known; `hash_length` is how many digits of
    a hash are shown.
    """
    lines = [_("this leaves the machine, and nothing else:")]
    lines += [
        f"  {file.name:<27} {size_text(file.bytes):>9}  sha256 {file.sha256[:hash_length]}"
        for file in adapter.files
    ]
    count = n_(
        "that it was trained on {n} conversation", "that it was trained on {n} conversations", adapter.samples
    )
    lines += [
        "  " + count.format(n=adapter.samples),
        "  "
        + _("the base: {name}, fingerprint {fingerprint}").format(
            name=adapter.base_model, fingerprint=adapter.base_fingerprint[:16] or "?"
        ),
        "  "
        + (
            _("to: {place}, as {sender}").format(place=place, sender=sender)
            if sender
            else _("to: {place}").format(place=place)
        ),
        _("No conversation is sent. An adapter can still hold traces of what it learnt from."),
    ]
    return lines


def share_question(adapter: OutgoingAdapter, place: str) -> str:
    """The one question before an upload."""
    total = sum(file.bytes for file in adapter.files)
    return _("Share {name} ({size}) with {place}?").format(
        name=adapter.name, size=size_text(total), place=place
    )
