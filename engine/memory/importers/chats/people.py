"""Chats between two people as dialogues: who is the assistant, where a talk ends, and what is left out.

The person that the model shall answer as ("me") is the assistant, the other one the user. A chat is cut where nobody
writes for a while; messages of one person in a row are one turn. Nothing is paired over such a silence, nor between
contacts. Every message is in a turn, joined to one, or counted by the reason why it is left out.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import msgspec

from engine.core.chat import Role
from engine.core.errors import BadInput, UsageProblem
from engine.core.filenames import shell_word
from engine.core.i18n import _
from engine.memory.importers.fields import ImportOptions, omitted_question, parse_role
from engine.memory.records import Conversation, ImportItem, LateAnswers, Recut, Skipped, Turn

NOTICE = "notice of the program"
"""Why a line of the program itself is left out: nobody wrote it."""
WIDER_SILENCE_S = 24 * 3600.0
"""The silence that is offered where answers come later."""
_ME = "\0me"
_DURATION = re.compile(r"(\d{1,6})\s?(s|sec|m|min|h|d)", re.IGNORECASE)
_SECONDS = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_PROGRAM = re.compile(
    r"\b(?:ai|claude|gemini|copilot|llama|kimi)\b|gpt|deepseek|qwen|mistral|豆包|文心|通义|元宝"
)
_NAMES = 6


class PersonMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One row of a chat."""

    sender: str = ""
    """The name as shown; "" for a notice of the program."""
    sender_id: str = ""
    """What stays when the name changes; "" when there is none."""
    is_me: bool | None = None
    """Whether the person who exported the file wrote it; None when the file does not say."""
    text: str = ""
    omitted: str = ""
    """Why the row is left out, a `Skipped.reason`; "" for a row with words."""
    parts: tuple[str, ...] = ()
    """What is left out beside the words, such as an image."""
    time: float | None = None
    """Seconds since the epoch; wall clock times without a zone are read as UTC."""

    @property
    def person(self) -> str:
        """A key of who wrote it."""
        return _ME if self.is_me else self.sender_id or self.sender


class PeopleChat(msgspec.Struct, frozen=True, kw_only=True):
    """The messages with one contact, or of one group."""

    messages: Sequence[PersonMessage]
    contact: str = ""
    """The same in every export of this chat; "": the keys of its people but me."""
    title: str = ""
    is_group: bool = False
    bot: str = ""
    """The key of the other person when it is a program; "" for a person."""


def parse_silence(text: str) -> float:
    """Seconds of a duration such as `30min`, `24h` or `2d`. Raises UsageProblem."""
    match = _DURATION.fullmatch(text.strip())
    if match is None or not int(match[1]):
        raise UsageProblem(
            _("--silence takes a duration such as 30min, 24h or 2d, not {text}").format(text=text)
        )
    return float(int(match[1]) * _SECONDS[match[2].lower()])


def dialogues(
    chats: Iterable[PeopleChat], *, source: str, path: Path, options: ImportOptions
) -> Iterator[ImportItem]:
    """The dialogues of chats, and what is left out. The messages of groups are skipped and counted.

    Raises BadInput, which names the speakers, when neither the file nor `options.me` says who the assistant is, and when
    nobody is called `options.me`.
    """
    strangers: PeopleChat | None = None
    is_found = False
    for chat in chats:
        speakers = _speakers(chat)
        count = len(chat.messages)
        if not count:
            yield Skipped(reason="empty conversation", is_conversation=True)
            continue
        if chat.is_group or len(speakers) > 2:
            yield Skipped(reason="group chat", count=count, is_conversation=True)
            continue
        if len(speakers) < 2:
            yield Skipped(reason="chat with one speaker", count=count, is_conversation=True)
            continue
        if chat.bot and not _is_program(speakers.get(chat.bot, ("", 0))[0]):
            # Most bots answer with menus.
            yield Skipped(reason="chat with a bot", count=count, is_conversation=True)
            continue
        me = _find_me(chat, speakers, options)
        if me is None and not options.me:
            raise _unknown_me(chat, speakers, path)
        if me is None:
            strangers = strangers or chat
            yield Skipped(reason="chat without the person of --me", count=count, is_conversation=True)
            continue
        is_found = True
        yield from _chat_items(chat, me, speakers, source, options.silence_s)
    if strangers is not None and not is_found:
        raise _unknown_me(strangers, _speakers(strangers), path, options.me)


def _speakers(chat: PeopleChat) -> dict[str, tuple[str, int]]:
    """The name and the number of messages with words of each person."""
    speakers: dict[str, tuple[str, int]] = {}
    for message in chat.messages:
        if message.person and not message.omitted:
            name, count = speakers.get(message.person, (message.sender, 0))
            speakers[message.person] = (name or message.sender, count + 1)
    return speakers


def _find_me(chat: PeopleChat, speakers: dict[str, tuple[str, int]], options: ImportOptions) -> str | None:
    """The person who is the assistant: by name, by the file, or as the only known program of the two.

    None when a name is given that neither has, whatever the file says: a mistyped name would swap the roles.
    """
    name = _folded(options.me)
    named = [key for key in speakers if name and name in _names(chat, key)]
    if name and not named:
        return None
    if chat.bot:
        return chat.bot
    mapped = [
        key for key, (shown, _n) in speakers.items() if options.roles.get(_folded(shown)) is Role.ASSISTANT
    ]
    for found in (named, mapped):
        if len(found) == 1:
            return found[0]
    if _ME in speakers:
        return _ME
    others = {message.person for message in chat.messages if message.is_me is False}
    mine = [key for key in speakers if key not in others]
    if len(mine) == 1:
        return mine[0]
    programs = [key for key, (shown, _n) in speakers.items() if _is_program(shown)]
    return programs[0] if len(programs) == 1 else None


def _names(chat: PeopleChat, person: str) -> set[str]:
    """The names and ids that a person has in a chat, as they are compared."""
    rows = [message for message in chat.messages if message.person == person]
    return {_folded(name) for row in rows for name in (row.sender, row.sender_id) if name}


def _is_program(name: str) -> bool:
    """Whether the name is one of a language model."""
    return parse_role(name, {}) is Role.ASSISTANT or bool(_PROGRAM.search(_folded(name)))


def _folded(name: str) -> str:
    visible = "".join(sign for sign in name if unicodedata.category(sign) != "Cf")
    return unicodedata.normalize("NFKC", visible).casefold().strip()


def _unknown_me(chat: PeopleChat, speakers: dict[str, tuple[str, int]], path: Path, me: str = "") -> BadInput:
    shown = {
        key: name or (_("the owner of the file") if key == _ME else key)
        for key, (name, _n) in speakers.items()
    }
    listed = _(", ").join(f"{shown[key]} ({speakers[key][1]})" for key in list(speakers)[:_NAMES])
    is_known = _find_me(chat, speakers, ImportOptions()) is not None
    # The other person gives a chat its title, and its file the name.
    names = [shown[key] for key in speakers]
    suggestion = next((name for name in names if name != chat.title and name not in path.name), names[0])
    option = "" if is_known else f"--me {shell_word(suggestion)} "
    hint = f"h2q-tui memory import {option}{shell_word(path)}"
    if me:
        message = _("Nobody here is called {name}; the speakers are {speakers}").format(
            name=me, speakers=listed
        )
    else:
        message = _("The file does not say who of the speakers you are: {speakers}").format(speakers=listed)
    return BadInput(message, path=path, hint=hint)


class _Block(msgspec.Struct):
    """Messages of one person in a row."""

    is_me: bool
    messages: list[PersonMessage]
    """Those with words."""

    def turn(self) -> Turn:
        time = self.messages[0].time if self.messages else None
        if not self.messages:
            return omitted_question(time)
        text = "\n".join(message.text for message in self.messages)
        return Turn(role=Role.ASSISTANT if self.is_me else Role.USER, text=text, time=time)


def _chat_items(
    chat: PeopleChat, me: str, speakers: dict[str, tuple[str, int]], source: str, silence_s: float
) -> Iterator[ImportItem]:
    other = next(key for key in speakers if key != me)
    # Whoever is the assistant: the chat stays the same.
    contact = chat.contact or " + ".join(sorted(speakers.keys() - {_ME}))
    ordered = _by_time(chat.messages)
    skipped: list[Skipped] = []
    talks: list[Conversation] = []
    for place, rows in enumerate(_cut(ordered, silence_s)):
        skipped += _left_out(rows)
        blocks = _blocks(rows, me)
        kept = _answered(blocks)
        skipped += _dropped(blocks[len(kept) :] if kept else blocks)
        joined = sum(max(0, len(block.messages) - 1) for block in kept)
        if joined:
            skipped.append(Skipped(reason="message joined to the one before", count=joined))
        if kept:
            began = next((row.time for row in rows if row.person and row.time is not None), None)
            last = kept[-1].messages[-1].time
            talks.append(
                Conversation.of(
                    _turns(kept),
                    source=source,
                    external_id=f"{contact}#{place if began is None else int(began)}",
                    title=chat.title or speakers[other][0],
                    started_at=began,
                    updated_at=last,
                )
            )
    times = [message.time for message in ordered if message.time is not None]
    if times and talks:
        forms = tuple((talk.id, talk.started_at or 0.0, talk.updated_at or 0.0) for talk in talks)
        yield Recut(
            source=source,
            contact=contact,
            start=times[0],
            end=times[-1],
            forms=forms,
            moments=frozenset(times),
        )
    yield from skipped
    yield from talks
    if silence_s < WIDER_SILENCE_S:
        more = _pairs(ordered, me, WIDER_SILENCE_S) - _pairs(ordered, me, silence_s)
        if more > 0:
            yield LateAnswers(count=more)


def _by_time(messages: Sequence[PersonMessage]) -> list[PersonMessage]:
    """The messages by time; one without a time stays behind the one before it."""
    moments = []
    moment = float("-inf")
    for message in messages:
        moment = message.time if message.time is not None else moment
        moments.append(moment)
    return [messages[place] for place in sorted(range(len(messages)), key=moments.__getitem__)]


def _cut(messages: Sequence[PersonMessage], silence_s: float) -> Iterator[list[PersonMessage]]:
    """The messages between silences. Notices of the program do not end a silence."""
    rows: list[PersonMessage] = []
    last: float | None = None
    for message in messages:
        speaks = bool(message.person) and message.omitted != NOTICE
        if speaks and message.time is not None:
            if rows and last is not None and message.time - last > silence_s:
                yield rows
                rows = []
            last = message.time
        rows.append(message)
    if rows:
        yield rows


def _left_out(rows: Sequence[PersonMessage]) -> list[Skipped]:
    reasons = [reason for row in rows for reason in (row.omitted, *row.parts) if reason]
    return [Skipped(reason=reason) for reason in reasons]


def _blocks(rows: Sequence[PersonMessage], me: str) -> list[_Block]:
    """What each of the two says in turn. A question without words, such as an image, keeps its place; an answer does not."""
    blocks: list[_Block] = []
    for row in rows:
        if not row.person or row.omitted == NOTICE:
            continue
        is_me = row.person == me
        if row.omitted and is_me:
            continue
        if not blocks or blocks[-1].is_me != is_me:
            blocks.append(_Block(is_me, []))
        if not row.omitted:
            blocks[-1].messages.append(row)
    return blocks


def _answered(blocks: list[_Block]) -> list[_Block]:
    """The blocks up to the last answer; nothing when no question with words is answered."""
    end = len(blocks)
    while end and not blocks[end - 1].is_me:
        end -= 1
    is_answered = any(not block.is_me and block.messages for block in blocks[:end])
    return blocks[:end] if is_answered else []


def _dropped(blocks: Sequence[_Block]) -> Iterator[Skipped]:
    for is_me, reason in ((False, "message without an answer"), (True, "message that answers nothing")):
        count = sum(len(block.messages) for block in blocks if block.is_me is is_me)
        if count:
            yield Skipped(reason=reason, count=count)


def _turns(blocks: Sequence[_Block]) -> list[Turn]:
    """The turns. What opens a talk answers nothing, so it is excluded from training."""
    turns = [block.turn() for block in blocks]
    if blocks[0].is_me:
        turns[0] = msgspec.structs.replace(turns[0], masked=True)
    return turns


def _pairs(messages: Sequence[PersonMessage], me: str, silence_s: float) -> int:
    """How many questions with words have an answer."""
    pairs = 0
    for rows in _cut(messages, silence_s):
        blocks = _blocks(rows, me)
        pairs += sum(bool(not one.is_me and one.messages and two.is_me) for one, two in pairwise(blocks))
    return pairs
