"""PII of many countries, and what only looks like it: code, calculations, logs, numbers of other things."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.corpus.filters import national_ids
from engine.corpus.filters.pii import find_pii

ROWS = [
    json.loads(line)
    for line in (Path(__file__).parent.parent / "data" / "corpus" / "pii_kinds.jsonl")
    .read_text("utf-8")
    .splitlines()
]


def _is_covered(text: str, value: str) -> bool:
    start = text.index(value)
    return any(span.start <= start and start + len(value) <= span.end for span in find_pii(text))


def test_private_values_of_all_kinds_are_covered() -> None:
    rows = [row for row in ROWS if row["value"]]
    missed = [(row["kind"], row["text"]) for row in rows if not _is_covered(row["text"], row["value"])]
    assert len(rows) > 500
    assert len(missed) <= 0.01 * len(rows), missed


def test_code_calculations_and_other_numbers_stay_as_they_are() -> None:
    rows = [row for row in ROWS if not row["value"]]
    touched = [(row["text"], find_pii(row["text"])) for row in rows if find_pii(row["text"])]
    assert len(rows) > 450
    assert len(touched) <= 0.01 * len(rows), touched


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mongodb+srv://app:Xk29fjQ@c0.ab1cd.mongodb.net/db", [("PASSWORD", "Xk29fjQ")]),
        ("redis://:pw@10.0.0.5", [("PASSWORD", "pw")]),
        ("https://bob:pa55@host.example.org/x", [("PASSWORD", "pa55")]),
        ("ruf an: +49 151 23456789!", [("PHONE", "+49 151 23456789")]),
        ("身分證字號A123456789", [("ID_CARD", "A123456789")]),
        ("回乡证 H12345678", [("ID_CARD", "H12345678")]),
        ("NHS number 943 476 5919", [("HEALTH_NUMBER", "943 476 5919")]),
        ("CPF: 123.456.789-09", [("TAX_NUMBER", "123.456.789-09")]),
        ("学号 2019011234", [("PERSONAL_NUMBER", "2019011234")]),
        ("地址：上海市徐汇区漕溪北路88号", [("ADDRESS", "上海市徐汇区漕溪北路88号")]),
        ("I live at 221B Baker Street, London NW1 6XE", [("ADDRESS", "221B Baker Street, London NW1 6XE")]),
        ("Hauptstraße 12, 10115 Berlin", [("ADDRESS", "Hauptstraße 12, 10115 Berlin")]),
    ],
)
def test_a_value_has_its_type(text: str, expected: list[tuple[str, str]]) -> None:
    assert [(span.type.value, text[span.start : span.end]) for span in find_pii(text)] == expected


@pytest.mark.parametrize(
    ("module", "number"),
    [
        ("it.codicefiscale", "RSSMRA85T10A562S"),
        ("es.dni", "12345678Z"),
        ("tw", "A123456789"),
        ("sg", "S1234567D"),
        ("ru", "112-233-445 95"),
    ],
)
def test_a_number_without_a_label_needs_its_check_digit(module: str, number: str) -> None:
    assert national_ids.is_valid(module, number)
    place = max(index for index, character in enumerate(number) if character.isdigit())
    wrong = [number[:place] + digit + number[place + 1 :] for digit in "0123456789" if digit != number[place]]
    assert not any(national_ids.is_valid(module, one) for one in wrong)


@pytest.mark.parametrize(
    "text",
    [
        "the population is 1 400 000 000",
        "About 800 000 000 people",
        "the number is 12 000 000",
        "A123456789 is a part of the hash",
        "part no A123456789, see the manual",
        "15000000000 - 13800000000",
        "13800138000 - 13900139000 = -100001000",
        "the number is 1234567",
        "Die Nummer ist 1234567",
        "номер 1234567",
        "9 Lives Lane",
        "3 Wishes Way",
        "Holiday Inn 5001007322",
        "INN 500100732258",
    ],
)
def test_weak_evidence_is_none(text: str) -> None:
    assert find_pii(text) == []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("INN 500100732259", "500100732259"),
        ("INN: 7707083893", "7707083893"),
        ("my number is 555 1234", "555 1234"),
        ("The number is 415 555 0132", "415 555 0132"),
        ("Meine Nummer ist 1234567", "1234567"),
        ("call 13812345678 - 13987654321", "13987654321"),
        ("客服 400-820-8820", "400-820-8820"),
        ("I live at 9 Lives Lane", "9 Lives Lane"),
        ("5 Oaks Road, London NW1 6XE", "5 Oaks Road, London NW1 6XE"),
        ("我是A123456789", "A123456789"),
        ("주민번호: 970131-9811238", "970131-9811238"),
        ("ת.ז. 3933742-3", "3933742-3"),
        ("Führerscheinnummer B072RRE2I55", "B072RRE2I55"),
        ("Kontonummer 532013000", "532013000"),
        ("write to john.o'neil@example.org", "john.o'neil@example.org"),
        ("it is dckr_pat_abcdefghijklmnopqrstuvwxyz1", "dckr_pat_abcdefghijklmnopqrstuvwxyz1"),
        ("Taiwan ROC, A123456789", "A123456789"),
    ],
)
def test_the_same_forms_with_evidence_are_found(text: str, value: str) -> None:
    assert _is_covered(text, value)
