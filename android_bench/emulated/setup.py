"""Downloads and builds the emulated ARM system, once, in the user's cache.

The only change to the host: it installs `qemu-user` if that is missing and the user is root.
"""

import hashlib
import json
import os
import platform
import re
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from android_bench.emulated import cores, process
from android_bench.measurement import TargetError
from shufflelite import atomic, download
from shufflelite.errors import InputError

SUITE = "bookworm"  # Debian 12: the release with Python 3.11, which LiteRT's wheel is for
MIRROR = "SHUFFLELITE_DEBIAN_MIRROR"  # environment variable, for hosts without Debian's sources
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
PACKAGES = (
    "libc6",
    "libexpat1",
    "libffi8",
    "libgcc-s1",
    "libpython3.11-minimal",
    "libpython3.11-stdlib",
    "libstdc++6",
    "python3.11-minimal",
    "zlib1g",
)
WHEELS = {  # LiteRT's interpreter imports no other package; the hashes are SHA-256
    "ai-edge-litert==2.3.0": "853fc608f96da87bd5f3458465dfb9abbf18d5ae6b94eceacead407146f175ae",
    "numpy==1.26.4": "7ab55401287bfec946ced39700c053796e7cc0e3acbef09993a9ad2adba6ca6e",
}
PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")
UNUSED = "libLiteRtWebGpuAccelerator.so"  # a third of LiteRT's wheel
SOURCE = Path(__file__).with_name("counter.c")
OLDEST, TOO_NEW = (7, 2), (9, 0)  # of QEMU: version 9 has another plugin interface
COMMAND = "python -m android_bench setup emulated"
DOWNLOAD_TIMEOUT_S = 600.0

Tell = Callable[[str], None]  # prints a line


@dataclass(frozen=True)
class System:
    """A complete setup."""

    folder: Path
    qemu_version: str
    digest: str  # of the names and hashes of its packages and wheels


def setup(tell: Tell) -> Path:
    """Makes the system unless it exists; returns its folder.

    Args:
      tell: called with a line for each step.

    Raises:
      InputError: This host lacks something; the message says what.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise InputError(
            f"the emulated target needs Linux on x86-64, got {sys.platform} on "
            f"{platform.machine()}; on an ARM machine, measure with --target host"
        )
    try:
        if not shutil.which(process.QEMU):
            _install_qemu(tell)
        version = qemu_version()
        folder = _folder(version)
        waiting = "waits for another process that sets it up"
        with download.exclusive(folder.parent, on_busy=lambda: tell(waiting)):
            if folder.is_dir():
                tell(f"already set up: {folder}")
            else:
                _make(folder, version, tell)
    except TargetError as error:
        raise InputError(f"the emulated target cannot be set up: {error}") from error
    return folder


def is_ready() -> bool:
    """Whether the system of this version is set up."""
    try:
        return _folder(qemu_version()).is_dir()
    except (InputError, TargetError):
        return False


def find() -> System:
    """Returns the system; raises InputError if it is not set up."""
    try:
        version = qemu_version()
    except TargetError as error:
        raise InputError(f"the emulated target is not set up ({error}): run `{COMMAND}`") from error
    folder = _folder(version)
    if not folder.is_dir():
        raise InputError(f"the emulated target is not set up: run `{COMMAND}`")
    manifest = (folder / "manifest.json").read_bytes()
    return System(folder, version, hashlib.sha256(manifest).hexdigest()[:12])


def qemu_version() -> str:
    """Returns the version of the installed QEMU; raises InputError if it is not supported."""
    output = process.run([process.QEMU, "--version"], timeout_s=60)
    text = output.splitlines()[0] if output else ""
    match = re.search(r"version (\d+)\.(\d+)(\.\d+)?", text)
    if not match:
        raise TargetError(f"expected `{process.QEMU} --version` to print one, got {text!r}")
    number = (int(match[1]), int(match[2]))
    if not OLDEST <= number < TOO_NEW:
        raise InputError(
            f"expected QEMU 7.2 to 8, whose plugin interface (version 1) the counter uses, got "
            f"{match[0].removeprefix('version ')}; install Debian 12's qemu-user"
        )
    return match[0].removeprefix("version ")


def _check_tools() -> None:
    for tool, package in (("apt-get", "apt"), ("dpkg", "dpkg"), ("gcc", "gcc")):
        if not shutil.which(tool):
            raise InputError(
                f"the emulated target needs {tool}, found none; install the package {package}"
                + ("" if tool == "gcc" else ", or use a Debian or Ubuntu system or container")
            )
    if not KEYRING.is_file():
        raise InputError(
            f"the emulated target needs Debian's keys, {KEYRING}, found no such file; install the "
            "package debian-archive-keyring"
        )


def _install_qemu(tell: Tell) -> None:
    if os.geteuid():
        raise InputError(
            f"the emulated target needs {process.QEMU}, found none; as root, run "
            "`apt-get install qemu-user` (qemu-user-static has no plugins), then set up again"
        )
    if not shutil.which("apt-get"):
        raise InputError(
            f"the emulated target needs {process.QEMU}, found none; install QEMU 7.2's emulators "
            "of Linux programs, with plugins"
        )
    tell("installing qemu-user")
    install = ["apt-get", "install", "--yes", "--no-install-recommends", "qemu-user"]
    try:
        process.run(install, timeout_s=DOWNLOAD_TIMEOUT_S)
    except TargetError:  # the lists of packages may be old or missing
        process.run(["apt-get", "update"], timeout_s=DOWNLOAD_TIMEOUT_S)
        process.run(install, timeout_s=DOWNLOAD_TIMEOUT_S)


def _folder(version: str) -> Path:
    parts = (SUITE, PACKAGES, sorted(WHEELS.items()), SOURCE.read_text(), version)
    key = hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
    return download.cache_folder() / "emulated" / key


def _make(folder: Path, version: str, tell: Tell) -> None:
    _check_tools()
    if "-plugin" not in process.run([process.QEMU, "--help"], timeout_s=60):
        raise InputError(
            f"the emulated target needs a {process.QEMU} with plugins, got one without; install "
            "Debian 12's or Ubuntu 24.04's qemu-user"
        )
    for partial in folder.parent.glob("*.part"):  # of killed setups: this one holds the lock
        shutil.rmtree(partial, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, suffix=".part") as name:
        temporary = Path(name)
        system, downloads = temporary / "system", temporary / "downloads"
        system.mkdir()
        downloads.mkdir()
        tell(f"downloading {len(PACKAGES)} packages of Debian for arm64")
        packages = _packages(temporary / "apt", downloads, into=system / process.ROOT)
        tell(f"downloading {' and '.join(WHEELS)} for aarch64")
        wheels = _wheels(downloads, into=system / process.SITE)
        tell("compiling the counter")
        _compile(system / process.COUNTER)
        tell("starting it")
        _try(system)
        manifest = {"qemu": version, "packages": packages, "wheels": wheels}
        (system / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
        system.rename(folder)
    tell(f"set up: {folder}")


def _packages(state: Path, downloads: Path, *, into: Path) -> dict[str, str]:
    """Downloads and unpacks the packages with a private apt; file name -> SHA-256."""
    (state / "lists/partial").mkdir(parents=True)
    (state / "cache/archives/partial").mkdir(parents=True)
    (state / "status").touch()
    (state / "sources.list").write_text(f"deb [signed-by={KEYRING}] {_mirror()} {SUITE} main\n")
    config = state / "apt.conf"
    config.write_text(_APT_CONFIG.format(state=state))
    apt = ["apt-get", f"--config-file={config}", "--quiet"]
    process.run([*apt, "update"], timeout_s=DOWNLOAD_TIMEOUT_S)
    process.run([*apt, "download", *PACKAGES], timeout_s=DOWNLOAD_TIMEOUT_S, cwd=downloads)
    packages = sorted(downloads.glob("*.deb"))
    for package in packages:
        process.run(["dpkg", "--extract", str(package), str(into)], timeout_s=300)
    return {package.name: atomic.sha256(package) for package in packages}


# The host's settings apply too (as a proxy), but not its hooks after an update.
_APT_CONFIG = """
APT::Architecture "arm64";
#clear APT::Architectures;
APT::Architectures {{ "arm64"; }};
APT::Sandbox::User "root";
APT::Default-Release "";
Acquire::Languages "none";
Dir::State "{state}";
Dir::State::status "{state}/status";
Dir::Cache "{state}/cache";
Dir::Etc::sourcelist "{state}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
#clear APT::Update;
#clear DPkg::Post-Invoke;
"""


def _mirror() -> str:
    """Returns the host's own Debian mirror: it may not reach others."""
    targets = process.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Identifier: Packages"],
        timeout_s=60,
    )
    mirrors = [uri for uri in targets.split() if uri.endswith("/debian/")]
    mirror = os.environ.get(MIRROR) or next(iter(mirrors), None)
    if mirror is None:
        raise InputError(
            "expected a Debian mirror among apt's sources, got none: set "
            f"{MIRROR} to the address of one (https://www.debian.org/mirror/list)"
        )
    return mirror


def _wheels(downloads: Path, *, into: Path) -> dict[str, str]:
    """Downloads and unpacks the wheels; file name -> SHA-256."""
    requirements = downloads / "requirements.txt"
    lines = (f"{name} --hash=sha256:{sha256}\n" for name, sha256 in WHEELS.items())
    requirements.write_text("".join(lines))
    process.run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
            *("--no-deps", "--only-binary=:all:", "--require-hashes"),
            *("--python-version", "311", "--implementation", "cp"),
            *(f"--platform={name}_aarch64" for name in PLATFORMS),
            *("--dest", str(downloads), "--requirement", str(requirements)),
        ],
        timeout_s=DOWNLOAD_TIMEOUT_S,
    )
    wheels = sorted(downloads.glob("*.whl"))
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if Path(name).name != UNUSED]
            archive.extractall(into, names)
    return {wheel.name: atomic.sha256(wheel) for wheel in wheels}


def _compile(target: Path) -> None:
    flags = ["-shared", "-fPIC", "-O2", "-Wall", "-Werror"]
    process.run(["gcc", *flags, "-o", str(target), str(SOURCE)], timeout_s=120)


def _try(system: Path) -> None:
    """Starts a guest and checks that it detects the emulated core."""
    core = cores.CORES["a53"]
    guest = process.Guest(core, system, write_bytecode=True)
    guest.close()
    if guest.start["cpuinfo"] != cores.files(core)["proc/cpuinfo"]:
        raise InputError(
            f"the emulated target needs a {process.QEMU} that does not replace /proc/cpuinfo "
            "(7.2), got one that does; install Debian 12's qemu-user"
        )
