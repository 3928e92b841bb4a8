"""Words by their weight when texts are compared: those that always count, and those that never do."""

from __future__ import annotations

from functools import lru_cache

_NEGATION_ZH = frozenset("不没无非未勿别莫否")
_NUMERALS_ZH = frozenset("零〇二三四五六七八九十百千万亿两半双")
_NUMBER_WORDS = frozenset(
    [
        "zero",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
        "thirteen",
        "fourteen",
        "fifteen",
        "sixteen",
        "seventeen",
        "eighteen",
        "nineteen",
        "twenty",
        "thirty",
        "forty",
        "fifty",
        "sixty",
        "seventy",
        "eighty",
        "ninety",
        "hundred",
        "thousand",
        "million",
        "billion",
        "trillion",
        "dozen",
        "half",
        "quarter",
        "third",
        "first",
        "second",
        "fourth",
        "fifth",
        "sixth",
        "seventh",
        "eighth",
        "ninth",
        "tenth",
        "once",
        "twice",
        "thrice",
        "double",
        "triple",
        "single",
    ]
)
_NEGATION_EN = frozenset(
    [
        "no",
        "not",
        "never",
        "none",
        "nor",
        "neither",
        "nobody",
        "nothing",
        "nowhere",
        "without",
        "cannot",
        "hardly",
        "barely",
        "few",
        "little",
        "unless",
        "except",
    ]
)
MODIFIERS_ZH = frozenset(
    # Directions and other opposites.
    "东西南北上下左右前后内外大小多少高低新旧男女真假"
    # What a word becomes when it stands before it, or how much and how sure.
    "副半超准伪反每全只仅都最更必吗么谁哪何总"
)
"""Characters whose omission or addition may say something else, also where 的 or 了 stands for them."""
FREE_ZH = frozenset(
    "正负母阴阳优劣好坏快慢早晚冷热干湿死微单初客各第几差太"
    # Who does it to whom, when, and whether it is done.
    "被让使给替比除若将曾已刚过到至往"
    "停禁戒慎拒退误欠罚存借租贷汇续"
    # Colours, substances and parts of the body.
    "红黄蓝绿白黑紫灰硫硝盐碳氯氟溴碘硅磷氨苯钠钾钙镁铜锌铝铅汞银氢氧氮肺肝胃肾肠脾胰骨"
)
"""Characters without which a sentence is a sentence, and says something else."""
COMPLEMENTS_ZH = frozenset("到至过着完好错掉来去起见懂们吧吗呢被")
"""Characters that say something else in the place of 了 or 的."""
_BEFORE_BOUND = "美日英欧港韩德法俄澳泰外本"
_BOUND_AFTER = "元国语文军币籍"
BOUND_ZH = frozenset(
    [
        "公斤",
        "公里",
        "公克",
        "公尺",
        "公分",
        "公顷",
        "公升",
        "市斤",
        "市里",
        "英里",
        "英尺",
        "英寸",
        "海里",
        "光年",
        "厘米",
        "毫米",
        "分米",
        "微米",
        "纳米",
        "千米",
        "毫克",
        "微克",
        "千克",
        "毫升",
        "平米",
        "立米",
        "亚热",
        "中学",
        "中等",
        "中级",
        "代理",
        "公鸡",
        "原价",
        "现任",
        "主犯",
        "次氯",
        "甲醇",
        "乙醇",
        "甲烷",
        "乙烷",
        "乙烯",
        "电车",
        "火车",
        "马车",
        "汽车",
        "亚健",
        "亚硝",
        "亚军",
        "季军",
        "前任",
        "前妻",
        "前夫",
        "前女",
        "前男",
        "曾祖",
        "外祖",
        "外婆",
        "表哥",
        "表弟",
        "堂哥",
        "堂弟",
        "次子",
        "长子",
        "养父",
        "养母",
        "继父",
        "继母",
        "岳父",
        "岳母",
        "反对",
        "双周",
        "无线",
    ]
).union(one + other for one in _BEFORE_BOUND for other in _BOUND_AFTER)
"""Pairs of characters whose first is not left out: what remains is another word."""
SURNAMES = frozenset(
    "王李张刘陈杨黄赵吴周徐孙马朱胡郭何林罗郑梁谢宋唐许韩冯邓曹彭曾萧田董袁潘蒋蔡余杜叶程苏魏吕丁任沈姚卢姜崔钟谭陆汪范金石廖贾夏韦付方邹孟熊秦邱江尹薛闫段雷侯龙史陶黎贺顾毛郝龚邵钱严覃武戴莫孔向汤"
)
"""Characters with which the name of a person usually begins."""
NAME_LEADS = frozenset("和与由被跟给对叫是让把向问找请为姓者师长员生友授理记")
"""Characters that often stand before a name."""
FILLERS = frozenset(["a", "an", "the", "please", "kindly", "请"])
"""Words whose omission says nothing else."""
FINAL_PARTICLES = frozenset("呢呀啊哦啦嘛吧")
"""Chinese particles that soften a sentence. (吗 makes a question of it.)"""
PARTICLES_ZH = frozenset("的了")
"""Characters that a slip of the pen leaves behind."""
VARIANTS = {
    "您": "你",
    "妳": "你",
    "帐": "账",
    "象": "像",
    "地": "的",
    "得": "的",
    "洒": "撒",
    "做": "作",
    "唯": "惟",
}
"""Characters that are written for each other; the key is read as the value."""

BROKEN = "\ua7ff"
"""A letter that stands for one that was overwritten or pushed in by a slip."""


@lru_cache(maxsize=8192)
def is_weighty(key: str) -> bool:
    """Whether a token always counts: figures, signs, negations."""
    if len(key) == 1:
        return key in _NEGATION_ZH or key in _NUMERALS_ZH or not key.isalpha()
    return (
        key in _NUMBER_WORDS
        or key in _NEGATION_EN
        or key.endswith("n't")
        or any(letter.isdigit() or letter == "_" for letter in key)
        or not any(map(str.isalpha, key))
    )
