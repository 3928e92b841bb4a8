"""Postal addresses: Chinese ones by street and house number, with what stands before and after them.

A pattern finds the number; the words before it are read backwards from there, so that the time stays in proportion to
the text.
"""

from __future__ import annotations

from collections.abc import Iterator

from engine.corpus.filters.lazy_pattern import lazy_pattern

_LOOK_BACK = 40
"""Characters before a house number that may belong to the address."""

_STREET = "路街道巷弄胡同里村园苑城区厦场院坊庄桥屯组队段径台寓府墅湾邸郡庭轩"
_UNIT_NUMBER = (
    r"[A-Za-z]?-?[0-9]{1,5}(?:-[0-9]{1,4}){0,2}[A-Za-z]?|[A-Za-z]|[一二三四五六七八九十甲乙丙丁]{1,3}"
)
_HOUSE = lazy_pattern(
    rf"(?:(?<=[{_STREET}])|(?<=[路道街][东西南北中]))(?:(?P<house>[ ]?[甲乙丙丁]?[0-9]{{1,5}}(?:[-之/][0-9]{{1,4}}){{0,2}}[A-Za-z甲乙丙丁]?[ ]?"
    r"(?:号(?![0-9]{0,2}线|机|位|选手|文件|公告|题|电池|字|服务器|元素|种子|球|队|楼梯|病|令|桌|台风|样|模|方案)(?:院|楼|门|大院)?|弄|栋|幢|座|单元)"
    rf"|[ ]?(?:{_UNIT_NUMBER})[ ]?(?:号楼|栋|幢|座|单元))"
    # a name between the street and the building
    r"|[\u4e00-\u9fff]{1,8}?[0-9A-Za-z]{1,4}(?:号楼|栋|幢|座|单元))"
)
_UNITS = lazy_pattern(
    r"(?P<unit>[ ,，、]?(?:[\u4e00-\u9fff]{0,10}?[\u4e00-\u9fff ])?(?<![0-9A-Za-z])"
    rf"(?:{_UNIT_NUMBER})[ ]?(?:号楼|号院|号门|号房|号|弄|栋|幢|座|单元|层|楼|室|户|房|门))"
    r"|(?P<room>(?<=[栋幢座元楼层院])[ ]?-?[A-Za-z]?[0-9]{2,5}(?:-[0-9]{1,4})?(?![0-9A-Za-z年月日元块人个%.]))"
)
_MAX_UNITS = 8
_BEFORE = lazy_pattern(r"[\u4e00-\u9fff0-9A-Za-z·()-]{1,40}\Z")
_LEAD = lazy_pattern(
    r"(?:住址|住处|住所|地址|家住|住在|住|位于|坐落于|寄到|送到|寄往|寄至|寄给|搬到|搬去|发到|来到|回到|快递到|公司在|家在|单位在|店在|就在|在|寄|送|到|至|往|去|是|为|于|从|了|的|和|与|及)"
)
_REGION = lazy_pattern(r"[\u4e00-\u9fff]{1,8}(?:省|市|自治区|自治州|区|县|镇|乡|旗|州|盟|街道)")
_STRONG = lazy_pattern(
    r"[\u4e00-\u9fff0-9]{2}(?:路|街|大道|道|巷|弄|胡同|里弄)[东西南北中]?\Z|[\u4e00-\u9fff](?:[东南西北中]|[一二三四五六七八九十])(?:路|街|巷|道)\Z"
)
_NUMBERED_STREET = lazy_pattern(
    r"(?:第|[0-9]|[一二三四五六七八九十]|这|那|每|一|几|哪|两|条|有|该)(?:路|街|道|巷|弄|里|村|园|城|区|场|院|组|队|段|台|桥)\Z"
)
_LABEL = lazy_pattern(
    r"(?:住址|地址|家住|住在|寄到|送到|寄往|寄至|搬到|我住|收货|快递到?)[^。！？\n]{0,30}\Z"
)


def find_addresses(text: str) -> Iterator[tuple[int, int]]:
    """Ranges of postal addresses in Chinese."""
    end = 0
    for match in _HOUSE.finditer(text):
        if match.start() < end:
            continue
        window = text[max(end, match.start() - _LOOK_BACK) : match.start()]
        before = _BEFORE.search(window)
        if before is None:
            continue
        name = before.group()
        stop, units = _units_end(text, match.end())
        units += match["house"] is None or match["house"][-1] not in "号弄院"
        lead = 0
        for word in _LEAD.finditer(name):
            if len(name) - word.end() >= 2:
                lead = word.end()
        name = name[lead:]
        labelled = _LABEL.search(window) is not None
        known = labelled or _REGION.match(name) is not None
        if _NUMBERED_STREET.fullmatch(name[-2:]) and not units and not known:
            continue
        if units >= 2 or known or (match["house"] and _STRONG.search(name)):
            end = stop
            yield match.start() - len(name), stop


def _units_end(text: str, position: int) -> tuple[int, int]:
    """Where the parts of a building after a house number end, and how many there are."""
    for count in range(_MAX_UNITS):
        match = _UNITS.match(text, position)
        if match is None:
            return position, count
        position = match.end()
    return position, _MAX_UNITS
