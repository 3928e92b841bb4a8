"""The kind of an error by the traceback in `engine.log`: what to do depends on the kind, not on the wording."""

from __future__ import annotations

import re
from enum import StrEnum


class Fault(StrEnum):
    """Kinds of errors that end a run."""

    MEMORY = "memory"
    DEVICE = "device"
    DISK = "disk"
    FILES = "files"
    """Too many open files."""
    PERMISSION = "permission"
    MODULE = "module"
    """A library is missing or does not fit."""
    CONNECTION = "connection"
    EMPTY = "empty"
    """There was nothing to train on."""
    DATA = "data"
    """A file is missing, damaged or of the wrong kind."""
    CHECKPOINT = "checkpoint"
    SHAPE = "shape"
    """Weights or batches do not fit together."""
    DIVERGED = "diverged"
    DATABASE = "database"
    SETTINGS = "settings"
    OTHER = "other"


_ERROR_LINE = re.compile(r"(?P<type>[A-Za-z_][\w.<>]*)(?:: (?P<text>.*))?")
_CHAINED = ("During handling of the above", "The above exception was the direct cause")
_MAX_TEXT = 2000

# The first row that fits decides: what is said most precisely comes first.
_ROWS: tuple[tuple[Fault, str, str], ...] = (
    (Fault.DEVICE, r".*", r"(?:CUDA|HIP|cuDNN|cuBLAS|CUBLAS|MPS|Metal|XPU|NCCL)\b.*out of memory|MPS backend out of memory"),
    (Fault.MEMORY, r"MemoryError|.*OutOfMemoryError", r""),
    (Fault.MEMORY, r".*", r"(?i)\bout of memory\b|can(?:no|')t allocate memory|not enough memory|Unable to allocate"),
    (Fault.DEVICE, r".*AcceleratorError|.*", r"(?:CUDA|HIP|CUBLAS|CUDNN|cuDNN|NCCL|MPS|Metal)\b.*(?i:error|fail|not initialized|illegal|assert)"),
    (Fault.DISK, r".*", r"\[Errno 28\]|\[Errno 122\]|No space left on device|Disk quota exceeded|(?i:the disk is full)|database or disk is full"),
    (Fault.FILES, r".*", r"\[Errno 24\]|\[Errno 23\]|Too many open files"),
    (Fault.PERMISSION, r"PermissionError|.*", r"\[Errno 13\]|\[Errno 1\]|\[Errno 30\]|Permission denied|Read-only file system|Operation not permitted"),
    (Fault.MODULE, r"(?:.*\.)?(?:ModuleNotFoundError|ImportError)", r""),
    (Fault.MODULE, r".*", r"undefined symbol|GLIBC(?:XX)?_|cannot open shared object file|symbol not found"),
    (Fault.CONNECTION, r"(?:.*\.)?(?:NetworkBlocked|ServiceUnreachable|gaierror|BrokenPipeError|(?:Connect|Connection|Read|Write|Pool|Socket)?\w*(?:Connection|Connect|Timeout|SSL|RemoteProtocol)\w*(?:Error|Refused|Aborted)?|ReadTimeout)", r""),
    (Fault.CONNECTION, r".*", r"\[Errno (?:-[23]|32|101|104|110|111|113)\]|Connection (?:refused|reset)|Name or service not known|Max retries exceeded"),
    (Fault.DIVERGED, r".*", r"(?i)\bdiverg|loss is (?:nan|inf)|(?:nan|infinite) (?:loss|gradient|values)"),
    (Fault.EMPTY, r"UnboundLocalError", r"current_batch"),
    (Fault.EMPTY, r".*(?:NotEnoughData)|StopIteration", r""),
    (Fault.EMPTY, r".*", r"(?i)num_samples=0|empty (?:data ?set|corpus|batch)|no (?:pairs|samples|batches|conversations)\b|no text file"),
    (Fault.DATABASE, r"(?:sqlite3\.)?(?:OperationalError|DatabaseError|IntegrityError)", r""),
    (Fault.DATABASE, r".*", r"database disk image is malformed|file is not a database|database is locked"),
    (Fault.CHECKPOINT, r".*", r"(?i)checkpoint.*(?:corrupt|damaged|hash|broken|truncat|incomplete|does not match)|(?:corrupt|damaged|broken).*checkpoint"),
    (Fault.DATA, r".*SafetensorError", r""),
    (Fault.SHAPE, r".*", r"(?i)size mismatch|shapes? (?:mismatch|cannot be multiplied)|must match (?:the size|except)|mat1 and mat2|broadcast|index out of range|dimension out of range"),
    (Fault.SETTINGS, r"(?:.*\.)?(?:UsageProblem|ValidationError)", r""),
    (Fault.DATA, r"(?:.*\.)?(?:FileNotFoundError|IsADirectoryError|NotADirectoryError|UnicodeDecodeError|JSONDecodeError|DecodeError|BadInput|BadZipFile|EOFError|UnpicklingError|ZstdError|ArrowInvalid|DataDamaged)", r""),
)  # fmt: skip
_TABLE = tuple((fault, re.compile(type_), re.compile(text)) for fault, type_, text in _ROWS)


def last_error(log: str) -> tuple[str, str]:
    """Type and text of the last exception in `log`, as ("RuntimeError", "CUDA out of memory …"); ("", "") without one.

    Of exceptions that were raised while another was handled, the last one counts, as Python prints it.
    """
    found = ("", "")
    inside = False
    for line in log.splitlines():
        if line.startswith(("Traceback (most recent call last)", "  + Exception Group Traceback")):
            inside = True
        elif inside and line and not line.startswith((" ", "\t")) and not line.startswith(_CHAINED):
            match = _ERROR_LINE.fullmatch(line.rstrip())
            found = (match["type"], match["text"] or "") if match else ("", line)
            inside = False
    return found[0], found[1][:_MAX_TEXT]


def last_chain(log: str) -> list[tuple[str, str]]:
    """The exceptions of the last traceback in `log` and those behind it, the last one first, as `last_error` gives them."""
    chain: list[tuple[str, str]] = []
    chained = False
    for part in re.split(r"^(?=Traceback \(most recent call last\))", log, flags=re.MULTILINE)[1:]:
        error = last_error(part)
        chain = [error, *chain] if chained else [error]
        chained = any(mark in part for mark in _CHAINED)
    return chain


def classify(log: str, error: str = "") -> Fault:
    """The kind of the last error in `log`; `error` is what the run said itself, where there is no traceback.

    A cause that is known wins over what was made of it: "cannot write the model" from "No space left" is `DISK`.
    """
    chain = last_chain(log) or [_split(error)]
    for name, text in chain:
        fault = _fault(name, text)
        if fault is not Fault.OTHER:
            return fault
    return _fault("", error)


def _split(error: str) -> tuple[str, str]:
    """The exception in a run's own sentence: "… internal error (ValueError: text)"."""
    match = re.search(r"[(（]([A-Za-z_][\w.]*(?:Error|Exception|Interrupt)): (.*?)[)）]?(?: →|$)", error)
    return (match[1], match[2]) if match else ("", error)


def _fault(name: str, text: str) -> Fault:
    for fault, type_, words in _TABLE:
        if type_.fullmatch(name or "") is not None and words.search(text) is not None:
            return fault
    return Fault.OTHER
