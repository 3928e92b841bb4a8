"""An adapter that a hive does not take, by a rule that needs more than the adapter itself."""

from __future__ import annotations

from engine.core.errors import BadInput
from engine.hive.protocol import AdmissionRule


class Inadmissible(BadInput):
    """`rule` says which rule of admission the adapter breaks; `engine.hive.lora_file.BadAdapter` is its sibling."""

    def __init__(self, rule: AdmissionRule, message: str) -> None:
        super().__init__(message)
        self.rule = rule
