"""Field parsers that the importers share: roles, times, ids, typed content parts, and reasoning inside answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from engine.core.chat import Role
from engine.core.errors import UsageProblem
from engine.core.i18n import _
from engine.memory.importers.model_names import is_model_name
from engine.memory.importers.reasoning import without_reasoning
from engine.memory.importers.times import parse_time as parse_time
from engine.memory.records import Conversation, Skipped, Turn

RoleMap = Mapping[str, Role]
"""The user's own speaker names (`--map 客服=assistant`), in lower case."""


class ImportOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The user's choices for an import, the same for every file of it."""

    roles: RoleMap = {}
    """Roles of speakers that the importers do not know."""
    me: str = ""
    """Who of two people is the assistant, by name or id; "" where the files say who exported them."""
    silence_s: float = 3600.0
    """Seconds without a message that end a dialogue of two people."""


_ROLES: dict[str, Role] = {
    **dict.fromkeys(("user", "human", "prompter", "prompt", "question", "用户", "提问"), Role.USER),
    **dict.fromkeys(("assistant", "bot", "chatbot", "model", "ai", "response", "answer"), Role.ASSISTANT),
    **dict.fromkeys(("助手", "助理", "回答", "gpt", "chatgpt", "bing", "bard", "claude"), Role.ASSISTANT),
    **dict.fromkeys(("gemini", "copilot", "grok", "deepseek", "qwen", "kimi", "mistral"), Role.ASSISTANT),
    **dict.fromkeys(("system", "developer", "系统"), Role.SYSTEM),
    **dict.fromkeys(("tool", "function", "function_call", "observation"), Role.TOOL),
}


def parse_role_map(names: Mapping[str, str]) -> dict[str, Role]:
    """The values of `--map`. Raises UsageProblem for an unknown role."""
    roles = {}
    for name, role in names.items():
        if role not in list(Role):
            raise UsageProblem(
                _("--map {name}={role}: a role is one of {roles}").format(
                    name=name, role=role, roles=_(", ").join(Role)
                )
            )
        roles[name.strip().lower()] = Role(role)
    return roles


def parse_role(name: object, role_map: RoleMap) -> Role | None:
    """The role of a speaker name; None when it is unknown."""
    if not isinstance(name, str):
        return None
    key = name.strip().lower()
    if role := role_map.get(key) or _ROLES.get(key):
        return role
    return Role.ASSISTANT if is_model_name(key) else None


def are_roles(names: Iterable[str]) -> bool:
    """Whether the names of all speakers are those of a user and a model, as in a talk with one: `User` and `GPT-4`."""
    roles = {parse_role(name, {}) for name in names}
    return None not in roles and {Role.USER, Role.ASSISTANT} <= roles


def unknown_role(name: object) -> Skipped:
    """A message whose role is not guessed; the user can name it with `--map`."""
    return Skipped(reason=f"unknown role: {name[:40]}" if isinstance(name, str) else "message without a role")


def text_or_empty(value: object) -> str:
    """An id or a title: strings up to 500 characters, integers as digits, anything else empty."""
    if isinstance(value, str):
        return value[:500]
    return (
        str(value) if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**18 else ""
    )


_TOOL_PARTS = frozenset(
    ("tool_use", "tool_result", "tool-call", "tool_call", "tool", "toolCallRequest", "toolCallResult")
)
_REASONING_PARTS = frozenset(("thinking", "reasoning", "redacted_thinking"))


def parse_content(content: object) -> tuple[str, list[Skipped]]:
    """The text of a string or of a list of typed parts, and the parts that are no text. Untyped parts are text."""
    if content is None or isinstance(content, str):
        return content or "", []
    if not isinstance(content, list):
        return "", [Skipped(reason="message of another shape")]
    texts: list[str] = []
    skipped = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        text = part.get("text") if isinstance(part, dict) else None
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict) and part.get("thought") is True:
            skipped.append(Skipped(reason="reasoning"))
        elif kind in (None, "text", "input_text", "output_text") and isinstance(text, str):
            texts.append(text)
        else:
            skipped.append(Skipped(reason=skip_reason(kind)))
    return "\n".join(text for text in texts if text), skipped


def skip_reason(kind: object) -> str:
    """The `Skipped.reason` of a content part by its type."""
    if not isinstance(kind, str):
        return "attachment"
    if kind in _REASONING_PARTS:
        return "reasoning"
    if kind in _TOOL_PARTS:
        return "tool message"
    return "image" if "image" in kind else "attachment"


def skip_attached(value: object, reason: str = "attachment") -> list[Skipped]:
    """The `Skipped` of a message field that lists files, links or images."""
    return [Skipped(reason=reason, count=len(value))] if isinstance(value, list) and value else []


def strip_reasoning(text: str, role: Role) -> tuple[str, tuple[Skipped, ...]]:
    """An assistant's text without its reasoning and folded tool calls; other roles unchanged."""
    if role is not Role.ASSISTANT:
        return text, ()
    clean, removed = without_reasoning(text)
    return clean, tuple(Skipped(reason=reason) for reason in removed)


def omitted_question(time: float | None = None, external_id: str = "") -> Turn:
    """The place of a user's message of which nothing could be imported, such as an image alone.

    To be yielded where that message stood, besides its `Skipped`: the answer after it is not trained on, nor taken
    for the answer to an earlier question.
    """
    return Turn(role=Role.USER, text="", time=time, external_id=external_id)


def message_turn(
    role: Role,
    text: str,
    skipped: Iterable[Skipped] = (),
    *,
    time: float | None = None,
    external_id: str = "",
    reason: str = "empty message",
) -> tuple[Turn | None, list[Skipped]]:
    """The turn of a message, without its reasoning, and what is skipped of it.

    Without any text it is skipped: `reason`, where nothing else was. A question keeps its place (`omitted_question`).
    """
    text, stripped = strip_reasoning(text, role)
    left_out = [*skipped, *stripped]
    if text.strip():
        return Turn(role=role, text=text, time=time, external_id=external_id), left_out
    left_out = left_out or [Skipped(reason=reason)]
    if role is not Role.USER:
        return None, left_out
    return omitted_question(time, external_id), left_out


def build_conversation(
    items: Iterable[Turn | Skipped],
    *,
    source: str,
    external_id: str = "",
    title: str = "",
    started_at: float | None = None,
    updated_at: float | None = None,
) -> Iterator[Conversation | Skipped]:
    """What was skipped in a conversation, then the conversation; one without user and assistant turns is skipped.

    A turn of blanks is skipped; a question keeps its place. Empty turns at the end are dropped.
    """
    turns = []
    for item in items:
        if isinstance(item, Skipped):
            yield item
        elif not item.text or not item.is_empty:
            turns.append(item)
        else:
            yield Skipped(reason="empty message")
            if item.role is Role.USER:
                turns.append(omitted_question(item.time, item.external_id))
    while turns and turns[-1].is_empty:
        turns.pop()
    if not any(turn.role in (Role.USER, Role.ASSISTANT) and not turn.is_empty for turn in turns):
        yield Skipped(reason="empty conversation", is_conversation=True)
        return
    yield Conversation.of(
        turns,
        source=source,
        external_id=external_id,
        title=title,
        started_at=started_at,
        updated_at=updated_at,
    )
