"""The types of personally identifiable information, with their names on screen."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

from engine.core.i18n import N_

PiiTypeName: TypeAlias = Literal[
    "PRIVATE_KEY", "API_KEY", "PASSWORD", "EMAIL", "ID_CARD", "TAX_NUMBER", "HEALTH_NUMBER", "PERSONAL_NUMBER", "CREDIT_CODE",
    "IBAN", "BANK_CARD", "WALLET", "SSN", "PASSPORT", "DRIVER_LICENSE", "IP", "PHONE", "PLATE", "WECHAT", "QQ", "ADDRESS",
]  # fmt: skip
"""The values of `engine.corpus.filters.pii.PiiType`."""


class PiiNames(NamedTuple):
    """Marked for the catalogs; translate with `_()` where they are shown."""

    title: str
    """Plural, of the row in the settings sheet."""
    label: str
    """Singular and short, of a finding."""


PII_TYPES: dict[PiiTypeName, PiiNames] = {
    "PRIVATE_KEY": PiiNames(N_("private keys"), N_("private key")),
    "API_KEY": PiiNames(N_("API keys and tokens"), N_("API key")),
    "PASSWORD": PiiNames(N_("passwords"), N_("password")),
    "EMAIL": PiiNames(N_("e-mail addresses"), N_("e-mail")),
    "ID_CARD": PiiNames(N_("identity numbers"), N_("ID number")),
    "TAX_NUMBER": PiiNames(N_("tax numbers"), N_("tax number")),
    "HEALTH_NUMBER": PiiNames(N_("health and insurance numbers"), N_("health number")),
    "PERSONAL_NUMBER": PiiNames(N_("student and staff numbers"), N_("student or staff number")),
    "CREDIT_CODE": PiiNames(N_("social credit codes"), N_("credit code")),
    "IBAN": PiiNames(N_("IBAN"), N_("IBAN")),
    "BANK_CARD": PiiNames(N_("bank cards"), N_("bank card")),
    "WALLET": PiiNames(N_("wallet addresses"), N_("wallet")),
    "SSN": PiiNames(N_("SSN"), N_("SSN")),
    "PASSPORT": PiiNames(N_("passports"), N_("passport")),
    "DRIVER_LICENSE": PiiNames(N_("driving licences"), N_("licence")),
    "IP": PiiNames(N_("IP addresses"), N_("IP address")),
    "PHONE": PiiNames(N_("telephone numbers"), N_("phone")),
    "PLATE": PiiNames(N_("number plates"), N_("plate")),
    "WECHAT": PiiNames(N_("WeChat ids"), N_("WeChat")),
    "QQ": PiiNames(N_("QQ numbers"), N_("QQ")),
    "ADDRESS": PiiNames(N_("postal addresses"), N_("address")),
}
"""The one table of types."""
