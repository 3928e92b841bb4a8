"""What is said for the sake of good manners at the start and the end of a text, in English and Chinese."""

from __future__ import annotations

import re

_TAIL = 240
"""Characters at the end of a text in which thanks are looked for."""
_MIN_LETTERS = 60
"""Letters of the rest (a Chinese character counts for two) from which "Sure!" is manners and not the answer."""

_GREETING = (
    r"hello(?: there)?|hi(?: there)?|hey|good (?:morning|afternoon|evening)|"
    r"thank you(?: (?:very|so) much)?|thanks(?: a lot| in advance| again)?|many thanks|cheers|"
    r"(?:you are|you['’]re) welcome|no problem|have a (?:nice|good|great) day|"
    r"你好|您好|请问(?:一下)?|早上好|下午好|晚上好|大家好|谢谢(?:你|您|大家)?(?:了|啦)?|多谢|感谢|麻烦(?:你|您)?了?|好的|嗯|哈喽|嗨|"
    r"不客气|祝(?:你|您)(?:愉快|顺利|生活愉快)|对吧|就这样"
)
_OPENER = (
    r"sure(?: thing)?|of course|certainly|absolutely|definitely|gladly|with pleasure|okay|ok|all ?right|got it|understood|"
    r"(?:that(?: is|['’]s) an? |what an? |an? )?(?:great|good|excellent|interesting|nice) question|"
    r"(?:i(?: am|['’]m|['’]d be| would be) )?(?:happy|glad) to (?:help|assist)(?: you)?(?: with (?:that|this))?|"
    r"i(?: can|['’]ll| will) (?:gladly |certainly |happily )?help you with (?:that|this)|"
    r"let me (?:explain|help)(?: (?:that|this|it|you))?(?: (?:to|with) (?:you|that|this))?|"
    r"thank(?:s| you) for (?:asking|your (?:question|message|patience))|"
    r"here (?:you go|it is|you are)|"
    r"没问题|没有问题|当然(?:可以|没问题)?|可以的|明白(?:了)?|收到|了解(?:了)?|好(?:的)?呀|好嘞|行|"
    r"(?:这(?:真)?是(?:一)?个)?(?:很)?好(?:的)?问题|(?:我)?(?:很)?(?:高兴|乐意|愿意)(?:能)?(?:为|帮)(?:你|您)?(?:助)?(?:服务|解答|帮助|忙|你|您)|"
    r"(?:谢谢|感谢)(?:你|您)的(?:提问|问题|耐心)|让我(?:来)?(?:为(?:你|您))?(?:解释|说明|回答|帮(?:你|您))(?:一下)?"
)
_CLOSER = (
    r"(?:i )?(?:hope|trust)(?: that)? (?:this|that|it)(?: (?:information|answer|explanation))? "
    r"(?:helps|is helpful|was helpful|is useful|helped|is of help)(?: (?:you|a bit|you out))?|"
    r"(?:please )?(?:let me know|feel free to (?:ask|reach out|contact me)|(?:do not|don['’]t) hesitate to (?:ask|contact me|reach out))"
    r"(?: (?:if|in case) (?:you|anything)(?: (?:have|need|want|would like|is|remains))?"
    r"(?: (?:any|some|anything|more|further|other|else|additional|unclear|questions?|help|details?|information|assistance)){0,4})?|"
    r"if (?:you have|there are) any (?:(?:other|more|further) )?questions,? (?:please )?(?:just )?(?:ask|let me know|feel free to ask)|"
    r"please|(?:is there )?anything else(?: i can (?:do|help (?:you )?with))?|"
    r"(?:best|kind|warm|kindest|warmest) (?:regards|wishes)|with (?:best|kind|warm) (?:regards|wishes)|regards|all the best|"
    r"(?:yours )?(?:sincerely|faithfully|truly)(?: yours)?|take care|good luck|happy (?:coding|cooking|reading|travels)|enjoy|"
    r"(?:我)?希望(?:这|以上|上面|我的|这些|本)?(?:个|些)?(?:的)?(?:内容|回答|解释|信息|建议|答案|说明)?(?:能|可以|能够|会)?对(?:你|您|大家)?有(?:所|些|点)?(?:帮助|用)|"
    r"(?:我)?希望[^，。！？；,.!?;\n]{0,12}(?:帮(?:助)?(?:到|上)?(?:了)?(?:你|您|大家)(?:的?忙)?|对(?:你|您|大家)[^，。！？；,.!?;\n]{0,5}(?:帮助|启发|用))|"
    r"(?:如果|如|若|要是)?(?:你|您)?(?:还)?有(?:任何|其他|其它|别的|什么|更多)?(?:的)?(?:疑问|问题|不明白的地方|需要)[，,]?"
    r"(?:请|欢迎|都|可以|尽管)?(?:随时)?(?:问我|告诉我|联系我|提问|提出|告知|再问)?|"
    r"(?:欢迎|请)随时(?:提问|问我|联系(?:我)?|告诉我)|祝(?:你|您)?(?:好|好运|成功|一切顺利|学习进步|工作顺利|用餐愉快|用户愉快|玩得开心)|此致敬礼|加油|"
    r"顺祝商祺|谨启|敬上"
)
_MARK = r"[\s,.!?;~，。！？；～…、]"
_START = re.compile(
    rf"\A\s*+(?:(?:{_GREETING}){_MARK}++)*(?:请问(?:一下)?{_MARK}*+)?",
    re.IGNORECASE,
)
_OPENERS = re.compile(rf"\A\s*+(?:(?:{_GREETING}|{_OPENER}){_MARK}++)+", re.IGNORECASE)
_END = re.compile(rf"(?:[\n,.!?;，。！？；…]\s{{0,8}}+(?:{_GREETING}){_MARK}*+)+\Z", re.IGNORECASE)
"""A word behind a colon is no thanks."""
_CLOSERS = re.compile(
    rf"(?:[\n,.!?;，。！？；…~～]\s{{0,8}}+(?:{_GREETING}|{_CLOSER}){_MARK}*+)+\Z", re.IGNORECASE
)
_WORDS = re.compile(r"\w")


def without_courtesy(text: str) -> str:
    """The text without greetings and thanks around it, unless nothing else is said."""
    tail = max(0, len(text) - _TAIL)
    short = text[:tail] + _END.sub("", text[tail:])
    short = _START.sub("", short if short.strip() else text)
    if not short.strip():
        return text
    tail = max(0, len(short) - _TAIL)
    bare = _OPENERS.sub("", short[:tail] + _CLOSERS.sub("", short[tail:]), count=1)
    return bare if bare != short and _is_long(bare) else short


def _is_long(text: str) -> bool:
    letters = 0
    for found in _WORDS.finditer(text):
        letters += 2 if found[0] > "\u2e80" else 1
        if letters >= _MIN_LETTERS:
            return True
    return False
