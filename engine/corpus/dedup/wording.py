"""Words of the grammar and of manner: in a long text another one of them says nothing else.

Each table holds words of one kind that stand for each other in the same place. None of them counts, denies, compares or names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from engine.corpus.dedup.alignment import Difference

MIN_WORDS = 40
"""Words, or Chinese characters, from which a text may differ in several words of the grammar."""
_SHARE = 0.05
"""Share of its words."""
MIN_PHRASED = 20
"""Words, or Chinese characters, from which phrases stand for each other, and one word of the grammar may differ."""

_REST = r"(?=\W+\w+\W+\w)"
"""Not at the end of a text, where a template has its word."""
_PHRASES_EN = {
    "again": "once more|once again|one more time|yet again|again",
    "": "step by step|in (?:more |great |full )?detail|in short|as well(?! as)|of course|in fact|as a matter of fact|as you know|"
    "in general|on the whole|to be honest|basically|essentially|indeed",
    "for example": r"for instance|e\.g\.,?|for example",
    "to": "in order to|so as to",
    "because of": "due to|owing to|on account of|because of",
    "about": "with regard to|with respect to|in regard to|concerning|regarding",
    "many": "a lot of|lots of|plenty of|a large number of",
    "immediately": "right away|straight away|at once|immediately|instantly",
    "now": "at the moment|at present|nowadays|these days|currently",
    "maybe": "perhaps|possibly|maybe",
    "finally": "at last|in the end|eventually|lastly|finally",
    "besides": "in addition|moreover|furthermore|additionally|what is more|besides",
    "instead of": "in place of|rather than|instead of",
    "although": "even though|although|though",
}
"""By the words that stand for them."""
_PHRASES_ZH = {
    "少许": "一点儿|一点|些许|少量|少许",
    "": "详细地|详细的|详细|一步一步地?|一步步地?|逐步地?|其实|事实上|实际上|总的来说|一般来说|简单地说",
    "可": "就可以|即可|便可|就能|就行",
    "如果": "若是|要是|假如|倘若|如若|如果",
    "因为": "由于|因为",
    "所以": "因此|因而|所以",
    "但是": "但是|但|不过|可是|然而",
    "然后": "接着|随后|接下来|然后",
    "最后": "最终|最后",
    "很": "十分|特别|相当|非常|很",
    "并": "并且|而且",
    "例如": "比如说?|譬如|诸如|例如",
    "怎么": "怎么样|怎样|如何|怎么",
    "为何": "为什么|为何",
    "应该": "应当|应该",
    "已": "已经",
    "也许": "或许|可能|也许",
    "或": "或者|或是",
    "这样": "如此|这么|这样",
    "和": "以及|与|及|跟",
    "需": "需要",
    "立刻": "马上|立即|立刻",
    "常": "常常|经常|时常",
    "时": "的时候|时候",
}
_AFTER_VERB = re.compile("(?<=[\u4e00-\u9fff]{2})一下(?!子|午)")
_EN = [(re.compile(rf"\b(?:{many})\b{_REST}", re.IGNORECASE), word) for word, many in _PHRASES_EN.items()]
_ZH = [(re.compile(rf"(?:{many})(?=\W{{0,3}}\w\W{{0,3}}\w)"), word) for word, many in _PHRASES_ZH.items()]
_CHINESE = re.compile("[\u4e00-\u9fff]")

_INSERTED = frozenset(
    ["then", "so", "well", "simply", "really", "actually", "quite", "that", "also", "very", "thus", "therefore", "hence", "and"]
)  # fmt: skip
"""English words of the grammar that may stand or be left out."""
_INSERTED_ZH = frozenset("就还也便又很并而且了")
_KINDS = [
    "become turn", "becomes turns", "became turned", "becoming turning",
    "begin start commence", "begins starts commences", "began started commenced", "beginning starting",
    "end finish", "ends finishes", "ended finished", "help assist aid", "helps assists", "helped assisted", "helping assisting",
    "buy purchase", "buys purchases", "bought purchased", "buying purchasing", "use utilize employ", "uses utilizes employs",
    "used utilized employed", "using utilizing employing", "need require", "needs requires", "needed required",
    "show demonstrate", "shows demonstrates", "showed demonstrated", "big large", "bigger larger", "biggest largest",
    "quick fast rapid", "quickly rapidly swiftly", "answer reply", "nearly almost", "often frequently", "usually normally generally typically",
    "approximately roughly about around", "enough sufficient", "but however yet", "so therefore thus hence consequently", "also too additionally",
    "quite rather fairly", "very extremely highly really", "which that", "who that", "upon on", "among between", "since because as", "while whereas",
    "choose select pick", "happen occur", "happens occurs", "happened occurred", "keep retain", "keeps retains", "gather collect",
    "afterward later then", "nice pleasant", "difficult hard", "easy simple", "each every",
    "anybody anyone", "everybody everyone", "somebody someone", "shall will", "this the", "these those the", "a the", "its the", "your the",
    "create make", "creates makes", "created made", "ensure make", "permit allow let", "permits allows lets", "get obtain receive", "gets obtains receives",
]  # fmt: skip
_GROUPS: dict[str, set[int]] = {}
for _number, _kind in enumerate(_KINDS):
    for _word in _kind.split():
        _GROUPS.setdefault(_word, set()).add(_number)


def without_phrases(prose: str) -> str:
    """Prose with one phrase for all that say the same, and none of manner ("step by step")."""
    if not prose.isascii() and _CHINESE.search(prose):
        prose = _AFTER_VERB.sub("", prose)
        for pattern, word in _ZH:
            prose = pattern.sub(word, prose)
    if prose.count(" ") > 2:
        for pattern, word in _EN:
            prose = pattern.sub(word, prose)
    return prose


def allowed_edits(length: int) -> int:
    """Words of the grammar in which a text of this many words may differ."""
    return max(2, int(_SHARE * length)) if length >= MIN_WORDS else int(length >= MIN_PHRASED)


def is_of_grammar(found: Difference, one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether keys differ in words of the grammar alone, or in words that are used for each other. Not at the end."""
    if found.end == len(one) or found.other_end == len(other):
        return False
    here, there = one[found.start : found.end], other[found.other_start : found.other_end]
    if len(here) == len(there) == 1:
        return bool(_GROUPS.get(here[0], set()) & _GROUPS.get(there[0], set()))
    if here and there:
        return False
    changed = [*here, *there]
    return _INSERTED.issuperset(changed) or _INSERTED_ZH.issuperset(changed)
