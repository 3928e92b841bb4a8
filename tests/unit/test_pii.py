"""PII: on labelled rows in both languages, by example, and for any text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.corpus.filters import checksums, secrets
from engine.corpus.filters.pii import find_pii
from engine.corpus.filters.prefilter import may_contain_pii
from engine.corpus.filters.simplified_chinese import _PAIRS, simplified
from engine.corpus.ledger import redact

HEX = "1a2b3c4d5e6f708192a3b4c5d6e7f809"
LETTERS = "abCdefGHijkLmnOpqrSTuvwxYzABCDefghIJ"
DATA = Path(__file__).parent.parent / "data" / "corpus"


def found(text: str) -> list[tuple[str, str]]:
    return [(span.type.value, text[span.start : span.end]) for span in find_pii(text)]


@pytest.mark.parametrize("name", ["zh_pii.jsonl", "presidio.jsonl"])
def test_labelled_spans_are_covered_and_clean_rows_unchanged(name: str) -> None:
    wanted = covered = clean = touched = 0
    for line in (DATA / name).read_text("utf-8").splitlines():
        row = json.loads(line)
        spans = find_pii(row["text"])
        if name == "presidio.jsonl":
            # Postal addresses are not labelled in it.
            spans = [span for span in spans if span.type != "ADDRESS"]
        clean += not row["spans"]
        touched += bool(spans) and not row["spans"]
        for _type, start, end in row["spans"]:
            wanted += 1
            covered += any(span.start <= start and end <= span.end for span in spans)
    assert wanted > 80 and clean > 80
    assert covered >= 0.98 * wanted
    assert touched <= 0.02 * clean


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("手机13800138000呢", [("PHONE", "13800138000")]),
        ("打１３８００１３８０００", [("PHONE", "１３８００１３８０００")]),
        ("我的号码是幺三八零零幺三八零零零", [("PHONE", "幺三八零零幺三八零零零")]),
        ("打+86 138-0013-8000", [("PHONE", "+86 138-0013-8000")]),
        ("座机(010)67586489", [("PHONE", "(010)67586489")]),
        ("call me on 450 0840 please", [("PHONE", "450 0840")]),
        ("身份证11010519491231002X", [("ID_CARD", "11010519491231002X")]),
        ("身份证 440524 18800101 0014", [("ID_CARD", "440524 18800101 0014")]),
        ("卡号6222 0212 3456 7890 128", [("BANK_CARD", "6222 0212 3456 7890 128")]),
        ("card 4111-1111-1111-1111 is lost", [("BANK_CARD", "4111-1111-1111-1111")]),
        ("IBAN GB82 WEST 1234 5698 7654 32 please", [("IBAN", "GB82 WEST 1234 5698 7654 32")]),
        ("my SSN: 078-05-1120", [("SSN", "078-05-1120")]),
        ("发到zhang.san@qq.com就行", [("EMAIL", "zhang.san@qq.com")]),
        ("from 203.0.114.7 today", [("IP", "203.0.114.7")]),
        ("车牌京A·12345的车", [("PLATE", "京A·12345")]),
        ("加我微信wx_bidjd873聊", [("WECHAT", "wx_bidjd873")]),
        ("我的QQ是10086123", [("QQ", "10086123")]),
        ("车牌粤BD12345停在楼下", [("PLATE", "粤BD12345")]),
        ("加微信：zhang_san88", [("WECHAT", "zhang_san88")]),
        ("wechat id: tom_2020x", [("WECHAT", "tom_2020x")]),
        ("扣扣号 987654321", [("QQ", "987654321")]),
        ("passport number is G28233515", [("PASSPORT", "G28233515")]),
        ("税号91350100M000100Y43", [("CREDIT_CODE", "91350100M000100Y43")]),
        ("IBAN DE89370400440532013000", [("IBAN", "DE89370400440532013000")]),
        ("social security number 219 09 9999", [("SSN", "219 09 9999")]),
        ("壹叁捌零零壹叁捌零零零是我手机", [("PHONE", "壹叁捌零零壹叁捌零零零")]),
        ("号码是一三八，零零一三，八零零零", [("PHONE", "一三八，零零一三，八零零零")]),
        ("护照号 E12345678", [("PASSPORT", "E12345678")]),
        ("密码是H##$8$27p@，登录", [("PASSWORD", "H##$8$27p@")]),
        ("登录名tom，密码Tom@2020！", [("PASSWORD", "Tom@2020")]),
        ("手机一三八 零零一三 八零零零", [("PHONE", "一三八 零零一三 八零零零")]),
        ("password: hunter2", [("PASSWORD", "hunter2")]),
        ("postgres://bob:s3cret@db:5432/x", [("PASSWORD", "s3cret")]),
        ("key AKIAIOSFODNN7EXAMPLE here", [("API_KEY", "AKIAIOSFODNN7EXAMPLE")]),
        (
            "ghp_0123456789abcdefghijklmnopqrstuvwxyzAB",
            [("API_KEY", "ghp_0123456789abcdefghijklmnopqrstuvwxyzAB")],
        ),
        ("api_key=9f8e7d6c5b4aX3Z2", [("API_KEY", "9f8e7d6c5b4aX3Z2")]),
        ("Twilio: SK" + HEX, [("API_KEY", "SK" + HEX)]),
        ("twilio auth token is " + HEX, [("API_KEY", HEX)]),
        (f"sid AC{HEX[::-1]} token {HEX}", [("API_KEY", HEX)]),
        (f"curl -u AC{HEX}:{HEX} https://x", [("API_KEY", f"AC{HEX}:{HEX}")]),
        (f"AccountName=a;AccountKey={'aB3/' * 21}aB==;End", [("API_KEY", "aB3/" * 21 + "aB==")]),
        (
            "见https://hooks.slack.com/services/T024BE7LD/B0ABCDEFG/kdjUeYhdkWbZaQplMnvCxSdf。",
            [("API_KEY", "https://hooks.slack.com/services/T024BE7LD/B0ABCDEFG/kdjUeYhdkWbZaQplMnvCxSdf")],
        ),
        (
            "https://open.feishu.cn/open-apis/bot/v2/hook/1a2b3c4d-1a2b-1a2b-1a2b-1a2b3c4d5e6f 发消息",
            [
                (
                    "API_KEY",
                    "https://open.feishu.cn/open-apis/bot/v2/hook/1a2b3c4d-1a2b-1a2b-1a2b-1a2b3c4d5e6f",
                )
            ],
        ),
        ("mysql -uroot -pS3cr3t shop", [("PASSWORD", "S3cr3t")]),
        ("mysqldump -h db -u root -p'Tiger' shop", [("PASSWORD", "Tiger")]),
        ("sshpass -p hunter ssh box", [("PASSWORD", "hunter")]),
        ("curl -u bob:secretly https://x", [("PASSWORD", "secretly")]),
        ('password is "tiger"', [("PASSWORD", "tiger")]),
        ("the password = 'tiger'.", [("PASSWORD", "tiger")]),
        ("密码是“tiger”，记住", [("PASSWORD", "tiger")]),
        ("138  1234  5678", [("PHONE", "138  1234  5678")]),
        ("138/1234/5678", [("PHONE", "138/1234/5678")]),
        ("138 - 1234 - 5678", [("PHONE", "138 - 1234 - 5678")]),
        ("加v：zhangsan", [("WECHAT", "zhangsan")]),
        ("密碼：abc12345", [("PASSWORD", "abc12345")]),
        ("帳戶密碼是Abc!defg", [("PASSWORD", "Abc!defg")]),
        ("口令：abc12345", [("PASSWORD", "abc12345")]),
        ("電話：6758 6489", [("PHONE", "6758 6489")]),
        ("手機 6758648", [("PHONE", "6758648")]),
        ("號碼是67586489", [("PHONE", "67586489")]),
        ("銀行帳號：622202123456789", [("BANK_CARD", "622202123456789")]),
        ("銀行卡號 1234567890123456", [("BANK_CARD", "1234567890123456")]),
        ("護照號碼 E12345678", [("PASSPORT", "E12345678")]),
        ("身份證號：110105194912310021", [("ID_CARD", "110105194912310021")]),
        ("身分證110105194912310021", [("ID_CARD", "110105194912310021")]),
        ("車牌粵b12345", [("PLATE", "粵b12345")]),
        ("微信號：zhangsan", [("WECHAT", "zhangsan")]),
        ("手機壹參捌零零壹參捌零零零", [("PHONE", "壹參捌零零壹參捌零零零")]),
    ],
)
def test_each_type_is_found_in_context(text: str, expected: list[tuple[str, str]]) -> None:
    assert found(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "怎么设置一个安全的密码？",
        "secret santa is a game; my secretary knows the secret",
        "how do I reset a password",
        "password is required and must be case-sensitive",
        "password = request.form['password']",
        "密码长度8-16位，密码错误怎么办",
        "什么是公钥密码学RSA2048",
        "版本号10.0.0.31有什么更新",
        "ping 127.0.0.1 and 192.168.1.1",
        "2023年12月26日 12:30:45 发生了什么",
        "一九九八年的三三两两",
        "圆周率3.14159265358979323846",
        "快递单号SF4142925580888什么时候到",
        "订单号279362426921651062到哪里了",
        "哈希67fb4f65ec4f153daa010a384d9d618f74f9fe1e",
        "ISBN 9787111213826这本书",
        "see chapter 1.2.3.4",
        "微信android版本怎么更新",
        "微信支付怎么开通，微信wechat有网页版吗",
        "京东A12号仓库，豫剧A角色",
        "QQ音乐2023年有多少首歌",
        "QQ等级100级要多久",
        "护照要办几天，passport renewal takes 30 days",
        "税号是什么，信用代码91350100M000100Y44写错了",
        "IBAN DE89370400440532013001 is invalid",
        "part number 123-45-67890",
        "三百六十五里路，二零二三年一月",
        "一二三四五，上山打老虎",
        "贵A股市场涨了，川A和鲁B是什么意思",
        "In 2014 we sold 1,234,567 units at 99.95",
        "git clone git@github.com:owner/name.git",
        "git remote add origin ssh://git@git.example.org/owner/name.git",
        "sk-xxxxxxxxxxxxxxxxxxxx",
        "export KEY=sk-your-api-key-here-please",
        "OPENAI_API_KEY=sk-proj-YOUR_API_KEY_GOES_HERE",
        "pip install sk-learn-contrib-py-earth",
        "ghp_" + "x" * 36,
        "https://hooks.slack.com/services/T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX",
        "mysql -u root -p shop, mysql -P 3306 -p",
        "curl -u bob:$PASSWORD https://x",
        'the password is "required" or "wrong"',
        "怎麼設置一個安全的密碼？",
    ],
)
def test_text_about_secrets_and_harmless_numbers_is_not_pii(text: str) -> None:
    assert found(text) == []


@pytest.mark.parametrize(
    "key",
    [
        *(head + LETTERS for head in ("sk-", "sk-proj-", "sk-ant-", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_")),
        *(f"gl{kind}-{LETTERS}" for kind in ("pat", "dt", "rt", "soat", "ptt")),
        *(f"xox{kind}-{LETTERS}" for kind in "abeoprs"),
        *(head + LETTERS for head in ("GOCSPX-", "hf_", "npm_", "whsec_", "gsk_", "xai-", "tvly-", "pplx-", "nvapi-")),
        *(head + LETTERS for head in ("fw_", "lin_api_", "ntn_", "hvs.", "tskey-", "sk_live_", "rk_live_", "pk_test_")),
        *(f"shp{kind}_" + "abcdef" * 5 + "ab" for kind in ("at", "ca", "pa", "ss")),
        *(head + "ABCDEFGHIJKLMNOP" for head in ("AKIA", "ASIA", "ABIA", "ACCA", "AGPA", "AIDA", "AROA", "LTAI", "AKID")),
        "AKLT" + LETTERS, "AIza" + LETTERS[:35], "pypi-AgE" + LETTERS * 2, "secret_" + LETTERS * 2,
        "key-" + "abcdef" * 5 + "ab", "dapi" + "abcdef" * 5 + "ab", f"SG.{LETTERS}.{LETTERS}", f"eyJ{LETTERS}.eyJ{LETTERS}.{LETTERS}",
    ],
)  # fmt: skip
def test_a_key_without_digits_is_found_by_its_prefix(key: str) -> None:
    assert found(f"用这个 {key} 就行") == [("API_KEY", key)]


@given(st.from_regex(secrets.VENDOR_KEY, fullmatch=True, alphabet=LETTERS + "-_./+=kqwKQWFUV"))
def test_every_vendor_key_format_is_found(key: str) -> None:
    assert may_contain_pii(key)


@given(st.text(st.sampled_from(_PAIRS + "ab1 密")))
def test_traditional_characters_map_one_to_one(text: str) -> None:
    read = simplified(text)
    assert len(read) == len(text)
    assert simplified(read) == read


def test_a_private_key_is_redacted_completely() -> None:
    key = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\nabc=\n-----END RSA PRIVATE KEY-----"
    assert found(f"see\n{key}\nend") == [("PRIVATE_KEY", key)]
    assert redact("x" + key, find_pii("x" + key)) == "x‹PRIVATE_KEY›"


def test_an_id_number_is_not_a_payment_card() -> None:
    # This number passes Luhn too.
    number = next(
        n for n in (f"11010519{y}0101{s:03d}" for y in range(60, 99) for s in range(200)) if _both(n)
    )
    whole = next(number + check for check in "0123456789" if checksums.resident_id(number + check))
    assert found(f"号码{whole}") == [("ID_CARD", whole)]


def _both(start: str) -> bool:
    return len(start) == 17 and any(
        checksums.resident_id(start + c) and checksums.luhn(start + c) for c in "0123456789"
    )


@given(st.text(max_size=200))
def test_spans_are_ordered_and_redaction_removes_them(text: str) -> None:
    spans = find_pii(text)
    last = 0
    for span in spans:
        assert last <= span.start < span.end <= len(text)
        last = span.end
    kept = "".join(
        character for i, character in enumerate(text) if not any(s.start <= i < s.end for s in spans)
    )
    assert redact(text, spans).replace("‹", "").count("›") >= len(spans)
    assert len(kept) == len(text) - sum(span.end - span.start for span in spans)


@given(st.text(alphabet="0123456789 -.:@abcX身份证卡号电话密码是幺三１２+()", max_size=60))
def test_redacted_text_is_stable(text: str) -> None:
    once = redact(text, find_pii(text))
    assert redact(once, [s for s in find_pii(once) if "‹" in once[s.start : s.end]]) == once


@given(st.integers(0, 10**17 - 1))
def test_the_check_digit_of_a_card_is_unique(number: int) -> None:
    digits = f"{number:017d}"
    assert sum(checksums.luhn(digits + check) for check in "0123456789") == 1


@pytest.mark.parametrize(
    "text",
    [
        "好的，电话是010-64529091,010-64529090，地址是北京市朝阳区北辰东路1号",
        "营养餐厅的电话是010-65305898、01065305899，周边还有几家餐馆",
        "联系电话是010-67028865和4006662000。",
    ],
)
def test_adjacent_numbers_are_all_found(text: str) -> None:
    spans = find_pii(text)
    assert [span.type for span in spans if span.type != "ADDRESS"] == ["PHONE", "PHONE"]
    assert find_pii(redact(text, spans)) == []
