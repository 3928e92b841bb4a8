"""Unix sockets that only this user's processes use: folder and peer are checked on both sides.

Without XDG_RUNTIME_DIR the sockets lie in the system's temporary folder, where any user may create the folder first.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
import sys
from pathlib import Path

from engine.core.errors import ServiceUnreachable
from engine.core.i18n import _

_UCRED = struct.Struct("3i")
"""Linux: `struct ucred` of SO_PEERCRED (socket(7)): process, user and group id."""
_XUCRED = struct.Struct("2I")
"""macOS: the beginning of `struct xucred` of LOCAL_PEERCRED (sys/ucred.h): version and user id."""
_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED_SIZE = 0, 1, 76
_HINT = 'export TMPDIR="$HOME"'


def make_private_dir(folder: Path) -> None:
    """Creates `folder` with mode 0700. Raises ServiceUnreachable when another user owns it, or it is a link."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise _foreign_folder(folder)
    if stat.S_IMODE(found.st_mode) != 0o700:
        folder.chmod(0o700)


def check_private(path: Path) -> None:
    """Raises ServiceUnreachable unless only this user can reach the socket at `path`; FileNotFoundError without one."""
    folder, found = path.parent.lstat(), path.lstat()
    if not stat.S_ISDIR(folder.st_mode) or folder.st_uid != os.getuid() or folder.st_mode & 0o077:
        raise _foreign_folder(path.parent)
    if not stat.S_ISSOCK(found.st_mode) or found.st_uid != os.getuid():
        raise ServiceUnreachable(
            _("the socket belongs to another user: {path}").format(path=path), hint=_HINT
        )


def check_peer(connection: socket.socket) -> None:
    """Raises ServiceUnreachable when the process at the other end belongs to another user.

    Where the system cannot tell, the permissions of the folder alone protect the socket.
    """
    user = peer_user(connection)
    if user is not None and user != os.getuid():
        raise ServiceUnreachable(
            _("the socket is served by another user ({user})").format(user=user), hint=_HINT
        )


def peer_user(connection: socket.socket) -> int | None:
    """The user id of the process at the other end; None where the system cannot tell."""
    try:
        if sys.platform == "darwin":
            data = connection.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED_SIZE)
            return int(_XUCRED.unpack_from(data)[1])
        data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        return int(_UCRED.unpack(data)[1])
    except (OSError, AttributeError, struct.error):
        return None


def _foreign_folder(folder: Path) -> ServiceUnreachable:
    return ServiceUnreachable(
        _("the folder for sockets belongs to another user: {path}").format(path=folder), hint=_HINT
    )
