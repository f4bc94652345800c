"""The benchmark tool's program for a device: the user's, or the official one, downloaded once."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from shufflelite import atomic, config, download, file_kinds
from shufflelite.download import RemoteFile
from shufflelite.errors import InputError

_NIGHTLY = (  # https://www.tensorflow.org/lite/performance/measurement; no hashes are published
    "https://storage.googleapis.com/tensorflow-nightly-public/prod/tensorflow/release/lite/tools/"
    "nightly/latest"
)
TOOLS = {  # (system, ABI as the device calls it): the official program
    ("android", "arm64-v8a"): f"{_NIGHTLY}/android_aarch64_benchmark_model",
    ("android", "armeabi-v7a"): f"{_NIGHTLY}/android_arm_benchmark_model",
    ("linux", "aarch64"): f"{_NIGHTLY}/linux_aarch64_benchmark_model",
    ("linux", "armv7l"): f"{_NIGHTLY}/linux_arm_benchmark_model",
    ("linux", "x86_64"): f"{_NIGHTLY}/linux_x86-64_benchmark_model",
    ("apk", "arm64-v8a"): f"{_NIGHTLY}/android_aarch64_benchmark_model.apk",
    ("apk", "armeabi-v7a"): f"{_NIGHTLY}/android_arm_benchmark_model.apk",
}
_MACHINES = {3: "x86", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv"}  # e_machine
_RUNS = {  # ABI: the machines whose programs it runs
    "arm64-v8a": ("aarch64",),  # where it also runs 32 bits, Android lists armeabi-v7a
    "aarch64": ("aarch64", "arm"),
    "armeabi-v7a": ("arm",),
    "armv7l": ("arm",),
    "armv8l": ("arm",),  # a 64-bit core under a 32-bit system
    "x86_64": ("x86_64", "x86"),
    "x86": ("x86",),
    "i686": ("x86",),
}


@dataclass(frozen=True)
class ToolBinary:
    """A program of the benchmark tool, as a file on this machine."""

    path: Path
    sha256: str


def find(
    *, system: str, abis: Sequence[str], path: str | None, folder: Path | None = None
) -> ToolBinary:
    """Finds the program for a device; downloads the official one if needed.

    Args:
      system: "android", "linux" or "apk".
      abis: Of the device, its own first.
      path: The user's own program, if any; it is checked.
      folder: Folder of the downloaded programs; None: the cache.

    Raises:
      InputError: It is not available, or is for other processors.
    """
    if path is not None:
        return ToolBinary(*_checked(Path(path).expanduser(), system=system, abis=abis))
    url = next((TOOLS[system, abi] for abi in abis if (system, abi) in TOOLS), None)
    if url is None:
        known = ", ".join(abi for kind, abi in TOOLS if kind == system)
        raise InputError(
            f"no official benchmark tool for {' or '.join(abis) or 'an unknown ABI'} (there are:"
            f" {known}); build benchmark_model for it and pass --benchmark_binary=FILE"
        )
    folder = folder or download.cache_folder() / "benchmark_tools"
    program = folder / url.rsplit("/", 1)[-1]
    record = program.with_name(
        f"{program.name}.json"
    )  # the hash, since the server's file changes daily
    if not program.is_file():
        record.unlink(missing_ok=True)
    kind = file_kinds.APK if system == "apk" else file_kinds.ELF
    try:
        download.download(RemoteFile(url, kind=kind), folder=folder)
    except InputError as error:
        raise InputError(f"{str(error).rstrip('.')}, or pass --benchmark_binary=FILE.") from error
    try:
        _, sha256 = _checked(program, system=system, abis=abis)
    except InputError as error:
        raise InputError(f"{error}; delete it to download it again") from error
    if not record.is_file():
        entry = {"url": url, "sha256": sha256, "date_utc": _now()}
        atomic.write(record, (json.dumps(entry) + "\n").encode())
    try:
        recorded = config.read_json(record).get("sha256")
    except InputError:  # damaged
        recorded = None
    if recorded != sha256:
        raise InputError(
            f"{program}: expected SHA-256 {recorded} as when it was downloaded, got {sha256};"
            f" delete {program} and {record.name} beside it to download it again"
        )
    return ToolBinary(program, sha256)


def machine(data: bytes) -> str | None:
    """Returns the processors that a program is for; None if it is not an ELF file, as a script."""
    if data[:4] != b"\x7fELF" or len(data) < 20:
        return None
    number = int.from_bytes(data[18:20], "big" if data[5] == 2 else "little")
    return _MACHINES.get(number, f"machine {number}")


def _checked(path: Path, *, system: str, abis: Sequence[str]) -> tuple[Path, str]:
    if not path.is_file():
        raise InputError(f"{path}: expected the benchmark tool's file, found no such file")
    data = path.read_bytes()
    is_apk = data[:4] == b"PK\x03\x04"
    if is_apk != (system == "apk"):
        expected = "an APK, as target adb-apk needs" if system == "apk" else "a program, not an APK"
        raise InputError(f"{path}: expected {expected}, got a file that starts with {data[:4]!r}")
    built_for = machine(data)
    runs = {name for abi in abis for name in _RUNS.get(abi, ())}
    if built_for is not None and runs and built_for not in runs:
        raise InputError(
            f"{path}: expected a program for {' or '.join(abis)}, as the device runs, got one for"
            f" {built_for}"
        )
    return path, hashlib.sha256(data).hexdigest()


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
