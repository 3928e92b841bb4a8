"""How the lines of a transcript name who speaks: `User: …`, `## Assistant`, `**You**`, `【用户】`, `ChatGPT said:`.

A label has a form, its name and the text after it. The names are the words for the two sides of a talk in several
languages, and those of models; nothing here knows of a program.
"""

from __future__ import annotations

import re
from functools import lru_cache

import msgspec

from engine.core.chat import Role
from engine.memory.importers.fields import RoleMap
from engine.memory.importers.model_names import is_model_name

PLAIN, ALONE, SAID = "", "alone", "said"
"""Forms of a label: `User: …`, a line that is only a name, and `You said:`. Other labels have their signs as form: `##`,
`**`, `【`."""

_GROUPS: dict[tuple[Role, str], str] = {
    (
        Role.USER,
        "person",
    ): "user|human|you|me|i|prompter|用户|使用者|用戶|我|你|您|benutzer|nutzer|ich|du|utilisateur|"
    "utilisatrice|vous|moi|usuario|usuaria|usuário|tú|utente|пользователь|вы|ユーザー|あなた|사용자|나",
    (
        Role.ASSISTANT,
        "person",
    ): "assistant|ai|bot|chatbot|model|ai assistant|assistant ai|助手|助理|机器人|機器人|ai助手|ai 助手|"
    "智能助手|小助手|assistent|assistentin|ki|assistente|asistente|ассистент|アシスタント|어시스턴트",
    (Role.USER, "question"): "question|问|提问|问题|問|提問|問題|frage|pregunta|質問|질문",
    (Role.ASSISTANT, "question"): "answer|答|回答|答案|回复|回覆|antwort|réponse|respuesta|답변",
    (Role.USER, "letter"): "q",
    (Role.ASSISTANT, "letter"): "a",
    (Role.USER, "prompt"): "prompt|user prompt|instruction|提示|提示词|指令",
    (Role.ASSISTANT, "prompt"): "response|completion|reply|响应|回应",
    (
        Role.SYSTEM,
        "system",
    ): "system|system prompt|system message|系统|系統|系统提示|系统提示词|system instruction",
    (Role.TOOL, "tool"): "tool|tools|function|tool result|tool call|工具|工具调用",
}
_NAMES = {name: key for key, names in _GROUPS.items() for name in names.split("|")}
_GENERIC = frozenset(
    [
        "user",
        "human",
        "用户",
        "使用者",
        "用戶",
        "我",
        "you",
        "assistant",
        "ai",
        "bot",
        "chatbot",
        "助手",
        "助理",
        "机器人",
        "機器人",
        "benutzer",
        "nutzer",
        "assistent",
        "utilisateur",
        "usuario",
        "asistente",
        "ユーザー",
        "アシスタント",
        "사용자",
        "어시스턴트",
    ]
)
_COMPATIBLE = {
    "person": ("person", "prompt"),
    "question": ("question", "person"),
    "letter": ("letter",),
    "prompt": ("prompt", "question", "person"),
    SAID: (SAID,),
}
"""Of the group of a user's name, the groups of the assistants' names that answer it."""

_SAID = re.compile(
    r"\A(?:(?:message )?from (?P<from>.{1,40})|来自 ?(?P<cn>.{1,40}?) ?的(?:消息|讯息|信息)|來自 ?(?P<tw>.{1,40}?) ?的(?:訊息|消息)"
    r"|(?P<said>.{1,40}?) (?:said|says|asked|asks|wrote|writes|replied|responded|answered|sagte|hast gesagt|haben gesagt|hat gesagt|"
    r"a dit|as dit|avez dit|dijo|dijiste|ha dicho|disse|disseste|ha detto|hai detto|сказал|сказала|сказали)"
    r"|(?P<shuo>.{1,40}?) ?(?:说|說)|(?P<ja>.{1,40}?)の発言)",
    re.IGNORECASE,
)
_NUMBERED = re.compile(r"\A(?:\d{1,4}[.)、][ \t]*)?(.*?)(?:[ \t]*(?:#[ \t]?)?\d{1,4})?", re.DOTALL)
_WEAK = frozenset(
    [
        "model",
        "me",
        "i",
        "ich",
        "du",
        "tú",
        "tu",
        "vous",
        "moi",
        "вы",
        "나",
        "q",
        "a",
        "答",
        "问",
        "問",
        "ai",
        "ki",
        "bot",
    ]
)
"""Names that a line alone may hold in any text."""
_SIGNS = "\u200d\ufe0f\u2190-\u21ff\u2300-\u23ff\u25a0-\u27bf\u2b00-\u2bff\U0001f000-\U0001faff"
_SIGN = re.compile(rf"[{_SIGNS}]+")
_EDGE = re.compile(rf"^[\s{_SIGNS}*_`]+|[\s{_SIGNS}*_`]+$")
_ASIDE = re.compile(
    r"\s{0,4}[(（\[](?P<aside>[^()（）\[\]]{1,60})[)）\]]$|\s{1,4}[—–|·-]\s{1,4}(?P<after>\d[^\n]{3,40})$"
)
_HEADING = re.compile(r"(\s{0,3})(#{1,6})[ \t]+(.{1,120})|(\s{0,3})(#{1,6})(?=\w)(.{1,60})")
_ASIDE_TEXT = r"(?:[(（\[][^()（）\[\]\n]{1,60}[)）\]])"
_BOLD = re.compile(
    rf"(\s{{0,3}}(?:[-*+] )?)(\*{{1,3}}|__?)(?! )([^*_\n]{{1,80}})\2\s?({_ASIDE_TEXT}?)\s?([:：]?)[ \t]*(.*)",
    re.DOTALL,
)
_BRACKET = re.compile(r"(\s{0,3})([【\[])([^】\]\n]{1,40})[】\]][ \t]*[:：]?[ \t]*(.*)", re.DOTALL)
_STAMPED = re.compile(
    r"\s{0,3}(?:\[(?P<in>[^\]\n]{4,40})\]|(?P<out>\d[\d/.年月日 T:：-]{3,30}\d))[ \t]*[-–]?[ \t]+(?P<rest>[^\d\s].*)",
    re.DOTALL,
)
_COLON = re.compile(
    rf"\A(\s{{0,3}})([^\s:：#>|`*_\[【][^:：\n`|(（]{{0,60}}?[ \t]{{0,4}}{_ASIDE_TEXT}?)[ \t]{{0,8}}([:：])(?!//)[ \t]*(.*)",
    re.DOTALL,
)
_OUTER_COLON = re.compile(rf"(?>{_ASIDE_TEXT}|[^:：]){{0,130}}+([:：])")
_NUMBERS = re.compile(r"\d\D{1,4}\d")
_MAX_ALONE = 48
_MAX_NAME = 130
_DECORATIONS = ("#", "*", "_", "[", "【")


class Label(msgspec.Struct, frozen=True):
    """A line that names a speaker."""

    form: str
    name: str
    """As written, without signs, emphasis, asides and times."""
    role: Role | None
    """None for a name that is not known."""
    group: str
    rest: str
    """The text after the name on the same line."""
    when: str = ""
    """What stands beside the name and may be its time."""

    @property
    def family(self) -> str:
        """The form without the level of a heading: the two sides of a talk may have headings of two levels."""
        return f"{self.form.rstrip('#')}#" if self.form.endswith("#") else self.form

    @property
    def is_weak(self) -> bool:
        """Whether it may be a key of any text, as `Model: T-800` beside `User: root`."""
        return not self.is_decorated and self.name.casefold() == "model"

    @property
    def is_decorated(self) -> bool:
        """Whether the form is more than a word and a colon, which any text may hold."""
        return self.form not in (PLAIN, ALONE)


def may_answer(user: Label, assistant: Label) -> bool:
    """Whether the names of two labels in one form belong to the two sides of a talk."""
    if user.family != assistant.family or "mapped" in (user.group, assistant.group):
        return user.family == assistant.family
    return assistant.group in _COMPATIBLE.get(user.group, ())


def likeness(label: Label, partner: Label) -> tuple[bool, bool, bool]:
    """How much two names look like those of one transcript; the smallest is the best.

    They have one form, are written alike (both in small letters, both in capitals, or neither), and mean any speaker of
    their side.
    """
    name, other = label.name, partner.name
    is_unlike = (name.islower(), name.isupper()) != (other.islower(), other.isupper())
    return (
        label.form != partner.form,
        is_unlike,
        partner.group == "person" and other.casefold() not in _GENERIC,
    )


def parse_label(line: str, role_map: RoleMap, *, names_only: bool = True) -> Label | None:
    """The label at the beginning of a line; None without one.

    With `names_only`, only one whose role is known by its name or by the user's own names.
    """
    head = line[:_MAX_NAME]
    if (
        len(line) > _MAX_ALONE
        and ":" not in head
        and "：" not in head
        and head.lstrip()[:1] not in _DECORATIONS
    ) or not head.strip():
        return None
    found = _decorated(line, role_map) or _plain(line, role_map)
    if found is None or (names_only and found.role is None):
        return None
    return found


def _decorated(line: str, role_map: RoleMap) -> Label | None:
    if heading := _HEADING.fullmatch(line):
        indent, signs, content = heading.group(1, 2, 3) if heading[2] else heading.group(4, 5, 6)
        name, colon, rest = _split_colon(_EDGE.sub("", content))
        if not colon:
            name = name.rstrip("#").rstrip()
        return _known(f"{indent}{signs}", name, rest.removeprefix("**").strip(), role_map)
    bare = line
    if (sign := _SIGN.match(line.lstrip())) is not None:
        bare = line.lstrip()[sign.end() :].lstrip()
    if bold := _BOLD.fullmatch(bare):
        indent, signs, name, aside, colon, rest = bold.groups()
        has_colon = bool(colon) or name.rstrip()[-1:] in (":", "：")
        if not has_colon and rest:
            return None
        return _known(f"{indent}{signs}", name.rstrip().rstrip(":："), rest, role_map, aside)
    if bracket := _BRACKET.fullmatch(bare):
        indent, sign_, name, rest = bracket.groups()
        label = _known(f"{indent}{sign_}", name, rest, role_map)
        if label and label.role:
            return label
    return None


def _plain(line: str, role_map: RoleMap) -> Label | None:
    when = ""
    if stamped := _STAMPED.fullmatch(line):
        when = (stamped["in"] or stamped["out"]).strip()
        line = stamped["rest"]
    bare = _SIGN.sub("", line, count=1).lstrip() if _SIGN.match(line.lstrip()) else line
    if colon := _COLON.fullmatch(bare):
        indent, name, _colon, rest = colon.groups()
        label = _known(f"{indent}{PLAIN}", name, rest, role_map)
        return msgspec.structs.replace(label, when=label.when or when) if label else None
    name = bare.strip()
    if name and len(name) <= _MAX_ALONE and not bare[:1].isspace():
        label = _known(ALONE, name, "", role_map)
        return label if label and label.role else None
    return None


def _split_colon(content: str) -> tuple[str, str, str]:
    """A name, its colon and what follows; a colon in brackets, in a time or before the tag of a model is none."""
    bare = content.rstrip(":：").rstrip()
    after = _ASIDE.search(bare)
    if is_model_name(bare) or (after and after["after"]):
        return bare, ":", ""
    colon = _OUTER_COLON.match(content)
    if colon is None:
        return content, "", ""
    return content[: colon.start(1)].rstrip(), colon[1], content[colon.end() :].strip()


def _known(form: str, written: str, rest: str, role_map: RoleMap, aside: str = "") -> Label | None:
    """The label of a name as written; its role is None when the name is not known."""
    asides = [aside.strip(" ()（）[]")]
    for _aside in range(2):
        written = _EDGE.sub("", written)
        if match := _ASIDE.search(written):
            asides.append((match["aside"] or match["after"]).strip())
            written = written[: match.start()]
    when = next((aside for aside in asides if _NUMBERS.search(aside)), "")
    name = " ".join(written.split())
    if not name:
        return None
    if mapped := role_map.get(name.lower()):
        return Label(form, name, mapped, "mapped", rest, when)
    name, role, group = _speaker(name, form in (PLAIN, ALONE), form == ALONE)
    return Label(_said(form) if group == SAID else form, name, role, group, rest, when)


@lru_cache(4096)
def _speaker(name: str, is_word: bool, is_alone: bool) -> tuple[str, Role | None, str]:
    """A name without its number, its role and its group; is it a word in a line, or a line of its own?"""
    if said := _SAID.fullmatch(name):
        speaker = next(part for part in said.groups() if part)
        known = _NAMES.get(speaker.casefold())
        if known and known[0] is Role.USER:
            return name, Role.USER, SAID
        is_model = is_model_name(speaker) or (known and known[0] is Role.ASSISTANT)
        return name, Role.ASSISTANT if is_model else None, SAID
    key = name.casefold()
    bare = _NUMBERED.fullmatch(key)
    numbered = _NAMES.get(bare[1]) if bare and key not in _NAMES else None
    # `User 1: …` and `User 2: …` may be two people.
    if bare and numbered and (not is_word or numbered[1] in ("letter", "question", "prompt")):
        key, name = bare[1], name[bare.start(1) : bare.end(1)]
    if key in _NAMES and not (is_alone and key in _WEAK):
        return name, *_NAMES[key]
    return (name, Role.ASSISTANT, "person") if is_model_name(name) else (name, None, "")


def _said(form: str) -> str:
    return SAID if form in (PLAIN, ALONE) else form
