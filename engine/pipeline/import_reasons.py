"""Why messages and files were left out of an import, in the user's language."""

from __future__ import annotations

from engine.core.i18n import N_, _, colon

_REASON_TEXTS = {
    "activity of another product": N_("activity of another product"),
    "activity without a message": N_("activity without a message"),
    "another key": N_("unrelated key"),
    "answer that its source rejects": N_("rejected answer"),
    "chat in a storage that is not read": N_("chat in a storage that is not read"),
    "call": N_("call"),
    "chat with a bot": N_("message of a chat with a bot"),
    "chat with one speaker": N_("message of a chat with one speaker"),
    "chat without the person of --me": N_("message of a chat without the person of --me"),
    "citation": N_("citation mark"),
    "contact card": N_("contact card"),
    "forwarded message": N_("forwarded message"),
    "group chat": N_("message of a group chat"),
    "link card": N_("link card"),
    "location": N_("location"),
    "message joined to the one before": N_("message joined to the one before"),
    "message that answers nothing": N_("message that answers nothing"),
    "message without an answer": N_("message without an answer"),
    "reaction": N_("reaction"),
    "recalled message": N_("recalled message"),
    "sticker": N_("sticker"),
    "transfer or red packet": N_("transfer or red packet"),
    "video": N_("video"),
    "voice message": N_("voice message"),
    "attachment": N_("attachment"),
    "deleted message": N_("deleted message"),
    "empty conversation": N_("empty conversation"),
    "empty memory point": N_("empty memory point"),
    "empty message": N_("empty message"),
    "entry of another shape": N_("malformed entry"),
    "failed answer": N_("failed answer"),
    "file of another kind": N_("file of an unsupported format"),
    "file that cannot be read": N_("unreadable file"),
    "forgotten earlier": N_("forgotten earlier"),
    "hidden message": N_("hidden message"),
    "history of another shape": N_("malformed history"),
    "image": N_("image"),
    "index of a skill": N_("skill index"),
    "line before the first speaker": N_("line before the first speaker"),
    "message joined to one answer": N_("message joined to one answer"),
    "message of a sub-agent": N_("message of a sub-agent"),
    "message of another branch": N_("message on another branch"),
    "message of another shape": N_("malformed message"),
    "message without a conversation": N_("message without a conversation"),
    "message without a role": N_("message without a role"),
    "notice of the program": N_("notice of the program"),
    "reasoning": N_("reasoning"),
    "record without a message": N_("record without a message"),
    "repeated message": N_("repeated message"),
    "row of another shape": N_("malformed row"),
    "row without an answer": N_("row without an answer"),
    "temporary conversation": N_("temporary conversation"),
    "text added by the program": N_("text added by the program"),
    "tool description": N_("tool description"),
    "tool message": N_("tool message"),
    "unknown role": N_("unknown role, see --map"),
}


def reason_text(reason: str) -> str:
    """A `Skipped.reason` in the user's language; a name from the file may follow a colon."""
    cause, separator, name = reason.partition(": ")
    text = _(_REASON_TEXTS.get(cause, cause))
    return colon(text, name) if separator else text


def empty_file_text(skipped: dict[str, int]) -> str:
    """Why a file yielded no conversation."""
    if not skipped:
        return _("There are no conversations in this file")
    return _("There are no conversations in this file, only {reasons}").format(reasons=_counted(skipped))


def empty_text(skipped: dict[str, int]) -> str:
    """Why the files of a folder or an archive yielded no conversation."""
    return _("There are no conversations here, only {reasons}").format(reasons=_counted(skipped))


def _counted(skipped: dict[str, int]) -> str:
    return _(", ").join(f"{count} × {reason_text(reason)}" for reason, count in skipped.items())
