"""The encodings of text files: UTF-8 and UTF-16 are read, others are recognised so that an error can name them.

Not charset-normalizer: it takes short GBK texts for Korean, and a damaged UTF-8 text for Latin-2.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable

SAMPLE = 2**16
"""Bytes that the recognition reads."""

DAMAGED_UTF8 = "damaged UTF-8"
BINARY = "binary"

_MULTIBYTE = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
_WRITTEN = re.compile(
    "[\t\n\r -~\xa0-\u0dff\u0e00-\u0eff\u1e00-\u206f\u2100-\u23ff\u2500-\u27bf\u3000-\u30ff\u4e00-\u9fff"
    "\uac00-\ud7a3\uff00-\uffef\U0001f000-\U0001faff]"
)
_HIGH = re.compile(rb"[\x80-\xff]+")


def text_encoding(start: bytes) -> str:
    """The Python codec that reads a text with these first bytes: by its byte order mark, or UTF-16 by its zero
    bytes, which line ends, blanks and digits have in every language."""
    if start.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    zeros = start.count(0)
    # A text in UTF-8 may hold zero bytes too, but not every second one.
    if zeros and (zeros > 0.2 * len(start) or _decodes(start, "utf-8") is None):
        share, encoding = max((_written_share(start, name), name) for name in ("utf-16-le", "utf-16-be"))
        if share > 0.95:
            return encoding
    return "utf-8-sig"


def _written_share(data: bytes, encoding: str) -> float:
    """The part of the characters that stand in the blocks of living scripts; 0 when the text cannot be decoded."""
    text = _decodes(data, encoding)
    return len(_WRITTEN.findall(text)) / len(text) if text else 0.0


def sample_text(start: bytes) -> str:
    """The first bytes of a text decoded, with U+FFFD for what cannot be."""
    return start.decode(text_encoding(start), "replace")


def is_binary(start: bytes) -> bool:
    """Whether a file with these first bytes is no text, although its bytes may be valid UTF-8."""
    return _has_controls(sample_text(start).encode("utf-8", "replace"))


def _has_controls(data: bytes) -> bool:
    controls = sum(data.count(bytes([byte])) for byte in (*range(9), *range(14, 27), *range(28, 32), 127))
    return controls > 0.02 * len(data)


def legacy_encoding(data: bytes) -> str:
    """The encoding, as `iconv` names it, of text that is not UTF-8; `DAMAGED_UTF8` or `BINARY`; "" when unknown."""
    if _has_controls(data):
        return BINARY
    if _is_mostly_utf8(data):
        return DAMAGED_UTF8
    scores = {name: score(data) for name, score in _SCORES.items()}
    best = max(scores, key=lambda name: scores[name])
    return best if scores[best] > 0.5 else ""


def _is_mostly_utf8(data: bytes) -> bool:
    high = sum(map(len, _HIGH.findall(data)))
    valid = sum(map(len, _MULTIBYTE.findall(data)))
    return valid > 0.8 * high > 0


def _decodes(data: bytes, encoding: str) -> str | None:
    """The text; None when it is not in this encoding. A character cut off at the end is dropped."""
    try:
        return codecs.getincrementaldecoder(encoding)().decode(data)
    except UnicodeDecodeError:
        return None


def _lead_bytes(data: bytes, encoding: str) -> list[int] | None:
    """The first byte of each two-byte character; None when the text is not in this encoding."""
    text = _decodes(data, encoding)
    if text is None:
        return None
    coded = (char.encode(encoding, "replace") for char in text if ord(char) > 127)
    return [char[0] for char in coded if len(char) == 2]


def _share(leads: list[int] | None, *ranges: tuple[int, int]) -> float:
    if not leads:
        return 0.0
    return sum(any(low <= lead <= high for low, high in ranges) for lead in leads) / len(leads)


def _score_gb18030(data: bytes) -> float:
    # Punctuation, full-width signs, and the 3,755 characters of level 1.
    return 0.98 * _share(_lead_bytes(data, "gb18030"), (0xA1, 0xA3), (0xB0, 0xD7))


def _score_big5(data: bytes) -> float:
    # Punctuation and the 5,401 characters of level 1, two thirds of which GBK keeps elsewhere.
    return 0.97 * _share(_lead_bytes(data, "big5"), (0xA1, 0xA1), (0xA4, 0xC6))


def _score_korean(data: bytes) -> float:
    # Hangul alone: a Chinese text has hanja among its lead bytes after a few words.
    leads = _lead_bytes(data, "cp949")
    share = _share(leads, (0xA1, 0xA3), (0xB0, 0xC8))
    hangul = _share(leads, (0xB0, 0xC8))
    return share if share > 0.98 and hangul > 0.7 and leads and len(leads) > 8 else 0.0


def _score_kana(data: bytes, encoding: str) -> float:
    text = _decodes(data, encoding)
    wide = [char for char in text or "" if ord(char) > 127]
    if not wide or any("\uff61" <= char <= "\uff9f" for char in wide):
        return 0.0
    kana = sum("\u3040" <= char <= "\u30ff" for char in wide)
    return 0.99 if kana > 0.25 * len(wide) else 0.0


def _score_cyrillic(data: bytes, encoding: str) -> float:
    text = _decodes(data, encoding)
    words = re.findall(r"[^\W\d_]+", text or "")
    cyrillic = [word for word in words if all("\u0400" <= char <= "\u04ff" for char in word)]
    # In the wrong code page, capitals stand inside the words.
    natural = [word for word in cyrillic if word == word.lower() or word.istitle() or word.isupper()]
    letters = sum(map(len, natural))
    high = sum(map(len, _HIGH.findall(data)))
    return 0.96 * min(1.0, letters / high) if high and letters > 4 else 0.0


def _score_western(data: bytes, lowest: int) -> float:
    # One or two letters with an accent, or a quotation mark, between ASCII letters.
    runs = _HIGH.findall(data)
    single = sum(len(run) <= 2 and min(run) >= lowest for run in runs)
    return 0.9 * single / len(runs) if runs else 0.0


def _score_windows(data: bytes) -> float:
    # Only with bytes that ISO-8859-1 leaves to controls.
    has_quotes = re.search(rb"[\x80\x85\x91-\x97]", data) and _decodes(data, "cp1252") is not None
    return 1.01 * _score_western(data, 0x80) if has_quotes else 0.0


_SCORES: dict[str, Callable[[bytes], float]] = {
    "GB18030": _score_gb18030,
    "BIG5": _score_big5,
    "CP949": _score_korean,
    "SHIFT_JIS": lambda data: _score_kana(data, "cp932"),
    "EUC-JP": lambda data: _score_kana(data, "euc_jp"),
    "CP1251": lambda data: _score_cyrillic(data, "cp1251"),
    "KOI8-R": lambda data: _score_cyrillic(data, "koi8_r"),
    "CP1252": _score_windows,
    "ISO-8859-1": lambda data: _score_western(data, 0xA0),
}
