"""PII in unusual notations: full-width, spaced, hyphenated, in words, next to Chinese characters.

Values of every type are valid by its own check, written in each notation, and must be covered completely; next to them
are lookalikes that must not be found.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.corpus.filters.pii import PiiType, find_pii
from engine.corpus.ledger import redact

Draw = st.DrawFn
LETTERS = "abcdefghijkmnopqrstuvwxyz"
WIDE = {**{code: code + 0xFEE0 for code in range(33, 127)}, 32: 0x3000}
WORDS = ("零一二三四五六七八九", "〇壹贰叁肆伍陆柒捌玖")


def digits(draw: Draw, count: int) -> str:
    return draw(st.text("0123456789", min_size=count, max_size=count))


def token(draw: Draw, count: int) -> str:
    return draw(st.text(LETTERS + LETTERS.upper() + "0123456789", min_size=count, max_size=count))


def identity(draw: Draw) -> str:
    month, day = draw(st.integers(1, 12)), draw(st.integers(1, 28))
    body = f"110105{draw(st.integers(1930, 2015))}{month:02}{day:02}{digits(draw, 3)}"
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    check = sum(int(digit) * weight for digit, weight in zip(body, weights, strict=True)) % 11
    return body + "10X98765432"[check]


def card(draw: Draw) -> str:
    body = "622202" + digits(draw, 12)
    doubled = sum(sum(divmod(2 * int(digit), 10)) for digit in body[::-1][::2])
    return body + str(-(doubled + sum(map(int, body[::-1][1::2]))) % 10)


def iban(draw: Draw) -> str:
    account = "37040044" + digits(draw, 10)
    return f"DE{98 - int(account + '131400') % 97:02}{account}"


def credit_code(draw: Draw) -> str:
    signs = "0123456789ABCDEFGHJKLMNPQRTUWXY"
    body = "91110108" + draw(st.text(signs, min_size=8, max_size=8)) + "M"
    return body + signs[-sum(signs.index(sign) * pow(3, place, 31) for place, sign in enumerate(body)) % 31]


MAKERS: dict[PiiType, tuple[Callable[[Draw], str], tuple[str, ...]]] = {
    PiiType.PRIVATE_KEY: (
        lambda draw: f"-----BEGIN RSA PRIVATE KEY-----\n{token(draw, 40)}\n-----END RSA PRIVATE KEY-----",
        ("{}", "私钥是{}"),
    ),
    PiiType.API_KEY: (lambda draw: "sk-" + token(draw, 40), ("{}", "密钥{}", "my key is {}")),
    PiiType.PASSWORD: (
        lambda draw: f"{token(draw, 6)}@{digits(draw, 3)}x",
        ("密码{}", "密码是{}", "password: {}"),
    ),
    PiiType.EMAIL: (
        lambda draw: f"{draw(st.text(LETTERS, min_size=3, max_size=9))}.{digits(draw, 2)}@qq.com",
        ("{}", "发到{}", "mail {}"),
    ),
    PiiType.ID_CARD: (identity, ("{}", "身份证{}", "我的身份证号是{}")),
    PiiType.TAX_NUMBER: (lambda draw: digits(draw, 11), ("Steuer-ID {}", "CPF: {}", "税号：{}")),
    PiiType.HEALTH_NUMBER: (lambda draw: digits(draw, 10), ("NHS number {}", "病历号{}", "patient ID: {}")),
    PiiType.PERSONAL_NUMBER: (lambda draw: "20" + digits(draw, 8), ("学号{}", "student ID {}", "Matrikelnummer: {}")),
    PiiType.CREDIT_CODE: (credit_code, ("信用代码：{}", "税号{}", "{}")),
    PiiType.IBAN: (iban, ("IBAN {}", "汇到{}")),
    PiiType.BANK_CARD: (card, ("卡号{}", "转到{}", "我的银行卡是{}")),
    PiiType.WALLET: (
        lambda draw: "0x" + draw(st.text("0123456789abcdef", min_size=40, max_size=40)),
        ("send ETH to {}", "钱包地址：{}"),
    ),
    PiiType.SSN: (
        lambda draw: f"{draw(st.integers(100, 665))}-{draw(st.integers(10, 99))}-{draw(st.integers(1000, 9999))}",
        ("SSN {}", "my social security number is {}"),
    ),
    PiiType.PASSPORT: (
        lambda draw: "E" + str(draw(st.integers(10**7, 10**8 - 1))),
        ("护照{}", "护照号：{}", "passport number {}"),
    ),
    PiiType.DRIVER_LICENSE: (
        lambda draw: "D" + str(draw(st.integers(10**6, 10**7 - 1))),
        ("driver's license {}", "驾驶证{}"),
    ),
    PiiType.IP: (
        lambda draw: f"{draw(st.integers(11, 126))}.{draw(st.integers(20, 255))}.{draw(st.integers(0, 255))}.9",
        ("服务器{}", "from {}"),
    ),
    PiiType.PHONE: (
        lambda draw: f"1{draw(st.sampled_from('3456789'))}{digits(draw, 9)}",
        ("{}", "电话{}", "打我手机{}"),
    ),
    PiiType.PLATE: (lambda draw: f"京A{digits(draw, 5)}", ("车牌{}", "我的车是{}")),
    PiiType.WECHAT: (
        lambda draw: f"wx_{draw(st.text(LETTERS, min_size=3, max_size=8))}{digits(draw, 3)}",
        ("微信{}", "加我微信：{}", "wechat: {}"),
    ),
    PiiType.QQ: (lambda draw: str(draw(st.integers(10**6, 10**10 - 1))), ("QQ{}", "我的QQ号是{}")),
    PiiType.ADDRESS: (
        lambda draw: f"海淀区中关村大街{draw(st.integers(1, 99))}号{draw(st.integers(1, 30))}号楼{draw(st.integers(101, 999))}室",
        ("住在{}", "地址：{}"),
    ),
}  # fmt: skip
SPELT = (PiiType.ID_CARD, PiiType.BANK_CARD, PiiType.PHONE)
"""Numbers that people also say in words and write in groups."""


def groups(number: str, sign: str) -> str:
    if len(number) == 11:
        return sign.join((number[:3], number[3:7], number[7:]))
    return sign.join(number[start : start + 4] for start in range(0, len(number), 4))


WAYS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "full-width": lambda text: text.translate(WIDE),
}
SPELT_WAYS: dict[str, Callable[[str], str]] = {
    **WAYS,
    "spaced": lambda number: groups(number, " "),
    "spaced without a break": lambda number: groups(number, "\u00a0"),
    "with invisible signs": lambda number: groups(number, "\u200b"),
    "hyphened": lambda number: groups(number, "-"),
    "hyphened without a break": lambda number: groups(number, "\u2011"),
    "with minus signs": lambda number: groups(number, "\u2212"),
    "digit by digit": lambda number: " ".join(number),
    "full-width and spaced": lambda number: groups(number, " ").translate(WIDE),
    "in words": lambda number: "".join(WORDS[0][int(d)] if d.isdigit() else d for d in number),
    "in words of accounts": lambda number: "".join(WORDS[1][int(d)] if d.isdigit() else d for d in number),
    "half in words": lambda number: "".join(
        WORDS[0][int(d)] if place % 2 and d.isdigit() else d for place, d in enumerate(number)
    ),
    "circled": lambda number: "".join(chr(0x245F + int(d)) if d in "123456789" else d for d in number),
    "in bold": lambda number: "".join(chr(0x1D7CE + int(d)) if d.isdigit() else d for d in number),
}


@pytest.mark.parametrize("type_", list(PiiType))
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_pii_is_covered_completely_in_any_notation(type_: PiiType, data: st.DataObject) -> None:
    make, frames = MAKERS[type_]
    plain = data.draw(st.composite(make)())
    ways = SPELT_WAYS if type_ in SPELT else WAYS
    way = data.draw(st.sampled_from(sorted(ways)))
    if type_ in (PiiType.PRIVATE_KEY, PiiType.ADDRESS):
        way = "as it is"
    written = ways[way](plain)
    frame = data.draw(st.sampled_from(frames))
    before = data.draw(st.sampled_from(("", "你好，", "请记下：", "(")))
    after = data.draw(st.sampled_from(("", "。", "，谢谢", "吧", " ok")))
    text = before + frame.format(written) + after
    start = text.index(written)
    spans = find_pii(text)
    covered = {place for span in spans for place in range(span.start, span.end)}
    # Circled digits may be found as another type; all of them must be redacted.
    assert covered >= set(range(start, start + len(written))), (way, text, spans)
    if way == "as it is":
        assert any(span.type is type_ for span in spans), (text, spans)
    left = redact(text, spans)
    assert written not in left and not re.search(r"\d{5}", left)


NEGATIVES: dict[PiiType, tuple[str, ...]] = {
    PiiType.PRIVATE_KEY: ("-----BEGIN CERTIFICATE----- 是证书，不是私钥", "what is a private key?"),
    PiiType.API_KEY: ("sk-learn 是一个库", "export API_KEY=your_api_key_here"),
    PiiType.PASSWORD: ("怎么设置密码", "my secretary forgot the password", "密码至少要8位"),
    PiiType.EMAIL: ("请@我一下", "用 @property 装饰"),
    PiiType.ID_CARD: ("编号110105194912310021不对", "身份证要带吗"),
    PiiType.TAX_NUMBER: ("what is a tax number?", "税号在哪里查"),
    PiiType.HEALTH_NUMBER: ("the NHS employs 1400000 people", "病历要保存30年"),
    PiiType.PERSONAL_NUMBER: ("学号怎么查", "students pay 1000 dollars"),
    PiiType.WALLET: ("a bitcoin wallet has an address", "commit 9fceb02d0ae598e95dc970b74767f19372d61af8"),
    PiiType.CREDIT_CODE: ("信用代码91350100M000100Y44写错了",),
    PiiType.IBAN: ("IBAN DE89370400440532013001 is invalid",),
    PiiType.BANK_CARD: ("订单号6222021234567890129", "流水号4111111111111112"),
    PiiType.SSN: ("part number 123-45-67890", "000-12-3456 is no such number"),
    PiiType.PASSPORT: ("护照要办几天", "passport renewal takes 30 days"),
    PiiType.DRIVER_LICENSE: ("驾照考试要多少钱", "a driver's license costs 40 dollars"),
    PiiType.IP: ("版本号10.0.0.31", "ping 127.0.0.1", "see 1.2.3.4"),
    PiiType.PHONE: (
        "2023年12月26日",
        "1 3 5 7 9 11 13 15 17",
        "人口1412360000人",
        "圆周率3.14159265358979",
    ),
    PiiType.PLATE: ("贵A股市场涨了", "京东A12号仓库"),
    PiiType.WECHAT: ("微信支付怎么开通", "wechat android 版本"),
    PiiType.QQ: ("QQ音乐2023年有多少首歌", "QQ等级100级", "QQ空间 2012 和 2013 的照片"),
    PiiType.ADDRESS: ("中关村大街很长", "住在三楼还是四楼好"),
}


@pytest.mark.parametrize(("type_", "text"), [(t, text) for t, texts in NEGATIVES.items() for text in texts])
def test_lookalikes_are_not_pii(type_: PiiType, text: str) -> None:
    assert set(NEGATIVES) == set(MAKERS) == set(PiiType)
    assert find_pii(text) == []


@given(st.text(st.sampled_from("GB12 34567ıİſ\u212a-.:@微信密码加v室")))
def test_letters_with_unusual_case_mapping_raise_no_error(text: str) -> None:
    for span in find_pii("GB12 34567 ıııı 8901 " + text):
        assert 0 <= span.start < span.end
