"""One chat between two people in the shape of each program that exports such chats."""

from __future__ import annotations

import csv
import json
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

Message = tuple[bool, str, int]
"""Whether I wrote it, the words, seconds since the epoch."""
Writer = Callable[[Path, Sequence[Message], str], Path]
"""Takes a folder, the messages and the name of the contact; gives the file."""

ME = "Ann"


def _wall(time: int) -> str:
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _json(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    return path


def _jsonl(path: Path, rows: Sequence[object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    return path


def telegram_chat(messages: Sequence[Message], contact: str) -> dict[str, Any]:
    listed = [
        {
            "id": number,
            "type": "message",
            "date": _wall(time).replace(" ", "T"),
            "date_unixtime": str(time),
            "from": ME if is_me else contact,
            "from_id": "user111" if is_me else f"user{_number(contact)}",
            "text": [text[:1], {"type": "bold", "text": text[1:]}],
        }
        for number, (is_me, text, time) in enumerate(messages)
    ]
    return {"name": contact, "type": "personal_chat", "id": _number(contact), "messages": listed}


def _number(contact: str) -> int:
    return 1000 + sum(contact.encode())


def telegram(folder: Path, messages: Sequence[Message], contact: str) -> Path:
    return _json(folder / "result.json", telegram_chat(messages, contact))


def telegram_account(folder: Path, messages: Sequence[Message], contact: str) -> Path:
    chats = {"about": "All chats", "list": [telegram_chat(messages, contact)]}
    owner = {"user_id": 111, "first_name": ME}
    return _json(folder / "result.json", {"about": "x", "personal_information": owner, "chats": chats})


def _csv(path: Path, rows: list[dict[str, object]], encoding: str = "utf-8") -> Path:
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def pywxdump(folder: Path, messages: Sequence[Message], contact: str) -> Path:
    rows: list[dict[str, object]] = [
        {
            "id": number,
            "MsgSvrID": 743726714 + number,
            "type_name": "文本",
            "is_sender": int(is_me),
            "talker": "wxid_me" if is_me else f"wxid_{contact}",
            "room_name": f"wxid_{contact}",
            "msg": text,
            "src": "",
            "CreateTime": _wall(time),
        }
        for number, (is_me, text, time) in enumerate(messages)
    ]
    return _csv(folder / "wxid_0_5000.csv", rows)


def memotrace(folder: Path, messages: Sequence[Message], contact: str) -> Path:
    rows: list[dict[str, object]] = [
        {
            "localId": number,
            "TalkerId": 9,
            "Type": 1,
            "SubType": 0,
            "IsSender": int(is_me),
            "CreateTime": time,
            "Status": 3,
            "StrContent": text,
            "StrTime": _wall(time),
            "Remark": ME if is_me else contact,
            "NickName": ME if is_me else contact,
            "Sender": "wxid_me" if is_me else f"wxid_{contact}",
        }
        for number, (is_me, text, time) in enumerate(messages)
    ]
    return _csv(folder / "Bo_utf8.csv", rows, "utf-8-sig")


def weflow(folder: Path, messages: Sequence[Message], contact: str) -> Path:
    rows = [
        {
            "localId": number,
            "createTime": time,
            "type": "文本消息",
            "localType": 1,
            "content": text,
            "isSend": int(is_me),
            "senderUsername": "wxid_me" if is_me else f"wxid_{contact}",
            "senderDisplayName": ME if is_me else contact,
        }
        for number, (is_me, text, time) in enumerate(messages)
    ]
    session = {"wxid": f"wxid_{contact}", "displayName": contact, "type": "私聊"}
    return _json(folder / "weflow.json", {"weflow": {}, "session": session, "messages": rows})


def echotrace(folder: Path, messages: Sequence[Message], contact: str) -> Path:
    path = weflow(folder, messages, contact)
    value = json.loads(path.read_text("utf-8"))
    del value["weflow"]
    return _json(path.rename(folder / "echotrace.json"), value)


def _chatlab(messages: Sequence[Message], contact: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    meta = {"name": contact, "platform": "wechat", "type": "private", "ownerId": "me"}
    return meta, [
        {
            "sender": "me" if is_me else contact,
            "accountName": ME if is_me else contact,
            "timestamp": time,
            "type": 0,
            "content": text,
        }
        for is_me, text, time in messages
    ]


def chatlab(folder: Path, messages: Sequence[Message], contact: str) -> Path:
    meta, rows = _chatlab(messages, contact)
    return _json(folder / "chatlab.json", {"chatlab": {"version": "0.0.2"}, "meta": meta, "messages": rows})


def chatlab_lines(folder: Path, messages: Sequence[Message], contact: str) -> Path:
    meta, rows = _chatlab(messages, contact)
    head = {"_type": "header", "chatlab": {"version": "0.0.2"}, "meta": meta}
    return _jsonl(folder / "chatlab.jsonl", [head, *({"_type": "message", **row} for row in rows)])


def _qq(messages: Sequence[Message], contact: str) -> list[dict[str, Any]]:
    return [
        {
            "id": str(number),
            "timestamp": time * 1000,
            "sender": {
                "uid": "u_me" if is_me else f"u_{contact}",
                "uin": "111" if is_me else f"9{_number(contact)}",
                "name": ME if is_me else contact,
            },
            "type": "text",
            "content": {"text": text, "elements": [], "resources": []},
            "recalled": False,
            "system": False,
        }
        for number, (is_me, text, time) in enumerate(messages)
    ]


def qq(folder: Path, messages: Sequence[Message], contact: str) -> Path:
    info = {"name": contact, "type": "private", "selfUid": "u_me"}
    value = {"metadata": {}, "chatInfo": info, "statistics": {}, "messages": _qq(messages, contact)}
    return _json(folder / "qq.json", value)


def qq_chunks(folder: Path, messages: Sequence[Message], contact: str) -> Path:
    _json(folder / "manifest.json", {"chatInfo": {"name": contact, "type": "private", "selfUid": "u_me"}})
    return _jsonl(folder / "chunks" / "chunk_0001.jsonl", _qq(messages, contact))


def qq_text(folder: Path, messages: Sequence[Message], contact: str) -> Path:
    lines = ["消息记录（此消息记录为文本格式，不支持重新导入）", "", f"消息对象:{contact}", "=" * 60, ""]
    for is_me, text, time in messages:
        who = f"{ME}(111)" if is_me else f"{contact}(9{_number(contact)})"
        lines += [f"{_wall(time)} {who}", text, ""]
    path = folder / "qq.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def _whatsapp(folder: Path, messages: Sequence[Message], contact: str, form: str, between: str) -> Path:
    path = folder / "chat.txt"
    lines = [
        f"{datetime.fromtimestamp(time, UTC).strftime(form)}{between}{ME if is_me else contact}: {text}"
        for is_me, text, time in messages
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


WHATSAPP_FORMS = {
    "ios": ("[%d/%m/%Y, %H:%M:%S]", " "),
    "ios german": ("[%d.%m.%y, %H:%M:%S]", " "),
    "ios american": ("[%m/%d/%y, %I:%M:%S\u202f%p]", " "),
    "ios year first": ("[%Y/%m/%d %H:%M:%S]", " "),
    "ios chinese": ("\u200e[%Y/%m/%d, %H:%M:%S]", " "),
    "ios with dashes": ("[%Y-%m-%d, %H:%M:%S]", " "),
    "android with seconds": ("%d/%m/%Y, %H:%M:%S", " - "),
    "android with dots": ("%d.%m.%y, %H:%M:%S", " - "),
}
"""`strftime` forms of the time, and what follows it."""


def _whatsapp_writer(form: str, between: str) -> Writer:
    return lambda folder, messages, contact: _whatsapp(folder, messages, contact, form, between)


def imessage(folder: Path, messages: Sequence[Message], contact: str) -> Path:
    path = folder / "chat.db"
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as db:
        db.executescript(
            "CREATE TABLE handle(ROWID INTEGER PRIMARY KEY, id TEXT);"
            "CREATE TABLE chat(ROWID INTEGER PRIMARY KEY, chat_identifier TEXT, style INTEGER);"
            "CREATE TABLE message(ROWID INTEGER PRIMARY KEY, guid TEXT, text TEXT, attributedBody BLOB,"
            " handle_id INTEGER, date INTEGER, is_from_me INTEGER, item_type INTEGER,"
            " associated_message_type INTEGER);"
            "CREATE TABLE chat_message_join(chat_id INTEGER, message_id INTEGER);"
        )
        db.execute("INSERT INTO handle VALUES (1, ?)", (contact,))
        db.execute("INSERT INTO chat VALUES (1, ?, 45)", (contact,))
        for number, (is_me, text, time) in enumerate(messages, 1):
            words = (text, None) if number % 2 else (None, attributed(text))
            row = (
                number,
                f"G{number}",
                *words,
                int(not is_me),
                (time - 978_307_200) * 10**9,
                int(is_me),
                0,
                0,
            )
            db.execute(f"INSERT INTO message VALUES ({', '.join('?' * len(row))})", row)
            db.execute("INSERT INTO chat_message_join VALUES (1, ?)", (number,))
        db.commit()
    return path


def attributed(text: str) -> bytes:
    """The archive of an NSAttributedString, as far as it is read."""
    data = text.encode()
    size = bytes([len(data)]) if len(data) < 0x80 else b"\x81" + len(data).to_bytes(2, "little")
    head = b"\x04\x0bstreamtyped\x81\xe8\x03\x84\x01@\x84\x84\x84\x12NSAttributedString\x00\x84\x84\x08NSObject\x00"
    return head + b"\x85\x92\x84\x84\x84\x08NSString\x01\x94\x84\x01+" + size + data + b"\x86\x84\x02iI"


WRITERS: dict[str, Writer] = {
    "telegram": telegram,
    "telegram account": telegram_account,
    "pywxdump": pywxdump,
    "memotrace": memotrace,
    "weflow": weflow,
    "echotrace": echotrace,
    "chatlab": chatlab,
    "chatlab lines": chatlab_lines,
    "qq": qq,
    "qq chunks": qq_chunks,
    "qq text": qq_text,
    "imessage": imessage,
    **{f"whatsapp {name}": _whatsapp_writer(*form) for name, form in WHATSAPP_FORMS.items()},
}
SAYS_WHO_I_AM = [name for name in WRITERS if "whatsapp" not in name and name != "qq text"]
