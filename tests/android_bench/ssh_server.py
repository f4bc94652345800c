"""An SSH server of the tests, and the wire to it, which can be cut."""

import contextlib
import fcntl
import getpass
import os
import shlex
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from android_bench.targets import remote_target, temperatures

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
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
    """Carries connections to a server, and can be cut."""

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

    def passed_on(self, data: bytes) -> bytes:
        """What arrives at the other end."""
        return data

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
                sink.sendall(self.passed_on(data))
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


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No other worker tests ssh meanwhile: it looks after what is left in /tmp, and in /run."""
    with (tmp_path_factory.getbasetemp().parent / "ssh.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, alone: None) -> Iterator[Server]:
    if SSHD is None or shutil.which("ssh") is None:
        pytest.skip("needs openssh-server and openssh-client")
    folder = tmp_path_factory.mktemp("ssh")
    for name in ("key", "other", "host", "wrong"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(command, check=True, timeout=1200)
    shutil.copy(folder / "key.pub", folder / "authorized_keys")
    for name, key in (("known_hosts", "host"), ("wrong_hosts", "wrong")):
        (folder / name).write_text(f"board {(folder / f'{key}.pub').read_text()}")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\nUsePAM no\n"
        f"AuthorizedKeysFile {folder}/authorized_keys\nStrictModes no\n"
        "PasswordAuthentication no\nPermitRootLogin prohibit-password\n"
    )
    chroot = Path("/run/sshd")  # sshd of root insists on it
    made = os.geteuid() == 0 and not chroot.exists()
    if made:
        chroot.mkdir(mode=0o755)
    command = [SSHD, "-D", "-E", str(folder / "log"), "-f", str(folder / "sshd_config")]
    process = subprocess.Popen(command)
    for _ in range(100):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            break
        time.sleep(0.1)
    yield Server(folder, port, process)
    process.terminate()
    process.wait(timeout=10)
    if made:
        chroot.rmdir()


@pytest.fixture
def wire(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    """The wire to the server, and a client whose configuration knows it by names."""
    wire = Wire(server.port)
    config = tmp_path / "config"
    user = getpass.getuser()
    config.write_text(CONFIG.format(port=wire.port, user=user, folder=server.folder))
    program = tmp_path / "bin/ssh"
    program.parent.mkdir()
    real = shutil.which("ssh")
    program.write_text(f'#!/bin/sh\nexec {real} -F {shlex.quote(str(config))} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr(remote_target, "RETURN_S", 20.0)
    monkeypatch.setattr(temperatures, "COOL_DOWN_S", 0.1)
    before = set(Path("/tmp").glob("shufflelite-ssh-*"))
    yield wire
    wire.close()
    left = [*(tmp_path / "tmp").iterdir(), *(set(Path("/tmp").glob("shufflelite-ssh-*")) - before)]
    assert left == []  # no socket, no file of output
