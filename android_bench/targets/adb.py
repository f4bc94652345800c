"""Android devices through the adb server, with the native benchmark tool or its APK."""

import contextlib
import os
import re
import shlex
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import adbutils
from adbutils import AdbError

from android_bench import device_info
from android_bench.measurement import Options, TargetError
from android_bench.targets import adb_server, client_process, remote_target
from android_bench.targets.remote_shell import (
    DroppedError,
    Output,
    TooMuchOutputError,
    last_line,
    unended,
)
from android_bench.targets.remote_target import ShellTarget
from shufflelite.display import one_line, printable
from shufflelite.errors import FlagError, InputError

PACKAGE = "org.tensorflow.lite.benchmark"
ACTIVITY = f"{PACKAGE}/.BenchmarkModelActivity"
POLL_S = 0.5
PROFILE_POLLS = 20  # without a new line, for a profile that was requested
_HEADLINE = re.compile(r"nference timings in us|Benchmarking failed|Inference \(avg\)")
_STATES = {  # how the states of `adb devices` begin, and what to do
    "unauthorized": (
        "does not trust this computer: unlock it and allow USB debugging in its dialog;"
        " without one, revoke the authorizations in its developer options and connect it again"
    ),
    "authorizing": "is about to be authorized: try again in a moment",
    "connecting": "is about to be connected: try again in a moment",
    "offline": "does not answer (offline): unplug it and connect it again, or restart it",
    "no permissions": "is not accessible for this user (no permissions): see the udev rules of your"
    " system",
    "recovery": "is in recovery mode: restart it",
    "rescue": "is in rescue mode: restart it",
    "bootloader": "is in its bootloader: restart it",
    "sideload": "waits for a sideload: restart it",
}
_BROKEN = re.compile(
    r"closed|EOF|fault|offline|not found|no devices|reset|Broken pipe|Connection|connect failed",
    re.IGNORECASE,
)


def serials() -> list[str]:
    """Returns the devices that are ready; they may run in parallel."""
    return [serial for serial, state in _states().items() if state == "device"]


def open_target(serial: str, *, options: Options, apk: bool = False) -> ShellTarget:
    """Opens a device.

    Args:
      serial: As in `adb devices`; empty: $ANDROID_SERIAL, else the only device.
      options: Options of the target.
      apk: Measure in the benchmark APK instead of the native tool.

    Raises:
      InputError: There is no such device, or it cannot be used.
    """
    try:
        connection = AdbShell(_choose(serial or os.environ.get("ANDROID_SERIAL", "")), apk=apk)
        return (ApkTarget if apk else ShellTarget)(connection, options=options)
    except TargetError as error:
        raise InputError(str(error)) from error


class AdbShell:
    """The connection to a device through the adb server."""

    system = "android"
    folders = ("/data/local/tmp",)

    def __init__(self, serial: str, *, apk: bool = False) -> None:
        self.serial = serial
        self.name = f"{'adb-apk' if apk else 'adb'}:{serial}"
        self.stopping = threading.Event()
        self._device = adb_server.Device(adb_server.client(), serial)
        try:
            self._v2 = "shell_v2" in self._device.get_features().split(",")
        except (AdbError, OSError) as error:
            raise self._broken(error) from error

    def run(self, command: str, *, timeout_s: float = 60.0) -> Output:
        """Runs a command of the device's shell."""
        try:
            return adb_server.run(self._device, command, timeout_s=timeout_s, packets=self._v2)
        except (adbutils.AdbTimeout, TimeoutError, TooMuchOutputError) as error:
            raise unended(self.name, command, error, timeout_s=timeout_s) from error
        except (AdbError, OSError, EOFError, ValueError) as error:
            raise self._broken(error) from error

    def push(self, path: Path, to: str) -> None:
        """Pushes a file."""
        # adbutils has no timeout here and hides the device's answer, as on a full disk.
        size_mb = path.stat().st_size / 1e6
        words = [adbutils.adb_path(), "-s", self.serial, "push", str(path.resolve()), to]
        code, output = self._start(words, timeout_s=60 + size_mb)
        if code == 0:
            return
        if "No space left" in output:
            raise TargetError(
                f"{self.name}: no space left for {path.name} ({size_mb:.1f} MB) in"
                f" {self.folders[0]}; free some on the device"
            )
        if self.serial not in serials() or (_BROKEN.search(output) and "remote" not in output):
            raise self._broken(output)
        raise TargetError(f"{self.name}: adb push of {path.name} exited with {code}: {output}")

    def wait(self, *, timeout_s: float) -> None:
        """Waits for the device to come back."""
        end = time.monotonic() + timeout_s
        while True:
            try:
                state = _states().get(self.serial)
            except InputError as error:
                raise TargetError(str(error)) from error
            if state == "device" and self._answers():  # adb may not know yet that it is gone
                return
            if time.monotonic() >= end:
                raise TargetError(
                    f"{self.name}: expected it back within {timeout_s:g} s, but it {_advice(state)}"
                )
            if ":" in self.serial:  # a network device: adb soon stops to look for it
                try:
                    if state is not None:
                        adb_server.client().disconnect(self.serial)
                    adb_server.client().connect(self.serial, timeout=5)
                except (AdbError, OSError):
                    pass
            if self.stopping.wait(POLL_S):
                raise KeyboardInterrupt

    def close(self) -> None:
        """Does nothing: the adb server is the user's."""

    def _answers(self) -> bool:
        try:
            return self.run("true", timeout_s=10).code == 0
        except TargetError:
            return False

    def _broken(self, reason: object) -> TargetError:
        try:
            state = _states().get(self.serial)
        except InputError as error:
            return TargetError(str(error))
        if state == "device":
            return DroppedError(f"{self.name}: the connection broke ({one_line(reason)})")
        return DroppedError(f"{self.name}: it {_advice(state)}")

    def _start(self, words: Sequence[str], *, timeout_s: float) -> tuple[int, str]:
        """Runs the adb client; returns its exit code and its error message."""
        try:
            code, out, err = client_process.run(words, timeout_s=timeout_s)
        except (TimeoutError, TooMuchOutputError) as error:
            command = shlex.join(words)
            raise unended(self.name, command, error, timeout_s=timeout_s) from error
        except OSError as error:
            raise TargetError(f"{words[0]}: cannot be started: {error.strerror}") from error
        output = f"{out}\n{err}"
        errors = [line for line in output.splitlines() if "error:" in line]  # a summary may follow
        return code, last_line("\n".join(errors) or output)


class ApkTarget(ShellTarget):
    """The benchmark tool inside an app, whose threads Android schedules like any app's."""

    writes_files = False

    def __init__(self, connection: AdbShell, *, options: Options) -> None:
        self._install = False
        super().__init__(connection, options=options, system="apk")

    def choose_cores(self) -> device_info.CoreChoice:
        """Chooses none: an app's process cannot be pinned to cores from outside."""
        if self.options.cores is not None:
            raise FlagError("--cores: Android places an app's threads; use --target=adb")
        return device_info.CoreChoice(notes=("measured in an app, on cores that Android chooses",))

    def prepare(self) -> None:
        """Installs the app, unless it is installed and --benchmark_binary names no other."""
        self.make_folder()
        installed = "package:" in self.shell.run(f"pm path {PACKAGE}").text
        if installed and self.options.benchmark_binary is None:
            return
        remote = f"{self.folder}/benchmark.apk"
        self.push(self.binary, remote)
        self._install = not installed
        output = self.retry(lambda: self.shell.run(f"pm install -r -d -g {remote}", timeout_s=300))
        if "Success" not in output.text:
            raise TargetError(
                f"{self.name}: expected Android to install {self.binary.name}, got"
                f" {last_line(output.text)}"
            )
        self.forget(remote)

    def execute(self, words: Sequence[str]) -> Output:
        """Starts the app with these flags, and reads its output from the log."""
        return self.retry(lambda: self._start_app(words), before=self._stop_app)

    def clean_up(self) -> None:
        """Removes the app if it was not installed before."""
        self._stop_app()
        if self._install and "package:" in self.shell.run(f"pm path {PACKAGE}").text:
            self.check_output(f"pm uninstall {PACKAGE}")

    def end_run(self) -> None:
        """Ends the app if the device can be reached."""
        with contextlib.suppress(TargetError):
            self._stop_app()

    def _stop_app(self) -> None:
        self.shell.run(f"am force-stop {PACKAGE}")

    def _start_app(self, words: Sequence[str]) -> Output:
        # Marks the start in the log, which others may need: it is not cleared.
        token = f"begins-{time.monotonic_ns():x}"
        self.check_output(f"log -t shufflelite {token}")
        # The app splits its flags at blanks.
        start = ["am", "start", "-S", "-n", ACTIVITY, "--es", "args", shlex.join(words)]
        output = self.check_output(f"{device_info.quote(start)} 2>&1")
        if "Error" in output:
            raise TargetError(f"{self.name}: the app does not start: {last_line(output)}")
        end, gone = time.monotonic() + remote_target.RUN_S, False
        before, quiet_polls = "", 0
        profiled = any("profil" in word for word in words)
        while True:
            text = self.check_output(
                "logcat -d -v threadtime -s tflite:V litert:V shufflelite:V AndroidRuntime:E"
                " libc:F DEBUG:F"
            ).rpartition(token)[2]
            crash = re.search(r"(?:Fatal signal|FATAL EXCEPTION).{,1000}", text)
            if crash:
                self._stop_app()
                raise TargetError(f"{self.name}: the app crashed: {last_line(crash[0])}")
            # Memory and profile follow the headline.
            arrived = not profiled or "nodes observed" in text.rpartition("Run Order")[2]
            quiet_polls = quiet_polls + 1 if text == before else 0
            finished = _HEADLINE.search(text)
            if finished and (gone or quiet_polls >= (1 if arrived else PROFILE_POLLS)):
                return Output(text, 0)
            before = text
            if gone or time.monotonic() >= end:
                self._stop_app()
                reason = (
                    "its process is gone; memory may be short"
                    if gone
                    else f"after {remote_target.RUN_S:g} s"
                )
                raise TargetError(f"{self.name}: the app printed no result: {reason}")
            time.sleep(POLL_S)
            gone = self.shell.run(f"pidof {PACKAGE}").code == 1  # old phones have no pidof: 127


def _choose(serial: str) -> str:
    states = _states()
    usable = [one for one, state in states.items() if state == "device"]
    if not serial and len(usable) > 1:
        known = ", ".join(shlex.quote(f"--target=adb:{one}") for one in usable)
        raise InputError(f"several devices are connected: choose with {known}")
    if not serial:
        serial = (usable or list(states) or [""])[0]
    if not serial:
        raise InputError(
            "no device is connected: connect one, switch on USB debugging in its developer"
            " options, and look at `adb devices`"
        )
    if serial not in states:
        known = ", ".join(f"{one!r} ({state})" for one, state in states.items()) or "none"
        hint = f"; try `adb connect {serial}` first" if ":" in serial else ""
        raise InputError(f"adb knows no device {serial!r}, but: {printable(known)}{hint}")
    if states[serial] != "device":
        raise InputError(f"adb:{printable(serial)} {_advice(states[serial])}")
    return serial


def _advice(state: str | None) -> str:
    if not state:
        return "is not connected: connect it again"
    known = (advice for start, advice in _STATES.items() if state.startswith(start))
    return next(known, f"is in state {state!r}: restart it")


def _states() -> dict[str, str]:
    """Returns the states of all devices by serial; starts the adb server if none runs."""
    try:
        return adb_server.states()
    except (AdbError, OSError, ValueError, subprocess.SubprocessError) as error:
        if isinstance(error, (FileNotFoundError, PermissionError)) or "No adb exe" in str(error):
            raise InputError(
                f"the program adb cannot be run ({one_line(error)}): install Android's"
                " platform-tools, or `pip install adbutils`, which brings one"
            ) from error
        raise InputError(
            f"the adb server cannot be reached or started ({one_line(error)}); try"
            " `adb start-server`"
        ) from error
