"""Cores, clocks and temperatures of a phone or a board, read through a shell.

Two shell scripts print them, LAYOUT and STATE; the functions here read what they printed.
"""

import math
import re
import shlex
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from shufflelite.errors import InputError

# Plain POSIX, mostly builtins: mksh, dash and busybox run it, and old phones have few tools.  A
# file may exist and still not be readable, so errors are dropped one by one.
_TELL = (
    'tell() { for f in "$@"; do v=; [ -r "$f" ] && { read -r v < "$f"; } 2>/dev/null;'
    ' [ -n "$v" ] && echo "$f=$v"; done; return 0; }; c=/sys/devices/system/cpu; '
)
LAYOUT = (
    _TELL
    + "tell $c/online $c/cpu[0-9]*/cpufreq/cpuinfo_max_freq $c/cpu[0-9]*/cpu_capacity"
    + " /proc/sys/kernel/random/boot_id /sys/firmware/devicetree/base/model; "
    + "for name in ro.serialno ro.product.manufacturer ro.product.model ro.soc.manufacturer"
    + " ro.soc.model ro.board.platform ro.build.fingerprint ro.product.cpu.abilist"
    + " ro.product.cpu.abi; do"
    + ' v="$(getprop $name 2>/dev/null)"; [ -n "$v" ] && echo "$name=$v"; done; '
    + 'echo "machine=$(uname -m)"; echo "kernel=$(uname -sr)"; '
    + "command -v taskset >/dev/null 2>&1 && echo taskset=yes; cat /proc/cpuinfo 2>/dev/null"
)
STATE = (
    _TELL
    + "tell /proc/loadavg $c/cpu[0-9]*/cpufreq/scaling_governor"
    + " $c/cpu[0-9]*/cpufreq/scaling_max_freq $c/cpu[0-9]*/cpufreq/cpuinfo_max_freq"
    + " /sys/class/thermal/thermal_zone*/type /sys/class/thermal/thermal_zone*/temp; "
    + "command -v dumpsys >/dev/null 2>&1 && dumpsys thermalservice 2>/dev/null; true"
)

# "soc" alone is not a system on a chip but a Qualcomm battery's state of charge, in percent.
_OF_CPU = re.compile(
    r"cpu|^soc[-_]|cluster|core|tsens|^(big|mid|little|ap)\b|x86_pkg", re.IGNORECASE
)
_STATUS = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")


@dataclass(frozen=True)
class CpuCore:
    """A core that is online; None: not reported."""

    number: int
    max_khz: int | None = None
    capacity: int | None = None  # the scheduler's measure, 1024 for the fastest
    part: str | None = None  # such as "0xd41", of /proc/cpuinfo


@dataclass(frozen=True)
class Layout:
    """The properties of a device that do not change while it is switched on."""

    cores: tuple[CpuCore, ...]
    cpu: str
    fingerprint: str
    abis: tuple[str, ...]  # the preferred one first: "arm64-v8a" of Android, "aarch64" of Linux
    taskset: bool
    identity: str | None = None  # of the device, however it is reached


@dataclass(frozen=True)
class State:
    """The properties that change; the keys are numbers of cores."""

    temperature_c: float | None = None
    load_average: float | None = None
    governors: Mapping[int, str] | None = None
    limit_khz: Mapping[int, int] | None = None
    max_khz: Mapping[int, int] | None = None
    status: int | None = None  # Android's thermal status, 0 is cool


@dataclass(frozen=True)
class CoreChoice:
    """The cores that models run on; empty: all of them, without taskset."""

    cores: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


def parse_layout(text: str) -> Layout:
    """Reads the output of LAYOUT."""
    text = text.replace("\r", "")  # adb of old phones
    values = _values(text)
    parts = _parts(text)
    frequency, capacity = _per_core(values, "cpuinfo_max_freq"), _per_core(values, "cpu_capacity")
    online = numbers(values.get("/sys/devices/system/cpu/online", ""))
    cores = tuple(
        CpuCore(number, frequency.get(number), capacity.get(number), parts.get(number))
        for number in sorted(online or {*parts, *frequency})
    )
    machine = values.get("machine", "")
    abis = values.get("ro.product.cpu.abilist") or values.get("ro.product.cpu.abi") or machine
    model = re.search(r"^(?:Hardware|Model|model name)\s*:\s*(.+)$", text, re.MULTILINE)
    phone = _words(values.get("ro.product.manufacturer"), values.get("ro.product.model"))
    soc = _words(values.get("ro.soc.manufacturer"), values.get("ro.soc.model"))
    board = values.get("/sys/firmware/devicetree/base/model", "").rstrip("\0")
    cpu = board or (model[1].strip() if model else "") or machine
    if phone:
        cpu = f"{phone} ({soc or values.get('ro.board.platform') or cpu})"
    return Layout(
        cores=cores,
        cpu=cpu,
        fingerprint=values.get("ro.build.fingerprint")
        or _words(cpu, values.get("kernel"), machine),
        abis=tuple(abis.split(",")),
        taskset="taskset" in values,
        identity=values.get("/proc/sys/kernel/random/boot_id") or values.get("ro.serialno"),
    )


def parse_state(text: str) -> State:
    """Reads the output of STATE."""
    text = text.replace("\r", "")
    values = _values(text)
    load = re.match(r"\d+\.\d+", values.get("/proc/loadavg", ""))
    status = re.search(r"^\s*Thermal Status:\s*(\d+)", text, re.MULTILINE)
    governors = {
        int(number): value
        for path, value in values.items()
        for number in re.findall(r"/cpu(\d+)/cpufreq/scaling_governor$", path)
    }
    return State(
        temperature_c=_temperature(values, text),
        load_average=float(load[0]) if load else None,
        governors=governors,
        limit_khz=_per_core(values, "scaling_max_freq"),
        max_khz=_per_core(values, "cpuinfo_max_freq"),
        status=int(status[1]) if status else None,
    )


def kinds(cores: Sequence[CpuCore]) -> list[tuple[int, ...]]:
    """Returns the numbers of the cores of each kind, slowest kind first."""
    groups: dict[tuple[int, int, str], list[int]] = {}
    for core in cores:
        key = core.capacity or 0, core.max_khz or 0, core.part or ""
        groups.setdefault(key, []).append(core.number)
    return [tuple(groups[key]) for key in sorted(groups)]


def choose(layout: Layout, *, requested: str | None, threads: int) -> CoreChoice:
    """Chooses cores of one kind for `threads`.

    Args:
      layout: The device.
      requested: "big" (default): the fastest kind with a core for each thread; "little": the
        slowest kind; or numbers such as "4-7".
      threads: Number of threads of a model.
    """
    groups, online = kinds(layout.cores), tuple(core.number for core in layout.cores)
    if requested not in (None, "big", "little"):
        chosen = tuple(sorted(numbers(requested)))
        if not chosen or not set(chosen) <= set(online):
            raise InputError(
                f"--cores={requested}: expected big, little or numbers of {span(online) or 'none'},"
                " which are online; see the device's /sys/devices/system/cpu/online"
            )
    elif requested == "little":
        chosen = groups[0] if groups else ()
    else:
        enough = [group for group in groups if len(group) >= threads]
        chosen = enough[-1] if enough else online
    if not layout.taskset and chosen != online:
        if requested is not None:
            raise InputError(f"--cores={requested}: the device has no taskset; leave --cores out")
        return CoreChoice(notes=("not kept to cores of one kind: the device has no taskset",))
    notes = []
    mixed = [span(group) for group in groups if set(group) & set(chosen)]
    if len(mixed) > 1:
        notes.append(f"cores of {len(mixed)} kinds: {', '.join(mixed)}")
    if len(chosen) < threads and chosen:
        notes.append(f"{threads} threads share {len(chosen)} cores")
    return CoreChoice(() if chosen == online else chosen, tuple(notes))


def pinned(command: Sequence[str], cores: Sequence[int]) -> list[str]:
    """Returns `command`, restricted to `cores` unless these are empty."""
    # A mask, not a list: toybox's taskset has no -c.
    mask = sum(1 << core for core in cores)
    return ["taskset", f"{mask:x}", *command] if cores else list(command)


def governor(state: State, cores: Iterable[int]) -> str | None:
    """Returns the frequency governors of `cores`; empty: of all."""
    governors = state.governors or {}
    names = sorted({governors[core] for core in cores or governors if core in governors})
    return ", ".join(names) or None


def throttling(state: State, cores: Iterable[int]) -> list[str]:
    """Describes how the device has throttled itself."""
    limits, maxima = state.limit_khz or {}, state.max_khz or {}
    throttled: dict[tuple[int, int], list[int]] = {}
    for core in cores or limits:
        if core in limits and core in maxima and limits[core] < maxima[core]:
            throttled.setdefault((limits[core], maxima[core]), []).append(core)
    notes = [
        f"throttled: cores {span(numbers_)} held to {limit / 1e6:.2f} of {maximum / 1e6:.2f} GHz"
        for (limit, maximum), numbers_ in sorted(throttled.items())
    ]
    if state.status:
        name = _STATUS[min(state.status, len(_STATUS) - 1)]
        notes.append(f"throttled: Android's thermal status is {name}")
    return notes


def cool_down(
    read: Callable[[], float | None],
    *,
    goal_c: float | None,
    limit_s: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> float | None:
    """Waits until `read` is at most `goal_c`; returns the last temperature read.

    Args:
      read: Returns the temperature in degrees Celsius; None ends the waiting.
      goal_c: None: do not wait.
      limit_s: The longest time to wait.
      clock: Returns seconds.
      sleep: Waits for a number of seconds.
    """
    end = clock() + limit_s
    while True:
        now_c = read()
        remaining_s = end - clock()
        if now_c is None or goal_c is None or now_c <= goal_c or remaining_s <= 0:
            return now_c
        sleep(min(2.0, remaining_s))


def numbers(text: str) -> set[int]:
    """Returns the numbers of "0-3,6"; empty if the text is not of that form."""
    result: set[int] = set()
    for interval in text.strip().split(","):
        match = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", interval)
        if not match or int(match[2] or match[1]) < int(match[1]):
            return set()
        result.update(range(int(match[1]), int(match[2] or match[1]) + 1))
    return result


def span(cores: Iterable[int]) -> str:
    """Returns the inverse of `numbers`, such as "0-3,6"."""
    runs: list[list[int]] = []
    for core in sorted(cores):
        if runs and core == runs[-1][-1] + 1:
            runs[-1].append(core)
        else:
            runs.append([core])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def quote(words: Iterable[str]) -> str:
    """Returns a command for a remote shell, with each word quoted."""
    return shlex.join(words)


def _values(text: str) -> dict[str, str]:
    lines = (line.partition("=") for line in text.split("\n"))
    return {key: value.strip() for key, equal, value in lines if equal}


def _per_core(values: Mapping[str, str], name: str) -> dict[int, int]:
    per_core = {}
    for path, value in values.items():
        core = re.fullmatch(rf"/sys/devices/system/cpu/cpu(\d+)/(?:cpufreq/)?{name}", path)
        if core and value.isdecimal():
            per_core[int(core[1])] = int(value)
    return per_core


def _parts(cpuinfo: str) -> dict[int, str]:
    """Returns the part numbers of the cores; old kernels print one for all of them."""
    lines = re.findall(r"^processor\s*:\s*(\d+)$|^CPU part\s*:\s*(\S+)$", cpuinfo, re.MULTILINE)
    parts: dict[int, str] = {}
    for number, part in lines:  # "processor" begins the block of a core
        if number:
            latest = int(number)
            parts[latest] = ""
        elif parts:
            parts[latest] = part
    printed = [part for part in parts.values() if part]
    return dict.fromkeys(parts, printed[0]) if len(printed) == 1 else parts


def _temperature(values: Mapping[str, str], text: str) -> float | None:
    zones = []
    for path, value in values.items():
        zone = re.fullmatch(r"(/sys/class/thermal/thermal_zone\d+/)temp", path)
        kind = values.get(f"{zone[1]}type", "") if zone else ""
        if zone and re.fullmatch(r"-?\d+", value):
            degrees = int(value) / (1000 if abs(int(value)) > 1000 else 1)
            zones.append((kind, degrees))
    # The HAL of Android 10 and later, where the files above are not readable.  "Current" is last.
    current = text.rpartition("Current temperatures from HAL:")[2]
    for degrees_, kind in re.findall(r"\{mValue=(\d+(?:\.\d+)?), mType=(\d+),", current):
        if kind == "0":
            zones.append(("cpu", float(degrees_)))
    plausible = [(kind, c) for kind, c in zones if 1 < c < 150 and math.isfinite(c)]
    of_cpu = [c for kind, c in plausible if _OF_CPU.search(kind) and "gpu" not in kind.lower()]
    return round(max(of_cpu), 1) if of_cpu else None


def _words(*words: str | None) -> str:
    return " ".join(word for word in words if word)
