"""The chats of a workspace: one private JSON file each in `chats/`, written atomically and durably.

Every function blocks. A file that was removed or shortened by `memory forget` stays so: `save` drops from the record
what it had written before and no longer finds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from engine.chats.record import STOPPED, ChatExchange, ChatRecord
from engine.core.errors import BadInput
from engine.core.files import fsync_dir, write_bytes
from engine.core.i18n import _
from engine.core.paths import Workspace
from engine.memory.search import fold

_EXCERPT = 60
_TELLING = 8
"""Characters from which a text tells by itself what was said."""
_DECODER = msgspec.json.Decoder(ChatRecord)


@dataclass(frozen=True)
class ChatSummary:
    """A row of the history."""

    id: str
    title: str
    updated_at: float
    model: str
    """The model that answered last."""
    exchanges: int
    excerpt: str = ""
    """The place that was searched for, "" without a search."""


def chats_folder(workspace: Workspace) -> Path:
    return workspace.root / "chats"


def _path(workspace: Workspace, chat: str) -> Path:
    return chats_folder(workspace) / f"{chat}.json"


class ChatStore:
    """Reads and writes the chats of one workspace, and knows which exchanges it has written."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._written: dict[str, set[str]] = {}
        """Ids of the exchanges in the file of each chat, when this object read or wrote it last."""

    def save(self, record: ChatRecord, now: float) -> bool:
        """Writes a chat that has an exchange. Exchanges that were erased from its file meanwhile leave `record` too.

        Returns whether any did. Raises OSError.
        """
        before = len(record.exchanges)
        written = self._written.get(record.id, set())
        present = {exchange.id for exchange in self._stored(record.id)} if written else set()
        record.exchanges[:] = [one for one in record.exchanges if one.id not in written or one.id in present]
        self._written[record.id] = {exchange.id for exchange in record.exchanges}
        erased = len(record.exchanges) < before
        if not record.exchanges:
            return erased
        record.updated_at = now
        folder = chats_folder(self._workspace)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_bytes(_path(self._workspace, record.id), encode_chat(record), mode=0o600)
        return erased

    def _stored(self, chat: str) -> list[ChatExchange]:
        try:
            return read_chat(_path(self._workspace, chat)).exchanges
        except (OSError, BadInput):
            return []

    def load(self, chat: str) -> ChatRecord:
        """Raises BadInput when the file is gone or damaged."""
        try:
            record = read_chat(_path(self._workspace, chat))
        except OSError as problem:
            raise BadInput(
                _("the chat cannot be read ({reason})").format(reason=problem.strerror or str(problem)),
                path=_path(self._workspace, chat),
            ) from None
        self._written[record.id] = {exchange.id for exchange in record.exchanges}
        return record

    def delete(self, chat: str) -> None:
        """Deletes a chat durably. Raises OSError."""
        _path(self._workspace, chat).unlink(missing_ok=True)
        self._written.pop(chat, None)
        if chats_folder(self._workspace).is_dir():
            fsync_dir(chats_folder(self._workspace))


def encode_chat(record: ChatRecord) -> bytes:
    """The JSON of the file."""
    return msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n"


def read_chat(path: Path) -> ChatRecord:
    """Raises OSError, BadInput when the file is no chat."""
    try:
        record = _DECODER.decode(path.read_bytes())
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise BadInput(_("this file is not a chat"), path=path) from None
    # A copy of a file is a chat of its own.
    record.id = path.stem
    for exchange in record.exchanges:
        _repair(exchange)
    return record


def _repair(exchange: ChatExchange) -> None:
    """Drops what points to versions that are not there, and ends answers within which the app was killed."""
    versions = range(len(exchange.answers))
    if exchange.pair is not None and not set(exchange.pair) <= set(versions):
        exchange.pair = None
    if exchange.kept not in versions:
        exchange.kept = None
    exchange.votes = [vote for vote in exchange.votes if vote.left in versions and vote.right in versions]
    exchange.shown = max(0, min(exchange.shown, len(versions) - 1))
    for answer in exchange.answers:
        answer.finish = answer.finish or STOPPED


def read_chats(workspace: Workspace) -> Iterator[ChatRecord]:
    """All chats that can be read."""
    for path in sorted(chats_folder(workspace).glob("*.json")):
        try:
            yield read_chat(path)
        except (OSError, BadInput):
            continue


def count_chats(workspace: Workspace) -> int:
    """Number of files of chats; none is read."""
    return sum(1 for _path in chats_folder(workspace).glob("*.json"))


def find_chats(workspace: Workspace, text: str = "") -> list[ChatSummary]:
    """The chats in which every word of `text` stands, the newest first; case and width of letters do not count."""
    words = fold(text).split()
    found = []
    for record in read_chats(workspace):
        texts = [part for one in record.exchanges for part in (one.question, *(a.text for a in one.answers))]
        if record.exchanges and (summary := _summary(record, texts, words)) is not None:
            found.append(summary)
    return sorted(found, key=lambda summary: summary.updated_at, reverse=True)


def _summary(record: ChatRecord, texts: list[str], words: list[str]) -> ChatSummary | None:
    excerpt = ""
    if words:
        folded = [fold(text) for text in texts]
        if not all(any(word in text for text in folded) for word in words):
            return None
        excerpt = next(_around(text, word) for word in words for text in folded if word in text)
    answers = [one.answer for one in record.exchanges if one.answer is not None]
    return ChatSummary(
        record.id,
        record.title,
        record.updated_at,
        answers[-1].model if answers else record.model,
        len(record.exchanges),
        excerpt,
    )


def _around(text: str, word: str) -> str:
    at = text.find(word)
    start = max(0, at - _EXCERPT // 3)
    cut = " ".join(text[start : start + _EXCERPT].split())
    return f"{'…' if start else ''}{cut}"


def erase_from_chats(workspace: Workspace, quotes: Callable[[str], bool]) -> list[Path]:
    """Removes the exchanges in which `quotes` is true of a text; returns the files that changed. Raises OSError.

    A chat of which no exchange is left is deleted, and so is a file that cannot be read as a chat and quotes one.
    """
    changed = []
    for path in sorted(chats_folder(workspace).glob("*.json")):
        try:
            record = read_chat(path)
        except BadInput:
            if quotes(path.read_text(errors="replace")):
                path.unlink()
                changed.append(path)
            continue
        kept = [one for one in record.exchanges if not _quoted(one, quotes)]
        system = "" if quotes(record.system) else record.system
        if len(kept) == len(record.exchanges) and system == record.system:
            continue
        record.exchanges, record.system = kept, system
        changed.append(path)
        if kept:
            write_bytes(path, encode_chat(record), mode=0o600)
        else:
            path.unlink()
    if changed:
        fsync_dir(chats_folder(workspace))
    return changed


def _quoted(exchange: ChatExchange, quotes: Callable[[str], bool]) -> bool:
    """A few characters ("yes") count only where question and answer both quote."""
    texts = [exchange.question, *(answer.text for answer in exchange.answers)]
    if any(len(text) >= _TELLING and quotes(text) for text in texts):
        return True
    return quotes(exchange.question) and any(quotes(answer.text) for answer in exchange.answers)
