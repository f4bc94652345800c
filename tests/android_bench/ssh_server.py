"""An SSH server of the tests, and the wire to it, which can be cut."""

import contextlib
import socket
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

CONFIG = """
Host board
  HostName 127.0.0.1
  Port {port}
  User {user}
  IdentityFile {folder}/key
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known_hosts
  GlobalKnownHostsFile /dev/null
  HostKeyAlias board
  Compression yes
Host stranger
  HostName 127.0.0.1
  Port {port}
  User {user}
  IdentityFile {folder}/other
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known_hosts
  GlobalKnownHostsFile /dev/null
  HostKeyAlias board
Host changed
  HostName 127.0.0.1
  Port {port}
  UserKnownHostsFile {folder}/wrong_hosts
  GlobalKnownHostsFile /dev/null
  HostKeyAlias board
Host unknown
  HostName 127.0.0.1
  Port {port}
  UserKnownHostsFile {folder}/nowhere
  GlobalKnownHostsFile /dev/null
Host absent
  HostName 127.0.0.1
  Port 1
"""


class Wire:
    """Carries connections to the server, and can be cut."""

    def __init__(self, port: int) -> None:
        self.to = port
        self.away_until = 0.0
        self.delay_s = 0.0
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, *, away_s: float) -> None:
        """Breaks all connections, and refuses new ones for a time."""
        self.away_until = time.monotonic() + away_s
        for connection in self._sockets:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self._sockets.clear()

    def close(self) -> None:
        self.cut(away_s=3600)
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                if time.monotonic() < self.away_until:
                    near.close()
                    continue
                far = socket.create_connection(("127.0.0.1", self.to))
                self._sockets += [near, far]
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                time.sleep(self.delay_s)
                sink.sendall(data)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


@dataclass
class Server:
    """The SSH server and the folder of its keys."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]
