"""A way to a server that breaks."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress


class BrokenLine:
    """Passes connections on to a server; those that come while `cut_after` is set end after so many bytes each way."""

    def __init__(self, url: str) -> None:
        self._port = int(url.rpartition(":")[2])
        self.cut_after: int | None = None
        self.cuts_left = 0
        self.cuts = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def cut(self, after: int, times: int) -> None:
        """The next connections break after so many bytes."""
        self.cut_after, self.cuts_left = after, times

    def close(self) -> None:
        self._socket.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _peer = self._socket.accept()
                far = socket.create_connection(("127.0.0.1", self._port))
                for source, target in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=(source, target), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        passed = 0
        with suppress(OSError):
            while data := source.recv(4096):
                passed += len(data)
                if self.cut_after is not None and self.cuts_left > 0 and passed > self.cut_after:
                    self.cuts_left -= 1
                    self.cuts += 1
                    break
                target.sendall(data)
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
