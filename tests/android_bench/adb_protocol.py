"""The ADB transport protocol, as a phone speaks it.

Protocol: protocol.txt, SYNC.TXT and SERVICES.TXT of platform/packages/modules/adb.
"""

import contextlib
import os
import queue
import signal
import socket
import stat
import struct
import subprocess
import threading
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from tests.android_bench.adb_device import Device

MAX_DATA = 256 * 1024


class Transport:
    """One connection: messages of six words and their data, and the streams they carry."""

    def __init__(self, device: "Device", connection: socket.socket) -> None:
        self.device = device
        self.connection = connection
        self.streams: dict[int, Stream] = {}
        self._sending = threading.Lock()

    def run(self) -> None:
        """Answers until the peer closes."""
        count = 0
        try:
            while True:
                command, first, second, data = self._receive()
                asks = command == b"CNXN" or (command == b"AUTH" and first == 2)  # 2: a signature
                if asks and not self.device.authorized:
                    self.send(b"AUTH", 1, 0, os.urandom(20))
                elif command == b"CNXN":
                    banner = (
                        "device::ro.product.name=test;ro.product.model=Pixel Test;"
                        f"ro.product.device=test;features={self.device.features}"
                    )
                    self.send(b"CNXN", 0x01000001, MAX_DATA, banner.encode())
                elif command == b"OPEN":
                    count += 1
                    stream = Stream(self, count, first)
                    self.streams[count] = stream
                    name = data.rstrip(b"\0").decode(errors="surrogateescape")
                    threading.Thread(target=stream.serve, args=(name,), daemon=True).start()
                elif command == b"OKAY" and second in self.streams:
                    self.streams[second].acknowledged.release()
                elif command == b"WRTE" and second in self.streams:
                    self.streams[second].received.put(data)
                    self.send(b"OKAY", second, first)
                elif command == b"CLSE" and second in self.streams:
                    self.streams.pop(second).end()
        finally:
            for stream in list(self.streams.values()):
                stream.end()

    def send(self, command: bytes, first: int, second: int, data: bytes = b"") -> None:
        """Sends a message."""
        number = int.from_bytes(command, "little")
        head = (number, first, second, len(data), sum(data) & 0xFFFFFFFF, number ^ 0xFFFFFFFF)
        with self._sending:
            self.connection.sendall(struct.pack("<6I", *head) + data)

    def _receive(self) -> tuple[bytes, int, int, bytes]:
        command, first, second, size, _, magic = struct.unpack("<6I", self._read(24))
        if command ^ 0xFFFFFFFF != magic:
            raise EOFError
        return command.to_bytes(4, "little"), first, second, self._read(size)

    def _read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            chunk = self.connection.recv(size - len(data))
            if not chunk:
                raise EOFError
            data += chunk
        return bytes(data)


class Stream:
    """One service: a shell's command or file transfers."""

    def __init__(self, transport: Transport, number: int, remote: int) -> None:
        self.transport = transport
        self.number = number
        self.remote = remote
        self.received: queue.Queue[bytes | None] = queue.Queue()
        self.acknowledged = threading.Semaphore(0)
        self.process: subprocess.Popen[bytes] | None = None
        self.ended = False
        self._buffer = b""
        self._sending = threading.Lock()

    def serve(self, name: str) -> None:
        """Opens the service of that name, and closes it when it is done."""
        service, _, argument = name.partition(":")
        kind = service.split(",")
        try:
            if kind[0] in ("shell", "exec"):
                self.transport.send(b"OKAY", self.number, self.remote)
                self._shell(argument, v2="v2" in kind)
            elif kind[0] == "sync":
                self.transport.send(b"OKAY", self.number, self.remote)
                self._sync()
            self.transport.send(b"CLSE", self.number, self.remote)
        except (OSError, EOFError):
            pass
        finally:
            self.transport.streams.pop(self.number, None)

    def end(self) -> None:
        """The peer has closed it."""
        self.ended = True
        self.received.put(None)
        self.acknowledged.release()
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGHUP)  # as adbd does

    def write(self, data: bytes) -> None:
        """Sends data, the next only after the last was acknowledged."""
        with self._sending:
            for start in range(0, len(data), MAX_DATA):
                if self.ended:
                    raise EOFError
                chunk = data[start : start + MAX_DATA]
                self.transport.send(b"WRTE", self.number, self.remote, chunk)
                self.acknowledged.acquire()

    def read(self, size: int) -> bytes:
        """The next bytes that were received."""
        while len(self._buffer) < size:
            chunk = self.received.get()
            if chunk is None:
                raise EOFError
            self._buffer += chunk
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def _shell(self, command: str, *, v2: bool) -> None:
        device = self.transport.device
        dropping = device.drops(command)
        self.process = process = device.shell(command)
        if dropping:
            time.sleep(0.2)  # it has begun
            device.drop()
        assert process.stdout
        assert process.stderr

        def copy(source: IO[bytes], number: int) -> None:
            with contextlib.suppress(OSError, EOFError), source:
                for line in source:
                    line = line.replace(os.fsencode(device.root), b"")
                    head = struct.pack("<BI", number, len(line)) if v2 else b""
                    self.write(head + (line if v2 else line.replace(b"\n", b"\r\n")))

        threads = [
            threading.Thread(target=copy, args=(process.stdout, 1), daemon=True),
            threading.Thread(target=copy, args=(process.stderr, 2 if v2 else 1), daemon=True),
            threading.Thread(target=self._feed, args=(v2,), daemon=True),
        ]
        for thread in threads:
            thread.start()
        code = process.wait()
        for thread in threads[:2]:
            while thread.is_alive() and not self.ended:  # then nobody reads the other any more
                thread.join(0.1)
        device._processes.discard(process)
        if v2:
            self.write(struct.pack("<BIB", 3, 1, code if code >= 0 else 128 - code))
        self.received.put(None)
        threads[2].join()

    def _feed(self, v2: bool) -> None:
        assert self.process
        assert self.process.stdin
        with contextlib.suppress(OSError, EOFError, ValueError), self.process.stdin as stdin:
            while True:
                if not v2:
                    stdin.write(self.read(1))
                    stdin.flush()
                    continue
                number, size = struct.unpack("<BI", self.read(5))
                data = self.read(size)
                if number == 0:
                    stdin.write(data)
                    stdin.flush()
                elif number == 3 or number == 4:  # the input is closed
                    return

    def _sync(self) -> None:
        device = self.transport.device
        while True:
            verb, size = struct.unpack("<4sI", self.read(8))
            path = self.read(size).decode(errors="surrogateescape") if verb != b"QUIT" else ""
            if verb == b"QUIT":
                return
            if verb == b"STAT":
                status = _stat(device.there(path))
                mode, length, when = (status[2], status[6], status[8]) if status else (0, 0, 0)
                self.write(struct.pack("<4s3I", verb, mode, length, when))
            elif verb in (b"STA2", b"LST2"):
                status = _stat(device.there(path))
                fields = (0, *status) if status else (2, *[0] * 10)  # 2: no such file
                self.write(struct.pack("<4sI2Q4IQ3q", verb, *fields))
            elif verb == b"SEND":
                name, _, mode = path.rpartition(",")
                self._receive_file(device.there(name), int(mode))
            elif verb == b"RECV":
                self._send_file(device.there(path))
            else:
                return

    def _receive_file(self, path: Path, mode: int) -> None:
        data = bytearray()
        while True:
            verb, size = struct.unpack("<4sI", self.read(8))
            if verb != b"DATA":
                break
            data += self.read(size)
        device = self.transport.device
        if device.drops(f"push {path.name}"):
            device.drop()
            raise EOFError
        wrong = device.store(path, bytes(data), stat.S_IMODE(mode)).encode()
        answer = (b"FAIL", len(wrong)) if wrong else (b"OKAY", 0)
        self.write(struct.pack("<4sI", *answer) + wrong)

    def _send_file(self, path: Path) -> None:
        try:
            data = path.read_bytes()
        except OSError as error:
            wrong = os.fsencode(f"open failed: {error.strerror}")
            self.write(struct.pack("<4sI", b"FAIL", len(wrong)) + wrong)
            return
        for start in range(0, len(data), 64 * 1024):
            chunk = data[start : start + 64 * 1024]
            self.write(struct.pack("<4sI", b"DATA", len(chunk)) + chunk)
        self.write(struct.pack("<4sI", b"DONE", 0))


def _stat(path: Path) -> tuple[int, ...] | None:
    try:
        info = path.stat()
    except OSError:
        return None
    times = int(info.st_atime), int(info.st_mtime), int(info.st_ctime)
    return (
        *(info.st_dev, info.st_ino, info.st_mode, info.st_nlink, info.st_uid, info.st_gid),
        *(info.st_size, *times),
    )
