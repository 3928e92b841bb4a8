"""Documents that an answer wrote beside the chat: Claude's artifacts and ChatGPT's canvas.

The person asked for the document, so it is the answer. It is known where the export holds the whole of it: a document
that was created or rewritten, and an edit of one whose text is known.
"""

from __future__ import annotations

import json
import re
from typing import Any

_PROSE = frozenset(("text/markdown", "text/plain", "document", ""))
_LANGUAGES = {
    "text/html": "html",
    "image/svg+xml": "svg",
    "application/vnd.ant.mermaid": "mermaid",
    "application/vnd.ant.react": "jsx",
}
_OUTPUTS = "/mnt/user-data/outputs/"
"""Where Claude's file tool puts what the person gets."""
_ARTIFACT = re.compile(r"<antArtifact\b([^<>]{0,2000})>")
_ATTRIBUTE = re.compile(r'(?<!\w)(\w{1,64})="([^"]*)"')
_ARTIFACT_END = "</antArtifact>"


def as_document(text: str, type_: str, language: str = "") -> str:
    """Prose as it is; code between fences."""
    if type_.startswith("code/"):
        language = language or type_.removeprefix("code/")
    elif type_ in _PROSE and not language:
        return text.strip("\n")
    fence = "```"
    while fence in text:
        fence += "`"
    language = language or _LANGUAGES.get(type_, "")
    return f"{fence}{language}\n{text.strip(chr(10))}\n{fence}"


def inline_artifacts(text: str) -> str:
    """`text` with the documents in `<antArtifact>` tags (2024) as documents; linear in the length of any text."""
    kept: list[str] = []
    place = 0
    while opening := _ARTIFACT.search(text, place):
        end = text.find(_ARTIFACT_END, opening.end())
        if end < 0:
            break
        attributes = dict(_ATTRIBUTE.findall(opening[1]))
        document = as_document(
            text[opening.end() : end], attributes.get("type", ""), attributes.get("language", "")
        )
        kept += (text[place : opening.start()], document)
        place = end + len(_ARTIFACT_END)
    return "".join((*kept, text[place:]))


class Documents:
    """The documents of a conversation by id, for the edits that follow."""

    def __init__(self) -> None:
        self._texts: dict[str, tuple[str, str, str]] = {}

    def copy(self) -> Documents:
        """The same documents, for the messages of one branch."""
        same = Documents()
        same._texts = dict(self._texts)
        return same

    def written_by(self, tool: object, call: object) -> str | None:
        """The document that a tool call of Claude wrote; None when the call is another or the text is not known."""
        if not isinstance(call, dict):
            return None
        if tool == "create_file":
            path, text = call.get("path"), call.get("file_text")
            is_output = isinstance(path, str) and path.startswith(_OUTPUTS)
            if not is_output or not isinstance(path, str) or not isinstance(text, str):
                return None
            suffix = path.rpartition(".")[2] if "." in path.rpartition("/")[2] else ""
            return as_document(text, "text/plain", "" if suffix in ("md", "txt", "") else suffix)
        if tool != "artifacts":
            return None
        id_ = str(call.get("id") or "")
        text, type_, language = self._texts.get(id_, ("", "", ""))
        if isinstance(call.get("content"), str) and call["content"].strip():
            text = call["content"]
            type_ = call["type"] if isinstance(call.get("type"), str) else type_
            language = call["language"] if isinstance(call.get("language"), str) else language
        elif isinstance(call.get("old_str"), str) and call["old_str"] and call["old_str"] in text:
            new = call.get("new_str")
            text = text.replace(call["old_str"], new if isinstance(new, str) else "", 1)
        else:
            return None
        self._texts[id_] = text, type_, language
        return as_document(text, type_, language)


def canvas_document(tool: str, text: str) -> str | None:
    """The document that ChatGPT's call of `canmore` wrote: created, or rewritten as a whole. None for other calls."""
    try:
        call: Any = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(call, dict):
        return None
    type_ = call["type"] if isinstance(call.get("type"), str) else ""
    if tool == "canmore.create_textdoc" and isinstance(call.get("content"), str):
        written = call["content"]
    elif tool == "canmore.update_textdoc" and isinstance(call.get("updates"), list):
        whole = [
            update["replacement"]
            for update in call["updates"]
            if isinstance(update, dict)
            and update.get("pattern") in (".*", "(?s).*", "^.*$", "[\\s\\S]*")
            and isinstance(update.get("replacement"), str)
        ]
        if len(call["updates"]) != 1 or not whole:
            return None
        written = whole[0]
    else:
        return None
    return as_document(written, type_) if written.strip() else None
