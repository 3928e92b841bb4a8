"""Check digits of identity and account numbers, and IP addresses that identify somebody."""

from __future__ import annotations

import ipaddress

_RIC_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_RIC_CHECK = "10X98765432"
_USCC_ALPHABET = "0123456789ABCDEFGHJKLMNPQRTUWXY"
_USCC_WEIGHTS = tuple(pow(3, place, 31) for place in range(17))
_PROVINCES = frozenset(
    (
        11,
        12,
        13,
        14,
        15,
        21,
        22,
        23,
        31,
        32,
        33,
        34,
        35,
        36,
        37,
        41,
        42,
        43,
        44,
        45,
        46,
        50,
        51,
        52,
        53,
        54,
        61,
        62,
        63,
        64,
        65,
        71,
        81,
        82,
        83,
        91,
    )
)


def luhn(digits: str) -> bool:
    """Luhn check (ISO/IEC 7812-1) of payment cards."""
    total = 0
    for place, character in enumerate(reversed(digits)):
        value = ord(character) - 48
        if place % 2:
            value = value * 2 - 9 if value > 4 else value * 2
        total += value
    return total % 10 == 0


def card_brand(digits: str) -> bool:
    """Whether prefix and length are those of a major card issuer (ISO/IEC 7812)."""
    length = len(digits)
    two, three, four = int(digits[:2]), int(digits[:3]), int(digits[:4])
    if two == 62 or four == 9558:
        return 16 <= length <= 19
    if digits[0] == "4":
        return length in (13, 16, 18, 19)
    if 51 <= two <= 55 or 2221 <= four <= 2720:
        return length == 16
    if two in (34, 37):
        return length == 15
    if 300 <= three <= 305 or two in (36, 38, 39):
        return 14 <= length <= 19
    if four in (2131, 1800):
        return length == 15
    if two == 35 or four == 6011 or two == 65 or 644 <= three <= 649:
        return 16 <= length <= 19
    return (two in (50, 60) or 56 <= two <= 69) and 12 <= length <= 19


def resident_id_date(number: str) -> bool:
    """Whether province and birth date of an 18-digit Chinese resident ID (GB 11643) are possible."""
    year, month, day = int(number[6:10]), int(number[10:12]), int(number[12:14])
    return int(number[:2]) in _PROVINCES and 1880 <= year <= 2100 and 1 <= month <= 12 and 1 <= day <= 31


def resident_id(number: str) -> bool:
    """Whether an 18-digit Chinese resident ID has a valid check digit (ISO 7064 MOD 11-2)."""
    if not number[:17].isdigit() or not resident_id_date(number):
        return False
    total = sum(weight * int(digit) for weight, digit in zip(_RIC_WEIGHTS, number, strict=False))
    return _RIC_CHECK[total % 11] == number[17].upper()


def old_resident_id(number: str) -> bool:
    """Whether province and date of the 15-digit form used until 1999, without check digit, are possible."""
    return int(number[:2]) in _PROVINCES and 1 <= int(number[8:10]) <= 12 and 1 <= int(number[10:12]) <= 31


def credit_code(code: str) -> bool:
    """Whether a Chinese unified social credit code (GB 32100, 18 characters, MOD 31) is valid."""
    try:
        values = [_USCC_ALPHABET.index(character) for character in code.upper()]
    except ValueError:
        return False
    return (31 - sum(v * w for v, w in zip(values, _USCC_WEIGHTS, strict=False)) % 31) % 31 == values[17]


def iban(code: str) -> bool:
    """Whether an IBAN is valid (ISO 13616, MOD 97-10)."""
    if not code.isascii():  # re.IGNORECASE matches ı with i and ſ with s
        return False
    moved = code[4:] + code[:4]
    return int("".join(str(int(character, 36)) for character in moved)) % 97 == 1


def hong_kong_id(code: str) -> bool:
    """Whether a Hong Kong ID (letters, six digits, check character MOD 11), without brackets, is valid."""
    body, check = code[:-1].upper(), code[-1].upper()
    letters = body[:-6].rjust(2)
    values = [36 if letter == " " else ord(letter) - 55 for letter in letters] + [
        int(digit) for digit in body[-6:]
    ]
    total = sum(value * weight for value, weight in zip(values, range(9, 1, -1), strict=True))
    return (total + (10 if check == "A" else int(check))) % 11 == 0


def is_identifying_address(address: str) -> bool:
    """Whether an IP address is valid and not private, loopback, a mask or a public resolver."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if ip.is_loopback or ip.is_link_local or ip.is_multicast or ip.is_unspecified:
        return False
    if isinstance(ip, ipaddress.IPv4Address):
        return not any(ip in network for network in _HARMLESS)
    return ip not in _ULA


_HARMLESS = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", 
        "240.0.0.0/4", "1.1.1.1/32", "1.0.0.1/32", "8.8.8.8/32", "8.8.4.4/32", "9.9.9.9/32", "114.114.114.114/32", "223.5.5.5/32",
    )
)  # fmt: skip
_ULA = ipaddress.IPv6Network("fc00::/7")


def taiwan_id(code: str) -> bool:
    """Whether a Taiwanese ID (a letter and nine digits) has a valid check digit."""
    letter = "ABCDEFGHJKLMNPQRSTUVXYWZIO".index(code[0].upper()) + 10
    digits = [letter // 10, letter % 10, *map(int, code[1:])]
    return sum(d * w for d, w in zip(digits, (1, 9, 8, 7, 6, 5, 4, 3, 2, 1, 1), strict=True)) % 10 == 0


_NRIC_CHECKS = {
    "S": "JZIHGFEDCBA",
    "T": "GFEDCBAJZIH",
    "F": "XWUTRQPNMLK",
    "G": "RQPNMLKXWUT",
    "M": "XWUTRQPNJLK",
}


def singapore_id(code: str) -> bool:
    """Whether a Singaporean NRIC or FIN has a valid check letter."""
    total = sum(int(d) * w for d, w in zip(code[1:8], (2, 7, 6, 5, 4, 3, 2), strict=True))
    total += 3 if code[0] == "M" else 0
    return code[8] == _NRIC_CHECKS[code[0]][total % 11]


def russian_insurance(code: str) -> bool:
    """Whether a Russian SNILS (nine digits and two check digits) is valid."""
    total = sum(int(d) * w for d, w in zip(code[:9], range(9, 0, -1), strict=True)) % 101
    return (0 if total == 100 else total) == int(code[9:])


def russian_taxpayer(code: str) -> bool:
    """Whether a Russian INN of ten or twelve digits is valid."""

    def digit(weights: tuple[int, ...]) -> int:
        return sum(int(d) * w for d, w in zip(code, weights, strict=False)) % 11 % 10

    first = (7, 2, 4, 10, 3, 5, 9, 4, 6, 8)
    if len(code) == 10:
        return digit(first[1:]) == int(code[9])
    return len(code) == 12 and digit(first) == int(code[10]) and digit((3, *first)) == int(code[11])
