"""A phone for tests: speaks the ADB transport protocol, and does in a folder what it is told.

Protocol: protocol.txt, SYNC.TXT and SERVICES.TXT of platform/packages/modules/adb.  The real adb
server connects to it as to a phone in the network.  Paths of the phone (/data/local/tmp, /sys,
/proc) become paths below `root` in commands, and are turned back in what they print.
"""

import contextlib
import os
import queue
import re
import shlex
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

MAX_DATA = 256 * 1024
FEATURES = "shell_v2,cmd,stat_v2,ls_v2,fixed_push_mkdir"
BOOT_ID = "/proc/sys/kernel/random/boot_id"
MAPPED = ("/data/local/tmp", "/sys/", "/proc/loadavg", "/proc/cpuinfo", BOOT_ID)

PROPERTIES = {
    "ro.product.manufacturer": "Google",
    "ro.product.model": "Pixel Test",
    "ro.soc.manufacturer": "Google",
    "ro.soc.model": "Tensor T",
    "ro.build.fingerprint": "google/test/test:14/AB1.240101.001/1:user/release-keys",
    "ro.product.cpu.abilist": "arm64-v8a,armeabi-v7a",
}
CPU = "/sys/devices/system/cpu"
# Four small cores, three larger, and one that is the fastest.
SYSFS = {
    f"{CPU}/online": "0-7",
    **{
        f"{CPU}/cpu{core}/{name}": value
        for core, khz, capacity in (
            *((core, 1_700_000, 250) for core in range(4)),
            *((core, 2_370_000, 780) for core in range(4, 7)),
            (7, 2_910_000, 1024),
        )
        for name, value in (
            ("cpufreq/cpuinfo_max_freq", str(khz)),
            ("cpufreq/scaling_max_freq", str(khz)),
            ("cpufreq/scaling_governor", "sched_pixel"),
            ("cpu_capacity", str(capacity)),
        )
    },
    "/sys/class/thermal/thermal_zone0/type": "battery",
    "/sys/class/thermal/thermal_zone0/temp": "29000",
    "/sys/class/thermal/thermal_zone1/type": "BIG",
    "/sys/class/thermal/thermal_zone1/temp": "41000",
    "/proc/loadavg": "0.52 0.58 0.59 1/467 12345",
    "/proc/cpuinfo": "".join(
        f"processor\t: {core}\nCPU implementer\t: 0x41\nCPU part\t: {part}\n\n"
        for core, part in enumerate(["0xd05"] * 4 + ["0xd41"] * 3 + ["0xd44"])
    ),
}

# The benchmark APK, as Android installs and starts it: what it prints goes to the log.
PM = f"""\
for last; do :; done
case "$1" in
path) [ -d "$ROOT/app" ] && echo "package:/data/app/base.apk";;
install) [ -r "$ROOT/reject" ] && {{ cat "$ROOT/reject"; exit 1; }}
  "{sys.executable}" -m zipfile -e "$last" "$ROOT/app" && echo Success;;
uninstall) rm -r "$ROOT/app" && echo Success;;
esac"""
AM = f"""\
for last; do :; done
case "$1" in
force-stop) [ -r "$ROOT/app.pid" ] && kill -9 "$(cat "$ROOT/app.pid")"; rm -f "$ROOT/app.pid";;
start) echo "Starting: Intent {{ cmp=org.tensorflow.lite.benchmark/.BenchmarkModelActivity }}"
  head='07-14 13:14:57.000 22838 22838'
  {{ {{ sh -c 'echo $$ > "$ROOT/app.pid"; exec "$@"' sh "{sys.executable}" \
        "$ROOT/app/main.py" $last; echo "exit=$?"; }} 2>&1 |
    while read -r line; do case "$line" in
      exit=134) echo "$head F libc    : Fatal signal 6 (SIGABRT) in tid 1 (lite.benchmark)";;
      exit=*|STARTING*) ;;
      *) echo "$head I tflite  : ${{line#INFO: }}";;
    esac; done | sed -u "s|$ROOT||g" >> "$ROOT/logcat"; }} < /dev/null > /dev/null 2>&1 & ;;
esac"""


class Device:
    """The phone.  Its attributes may be changed at any time.

    Attributes:
      root: The folder that holds its files.
      serial: The name under which adb knows it.
      features: What it knows of the protocol's additions; without "shell_v2" it is an old one.
      authorized: Whether it trusts whoever connects.
      free_bytes: Space on its disk for what is pushed; None: enough.
      delay_s: Before each answer to a command.
      drops: Called with each command as it starts; True breaks all connections while it runs.
      away_s: How long it then refuses new ones.
      prefix: Words before each pushed program with arguments: an emulator of its processor.
      commands: All commands that it was told to run.
      pushed: Names of the files that were pushed.
      programs: Their paths, of those that may be executed.
    """

    def __init__(self, root: Path, *, sysfs: Mapping[str, str] = SYSFS) -> None:
        self.root = root.resolve()
        self.features = FEATURES
        self.authorized = True
        self.free_bytes: int | None = None
        self.delay_s = 0.0
        self.drops: Callable[[str], bool] = lambda command: False
        self.away_s = 0.0
        self.prefix: Sequence[str] = ()
        self.commands: list[str] = []
        self.pushed: list[str] = []
        self.programs: set[str] = set()
        self._back = 0.0
        self._connections: set[socket.socket] = set()
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self.tmp.mkdir(parents=True)
        for path, text in sysfs.items():
            self.write(path, text)
        self.write(BOOT_ID, str(uuid.uuid4()))
        self._install_programs()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.serial = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def tmp(self) -> Path:
        """Its /data/local/tmp."""
        return self.root / "data/local/tmp"

    def write(self, path: str, text: str) -> None:
        """Writes a file of the phone."""
        file = Path(f"{self.root}{path}")
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(f"{file.name}.part")
        part.write_text(text if text.endswith("\n") else f"{text}\n")
        part.replace(file)

    def property(self, name: str, value: str) -> None:
        """Sets what its getprop tells."""
        self.write(f"/props/{name}", value)

    def running(self) -> list[int]:
        """The processes of pushed programs that are alive: those that hold a path of its disk."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if str(self.root).encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
        return found

    def kill_programs(self) -> None:
        """Ends them as the kernel does when memory is short."""
        for process in self.running():
            os.kill(process, signal.SIGKILL)

    def drop(self) -> None:
        """Breaks all connections, and refuses new ones for `away_s`."""
        self._back = time.monotonic() + self.away_s
        with self._lock:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Switches it off."""
        self.away_s = 3600.0
        self.drop()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for process in list(self._processes):
            with contextlib.suppress(OSError):
                process.kill()
        self.kill_programs()
        self._thread.join(timeout=10)

    def _install_programs(self) -> None:
        for name, value in PROPERTIES.items():
            self.property(name, value)
        programs = {
            "getprop": 'f="$ROOT/props/$1"; [ -r "$f" ] && cat "$f" || echo',
            # The host has other cores than the phone: taskset only notes its mask.
            "taskset": 'echo "$1" >> "$ROOT/masks"; shift; exec "$@"',
            "uname": 'case "$1" in -m) echo aarch64;; *) echo Linux 5.10.157-android13;; esac',
            "dumpsys": 'cat "$ROOT/thermalservice" 2>/dev/null',
            "log": 'shift; tag="$1"; shift; echo "07-14 13:14:56.521  1  1 I $tag: $*"'
            ' >> "$ROOT/logcat"',
            "logcat": 'cat "$ROOT/logcat"',
            "pidof": 'p="$(cat "$ROOT/app.pid" 2>/dev/null)" && kill -0 "$p" && echo "$p"',
            "pm": PM,
            "am": AM,
        }
        folder = self.root / "system/bin"
        folder.mkdir(parents=True)
        for name, text in programs.items():
            (folder / name).write_text(f"#!/bin/sh\n{text}\n")
            (folder / name).chmod(0o755)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            if time.monotonic() < self._back:
                connection.close()
                continue
            with self._lock:
                self._connections.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            Transport(self, connection).run()
        except (OSError, EOFError):
            pass
        finally:
            with self._lock:
                self._connections.discard(connection)
            connection.close()

    def shell(self, command: str) -> subprocess.Popen[bytes]:
        """Starts a command of the phone."""
        self.commands.append(command)
        time.sleep(self.delay_s)
        words = " ".join(map(shlex.quote, self.prefix))
        for path in self.programs if self.prefix else ():
            command = command.replace(f"{path} -", f"{words} {path} -")
        for path in MAPPED:
            command = re.sub(rf"(?<![\w./]){re.escape(path)}", f"{self.root}{path}", command)
        process = subprocess.Popen(
            ["/bin/sh", "-c", command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.root,
            env={"PATH": f"{self.root}/system/bin:/usr/bin:/bin", "ROOT": str(self.root)},
        )
        self._processes.add(process)
        return process

    def there(self, path: str) -> Path:
        """Where a path of the phone is here."""
        return Path(f"{self.root}/{path}")

    def store(self, path: Path, data: bytes, mode: int) -> str:
        """Keeps a pushed file; returns what went wrong."""
        if not path.parent.is_dir():
            return f"couldn't create file: {os.strerror(2)}"
        if self.free_bytes is not None:
            room = self.free_bytes - sum(
                file.stat().st_size for file in self.tmp.rglob("*") if file.is_file()
            )
            if len(data) > room:
                path.write_bytes(data[: max(room, 0)])  # as a full disk leaves it
                return "couldn't write to file: No space left on device"
        self.pushed.append(path.name)
        if mode & 0o111:
            self.programs.add(str(path).removeprefix(str(self.root)))
        path.write_bytes(data)
        path.chmod(mode & 0o777)
        return ""


class Transport:
    """One connection: messages of six words and their data, and the streams they carry."""

    def __init__(self, device: Device, connection: socket.socket) -> None:
        self.device = device
        self.connection = connection
        self.streams: dict[int, Stream] = {}
        self._sending = threading.Lock()

    def run(self) -> None:
        """Answers until the other side leaves."""
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
            part = self.connection.recv(size - len(data))
            if not part:
                raise EOFError
            data += part
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
        """The other side has closed it."""
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
                part = data[start : start + MAX_DATA]
                self.transport.send(b"WRTE", self.number, self.remote, part)
                self.acknowledged.acquire()

    def read(self, size: int) -> bytes:
        """The next bytes that were received."""
        while len(self._buffer) < size:
            part = self.received.get()
            if part is None:
                raise EOFError
            self._buffer += part
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

        def copy(source: object, number: int) -> None:
            with contextlib.suppress(OSError, EOFError):
                for line in source:  # type: ignore[attr-defined]
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
            thread.join()
        for pipe in (process.stdout, process.stderr):
            pipe.close()
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
                found = _stat(device.there(path))
                mode, length, when = (found[2], found[6], found[8]) if found else (0, 0, 0)
                self.write(struct.pack("<4s3I", verb, mode, length, when))
            elif verb in (b"STA2", b"LST2"):
                found = _stat(device.there(path))
                fields = (0, *found) if found else (2, *[0] * 10)  # 2: no such file
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
            part = data[start : start + 64 * 1024]
            self.write(struct.pack("<4sI", b"DATA", len(part)) + part)
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
