"""A phone for tests: speaks the ADB transport protocol, and runs commands in a folder.

The real adb server connects to it as to a phone in the network.  Paths of the phone
(/data/local/tmp, /sys, /proc) become paths below `root` in commands, and are turned back in what
they print.
"""

import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.android_bench.adb_protocol import Transport

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
      commands: All commands that it ran.
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
        partial = file.with_name(f"{file.name}.part")
        partial.write_text(text if text.endswith("\n") else f"{text}\n")
        partial.replace(file)

    def property(self, name: str, value: str) -> None:
        """Sets what its getprop tells."""
        self.write(f"/props/{name}", value)

    def running(self) -> list[int]:
        """The processes of pushed programs that are alive: those that hold a path of its disk."""
        pids = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if str(self.root).encode() in (entry / "cmdline").read_bytes():
                    pids.append(int(entry.name))
        return pids

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
