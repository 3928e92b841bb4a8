"""The page of Google Takeout's My Activity, card by card.

A card names its product; its cell holds the prompt after a verb, its attachments, the time on a line of its own,
and the answer. The names of the folder, the page and the product are in the language of the account: only the
classes of the markup are not.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import msgspec

from engine.core.errors import BadInput
from engine.core.i18n import _
from engine.memory.importers.html_text import MarkdownRenderer
from engine.memory.importers.localized_time import is_time_line, parse_localized_time
from engine.memory.importers.readers.files import OnBytes

_HEAD_BYTES = 2**20
"""The style sheet before the first card is long."""
_CHUNK = 2**18
_PRODUCT = re.compile(r"mdl-typography--title[^>]*>([^<]*)")


class PageCard(msgspec.Struct, kw_only=True):
    """One activity of the page."""

    product: str = ""
    title: str = ""
    """The verb and the words of the prompt; between them a no-break space."""
    is_dated: bool = False
    time: float | None = None
    answer: str = ""
    """The answer as Markdown."""
    attachments: int = 0
    details: str = ""
    """Text and addresses below the answer."""


def is_gemini_page(path: Path) -> bool:
    """Whether the file is a page of My Activity about Gemini or Bard."""
    try:
        with path.open("rb") as file:
            head = file.read(512)
            if not re.match(rb"(?:\xef\xbb\xbf)?\s*(?:<!doctype html|<html)", head, re.IGNORECASE):
                return False
            head += file.read(_HEAD_BYTES)
    except OSError:
        return False
    products = _PRODUCT.findall(head.decode("utf-8", "replace"))
    named = any(re.search("gemini|bard", name, re.IGNORECASE) for name in products)
    return b"outer-cell" in head and (named or (not products and b"gemini.google.com/" in head))


def page_cards(path: Path, on_bytes: OnBytes) -> Iterator[PageCard]:
    """The cards of the page in its order. Raises BadInput when the file cannot be read."""
    parser = _CardParser()
    try:
        with path.open("rb") as file:
            decoder = _decoder()
            while data := file.read(_CHUNK):
                on_bytes(len(data))
                parser.feed(decoder.decode(data))
                yield from parser.take()
    except OSError as error:
        raise BadInput(
            _("The file cannot be read ({reason})").format(reason=error.strerror), path=path
        ) from None
    parser.close()
    parser.finish()
    yield from parser.take()


class _CardParser(HTMLParser):
    """Splits the page at its cells by their classes and renders the text of each."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._cards: list[PageCard] = []
        self._card: PageCard | None = None
        self._depth = 0
        """Open `div` elements of the current cell; 0 outside any."""
        self._cell = ""
        self._lines: list[str] = [""]
        self._files_at = 0
        """Line of the first attachment; 0 for none."""
        self._answer: MarkdownRenderer | None = None

    def take(self) -> list[PageCard]:
        """The complete cards since the last call."""
        cards, self._cards = self._cards, []
        return cards

    def finish(self) -> None:
        """Ends the last card."""
        self._end_cell()
        if self._card is not None:
            self._cards.append(self._card)
            self._card = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        classes = (dict(attrs).get("class") or "").split() if tag == "div" else []
        if "outer-cell" in classes:
            self.finish()
            self._card = PageCard()
        elif self._card is None:
            return
        elif "header-cell" in classes or "content-cell" in classes:
            self._end_cell()
            self._cell = next(
                (
                    cell
                    for name, cell in (
                        ("header-cell", "header"),
                        ("mdl-typography--text-right", "preview"),
                        ("mdl-typography--caption", "details"),
                    )
                    if name in classes
                ),
                "body",
            )
            self._depth = 1
        elif self._depth:
            self._depth += tag == "div"
            self._tag_in_cell(tag, attrs)
        elif tag == "a":
            self._card.details += f" {dict(attrs).get('href')} "

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if not self._depth:
            return
        if tag == "div":
            self._depth -= 1
            if not self._depth:
                self._end_cell()
                return
        if self._answer is not None:
            self._answer.handle_endtag(tag)

    def handle_data(self, data: str) -> None:
        if not self._depth:
            return
        if self._answer is not None:
            self._answer.handle_data(data)
        else:
            self._lines[-1] += data

    def _tag_in_cell(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._answer is not None:
            self._answer.handle_starttag(tag, attrs)
            return
        if tag == "a" and self._card is not None:
            href = dict(attrs).get("href") or ""
            if self._cell == "details":
                self._lines[-1] += f" {href} "
            elif self._cell == "body" and self._lines[-1].strip() == "-":
                self._card.attachments += 1
                self._files_at = self._files_at or len(self._lines) - 1
        if tag in ("br", "p", "div"):
            self._end_line()

    def _end_line(self) -> None:
        card = self._card
        if (
            card is not None
            and self._cell == "body"
            and len(self._lines) > 1
            and is_time_line(self._lines[-1].strip())
        ):
            card.is_dated = True
            card.time = parse_localized_time(self._lines.pop().strip())
            self._answer = MarkdownRenderer()
        else:
            self._lines.append("")

    def _end_cell(self) -> None:
        card = self._card
        if card is not None and self._depth | bool(self._cell):
            if self._cell == "body":
                self._end_line()
                lines = [line.strip(" \t\r\n") for line in self._lines]
                if self._files_at:
                    # The line before the first file says how many there are.
                    lines = lines[: max(1, self._files_at - 1)]
                card.title = "\n".join(lines).strip()
                card.answer = self._answer.text() if self._answer is not None else ""
            elif self._cell == "header":
                card.product = "".join(self._lines).strip()
            elif self._cell == "details":
                card.details += " ".join(self._lines)
        self._depth, self._cell, self._lines, self._answer, self._files_at = 0, "", [""], None, 0


def _decoder() -> codecs.IncrementalDecoder:
    return codecs.getincrementaldecoder("utf-8-sig")("replace")
