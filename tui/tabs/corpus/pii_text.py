"""Short words for the types of private data, for a column of the list and a line of reasons."""

from __future__ import annotations

from engine.core.i18n import N_, _

PRIVATE_WORDS: dict[str, str] = {
    "PRIVATE_KEY": N_("private key"),
    "API_KEY": N_("API key"),
    "PASSWORD": N_("password"),
    "EMAIL": N_("e-mail"),
    "ID_CARD": N_("ID number"),
    "CREDIT_CODE": N_("credit code"),
    "IBAN": N_("IBAN"),
    "BANK_CARD": N_("bank card"),
    "SSN": N_("SSN"),
    "PASSPORT": N_("passport"),
    "DRIVER_LICENSE": N_("licence"),
    "IP": N_("IP address"),
    "PHONE": N_("phone"),
    "PLATE": N_("plate"),
    "WECHAT": N_("WeChat"),
    "QQ": N_("QQ"),
    "ADDRESS": N_("address"),
}


def private_words(types: str) -> str:
    """ "PHONE, EMAIL" in words; "" when one of them is no type."""
    parts = types.split(", ")
    if not all(part in PRIVATE_WORDS for part in parts):
        return ""
    return _(", ").join(_(PRIVATE_WORDS[part]) for part in parts)
