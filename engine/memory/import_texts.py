"""What a file or folder holds for an import, and what an import took, as values and as sentences. Light: the app imports it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

import msgspec

from engine.core.i18n import _, bracketed, n_

MAX_NAMES = 5
"""Files that a sentence names."""


class PreviewFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that would be imported."""

    name: str
    """Inside the folder or archive."""
    format: str
    bytes: int
    conversations: int
    """Those that were counted."""
    turns: int
    """In them."""
    complete: bool
    """Whether the file was read to its end."""
    problem: str = ""
    """Why it cannot be read, or not to its end."""


class ImportPreview(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON of `memory import --dry-run`."""

    files: list[PreviewFile]
    unread: list[str]
    """Files that cannot be read, each with its reason."""
    others: int
    """Files of other kinds, which are left out."""
    complete: bool
    """Whether all files were looked at."""


def preview_lines(preview: ImportPreview) -> Iterator[str]:
    """The preview for a terminal: a sentence, then one line for each file."""
    yield preview_sentence(preview)
    for file in preview.files:
        yield f"  {file.name}  {file.format}  {count_text(file)}" + (
            f"  {file.problem}" if file.problem else ""
        )
    yield from (f"  {line}" for line in preview.unread)


def preview_sentence(preview: ImportPreview) -> str:
    """ "704 conversations in 3 files; 2 files of another kind are left out"."""
    conversations = sum(file.conversations for file in preview.files)
    exact = preview.complete and all(file.complete or file.problem for file in preview.files)
    found = n_("{n} conversation", "{n} conversations", conversations).format(n=f"{conversations:,}")
    if not exact:
        found = _("at least {found}").format(found=found)
    files = n_("{n} file", "{n} files", len(preview.files)).format(n=f"{len(preview.files):,}")
    text = _("{conversations} in {files}").format(conversations=found, files=files)
    if preview.others:
        left = n_(
            "{n} file of another kind is left out", "{n} files of another kind are left out", preview.others
        )
        text = _("{text}; {more}").format(text=text, more=left.format(n=f"{preview.others:,}"))
    if preview.unread:
        left = n_("{n} file cannot be read", "{n} files cannot be read", len(preview.unread))
        text = _("{text}; {more}").format(text=text, more=left.format(n=f"{len(preview.unread):,}"))
    return text


def count_text(file: PreviewFile) -> str:
    """ "300 conversations (5,012 turns)"."""
    found = n_("{n} conversation", "{n} conversations", file.conversations).format(
        n=f"{file.conversations:,}"
    )
    if not file.complete and not file.problem:
        return _("at least {found}").format(found=found) if file.conversations else _("not counted")
    turns = n_("{n} turn", "{n} turns", file.turns).format(n=f"{file.turns:,}")
    return bracketed(found, turns)


def taken_text(files: Sequence[tuple[str, int]]) -> str:
    """ "3 files: crosswoz.jsonl 300, oasst_zh_alpaca.json 402, chat.json 2" for the paths of files and the conversations in
    each; the largest ones where there are many."""
    most = sorted(files, key=lambda file: -file[1])[:MAX_NAMES]
    names = [f"{PurePosixPath(path).name} {count:,}" for path, count in most]
    if len(files) > len(most):
        names.append("…")
    text = n_("{n} file: {names}", "{n} files: {names}", len(files))
    return text.format(n=f"{len(files):,}", names=_(", ").join(names))
