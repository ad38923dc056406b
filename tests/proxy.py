"""A wire between a client and a PostgreSQL server that can be cut at the worst instant."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

COMMITTED = b"COMMIT\0"
"""How the server's acknowledgement of a commit ends."""


class Proxy:
    """Forwards each connection to a port. While `lossy`, it cuts instead of passing an acknowledged commit on."""

    def __init__(self, port: int) -> None:
        self.to, self.lossy, self.lost = port, False, 0
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self.listening.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self.listening.accept()
                server = socket.create_connection(("127.0.0.1", self.to))
                for pair in ((client, server, False), (server, client, True)):
                    threading.Thread(target=self._forward, args=pair, daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if answers and self.lossy and COMMITTED in data:
                    self.lossy, self.lost = False, self.lost + 1
                    break
                target.sendall(data)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
