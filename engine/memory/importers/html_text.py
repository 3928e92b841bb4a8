"""HTML of an answer as Markdown, the form in which models write: paragraphs, lists, code, tables, emphasis, links."""

from __future__ import annotations

import re
from html.parser import HTMLParser

_SPACE = re.compile(r"[ \t\r\n\f\v\xa0]+")
_PARAGRAPHS = frozenset(("p", "div", "section", "article", "blockquote", "ul", "ol", "table", "pre", "hr"))
_MARKS = {"strong": "**", "b": "**", "em": "*", "i": "*"}
_HIDDEN = frozenset(("script", "style", "head", "template"))
_MAX_DEPTH = 50


def html_to_text(html: str) -> str:
    """The text of an HTML fragment. Malformed markup is read as far as browsers read it."""
    renderer = MarkdownRenderer()
    renderer.feed(html)
    renderer.close()
    return renderer.text()


class MarkdownRenderer(HTMLParser):
    """Collects the Markdown of the HTML that is fed to it."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._parts: list[str] = []
        self._newlines = 2
        """Line ends after the last visible text, at most 2."""
        self._wanted = 0
        """Line ends before the next visible text."""
        self._space = False
        self._lists: list[int] = []
        """Of each open list, the number of its next item; 0 for bullets."""
        self._links: list[tuple[str, int]] = []
        """Address of each open link, and where its text begins in the parts."""
        self._prefix = ""
        self._fence = False
        """A code block has begun, without its first line."""
        self._hidden = self._pre = self._cells = self._rows = 0

    def text(self) -> str:
        """What was fed so far, as Markdown."""
        return "".join(self._parts).strip("\n")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _HIDDEN:
            self._hidden += 1
        elif self._hidden:
            return
        elif tag == "br":
            self.line_break()
        elif tag in _MARKS and not self._pre:
            self._open(_MARKS[tag])
        elif tag == "code" and not self._pre:
            self._open("`")
        elif tag == "a":
            self._links.append((dict(attrs).get("href") or "", len(self._parts)))
        elif tag == "li":
            self._item()
        elif tag in ("td", "th"):
            self._open("| " if not self._cells else " | ")
            self._cells += 1
        elif tag == "tr":
            self._want(1)
            self._cells = 0
        elif tag == "pre":
            self._want(2)
            self._pre += 1
            self._open("```")
            self._fence = True
        elif tag == "code" and self._fence:
            language = re.search(r"\blanguage-([\w+#.-]+)", dict(attrs).get("class") or "")
            self._write(language[1] if language else "")
        elif re.fullmatch(r"h[1-6]", tag):
            self._want(2)
            self._open("#" * int(tag[1]) + " ")
        elif tag in _PARAGRAPHS:
            self._begin_block(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in _HIDDEN:
            self._hidden = max(0, self._hidden - 1)
        elif self._hidden:
            return
        elif tag in _MARKS and not self._pre:
            self._close(_MARKS[tag])
        elif tag == "code" and not self._pre:
            self._close("`")
        elif tag == "a" and self._links:
            self._end_link()
        elif tag == "tr" and self._cells:
            self._write(" |")
            self._rows += 1
            if self._rows == 1:
                self._write("\n|" + " --- |" * self._cells)
            self._cells = 0
            self._want(1)
        elif tag == "pre" and self._pre:
            self._pre -= 1
            self._end_fence()
            if not self._newlines:
                self._write("\n")
            self._write("```")
            self._want(2)
        elif tag == "li":
            self._want(1)
        elif tag in ("ul", "ol") and self._lists:
            self._lists.pop()
            self._want(1 if self._lists else 2)
        elif tag in _PARAGRAPHS or re.fullmatch(r"h[1-6]", tag):
            self._want(1 if self._lists and tag != "pre" else 2)

    def handle_data(self, data: str) -> None:
        if self._hidden:
            return
        if self._pre:
            self._end_fence()
            self._write(data)
            return
        text = _SPACE.sub(" ", data)
        if self._cells:
            text = text.replace("|", "\\|")
        if not text.strip(" "):
            self._space = self._space or bool(text)
            return
        self._space = self._space or text.startswith(" ")
        self._open("")
        self._write(text.strip(" "))
        self._space = text.endswith(" ")

    def line_break(self) -> None:
        """Begins a new line."""
        if self._pre:
            self._write("\n")
        elif self._cells:
            self._space = True
        else:
            self._want(min(2, self._wanted + 1))

    def _end_fence(self) -> None:
        if self._fence:
            self._fence = False
            self._write("\n")

    def _begin_block(self, tag: str) -> None:
        if tag in ("ul", "ol"):
            self._want(1 if self._lists else 2)
            self._lists = [*self._lists, int(tag == "ol")][:_MAX_DEPTH]
            return
        if tag == "table":
            self._rows = 0
        if not self._cells:
            # Of the paragraph of a list item, its mark is the beginning.
            self._want(1 if self._lists else 2)
        if tag == "hr":
            self._open("---")
            self._want(2)

    def _item(self) -> None:
        self._want(1)
        depth = max(0, len(self._lists) - 1)
        number = self._lists[-1] if self._lists else 0
        if number:
            self._lists[-1] = number + 1
        self._prefix = "   " * depth + (f"{number}. " if number else "- ")

    def _end_link(self) -> None:
        href, start = self._links.pop()
        label = "".join(self._parts[start:]).strip()
        if href.startswith(("http://", "https://")) and label and label != href and "\n" not in label:
            lead = "".join(self._parts[start:])
            lead = lead[: len(lead) - len(lead.lstrip())]
            self._parts[start:] = [f"{lead}[{label}]({href})"]

    def _want(self, newlines: int) -> None:
        self._wanted = max(self._wanted, newlines)
        self._space = False

    def _open(self, mark: str) -> None:
        """Writes the line ends and the space that are due, then `mark`."""
        if self._wanted and not self._prefix_alone():
            self._write("\n" * (self._wanted - self._newlines))
        self._wanted = 0
        if self._prefix:
            self._write(self._prefix)
            self._prefix = ""
        elif self._space and not self._newlines:
            self._write(" ")
        self._space = False
        if mark:
            self._write(mark)

    def _prefix_alone(self) -> bool:
        """Whether nothing was written yet."""
        return not self._parts

    def _close(self, mark: str) -> None:
        space, self._space = self._space, False
        if self._parts and self._parts[-1] == mark:
            self._parts.pop()  # nothing stands between the marks
        else:
            self._write(mark)
        self._space = space

    def _write(self, text: str) -> None:
        if not text:
            return
        self._parts.append(text)
        if text[-1] != "\n":
            self._newlines = 0
            return
        ends = len(text) - len(text.rstrip("\n"))
        self._newlines = min(2, ends if ends < len(text) else self._newlines + ends)
