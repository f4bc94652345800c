"""What a phone or a board tells of itself through a shell: cores, clocks, temperatures.

The two scripts ask, everything else here is a function of what they printed.
"""

import math
import re
import shlex
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from shufflelite.errors import InputError

# Plain POSIX, of builtins as far as possible: mksh, dash and busybox run it, and old phones have
# few tools.  A file may exist and still refuse to be read, so errors are dropped one by one.
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

# "soc" alone is no system on a chip but a Qualcomm battery's state of charge, in percent.
_OF_CPU = re.compile(
    r"cpu|^soc[-_]|cluster|core|tsens|^(big|mid|little|ap)\b|x86_pkg", re.IGNORECASE
)
_STATUS = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")


@dataclass(frozen=True)
class Core:
    """One core that is online; None where the device does not tell."""

    number: int
    max_khz: int | None = None
    capacity: int | None = None  # the scheduler's measure, 1024 for the fastest
    part: str | None = None  # such as "0xd41", of /proc/cpuinfo


@dataclass(frozen=True)
class Layout:
    """What does not change while it is switched on."""

    cores: tuple[Core, ...]
    cpu: str
    fingerprint: str
    abis: tuple[str, ...]  # the machine's own first: "arm64-v8a" of Android, "aarch64" of Linux
    taskset: bool
    identity: str | None = None  # of this one device, whatever way it is reached


@dataclass(frozen=True)
class State:
    """What changes; cores are keys."""

    temperature_c: float | None = None
    load_average: float | None = None
    governors: Mapping[int, str] | None = None
    limit_khz: Mapping[int, int] | None = None
    max_khz: Mapping[int, int] | None = None
    status: int | None = None  # Android's thermal status, 0 is cool


@dataclass(frozen=True)
class Choice:
    """The cores that models are kept to; none: all of them, without taskset."""

    cores: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


def parse_layout(text: str) -> Layout:
    """Reads what LAYOUT printed."""
    text = text.replace("\r", "")  # adb of old phones
    told = _told(text)
    parts = _by_core(re.findall(r"^processor\s*:\s*(\d+)$|^CPU part\s*:\s*(\S+)$", text, re.M))
    frequency, capacity = _per_core(told, "cpuinfo_max_freq"), _per_core(told, "cpu_capacity")
    online = numbers(told.get("/sys/devices/system/cpu/online", ""))
    cores = tuple(
        Core(number, frequency.get(number), capacity.get(number), parts.get(number))
        for number in sorted(online or {*parts, *frequency})
    )
    machine = told.get("machine", "")
    abis = told.get("ro.product.cpu.abilist") or told.get("ro.product.cpu.abi") or machine
    named = re.search(r"^(?:Hardware|Model|model name)\s*:\s*(.+)$", text, re.MULTILINE)
    phone = _words(told.get("ro.product.manufacturer"), told.get("ro.product.model"))
    soc = _words(told.get("ro.soc.manufacturer"), told.get("ro.soc.model"))
    board = told.get("/sys/firmware/devicetree/base/model", "").rstrip("\0")
    cpu = board or (named[1].strip() if named else "") or machine
    if phone:
        cpu = f"{phone} ({soc or told.get('ro.board.platform') or cpu})"
    return Layout(
        cores=cores,
        cpu=cpu,
        fingerprint=told.get("ro.build.fingerprint") or _words(cpu, told.get("kernel"), machine),
        abis=tuple(abis.split(",")),
        taskset="taskset" in told,
        identity=told.get("/proc/sys/kernel/random/boot_id") or told.get("ro.serialno"),
    )


def parse_state(text: str) -> State:
    """Reads what STATE printed."""
    text = text.replace("\r", "")
    told = _told(text)
    load = re.match(r"\d+\.\d+", told.get("/proc/loadavg", ""))
    status = re.search(r"^\s*Thermal Status:\s*(\d+)", text, re.MULTILINE)
    governors = {
        int(number): value
        for path, value in told.items()
        for number in re.findall(r"/cpu(\d+)/cpufreq/scaling_governor$", path)
    }
    return State(
        temperature_c=_temperature(told, text),
        load_average=float(load[0]) if load else None,
        governors=governors,
        limit_khz=_per_core(told, "scaling_max_freq"),
        max_khz=_per_core(told, "cpuinfo_max_freq"),
        status=int(status[1]) if status else None,
    )


def kinds(cores: Sequence[Core]) -> list[tuple[int, ...]]:
    """The numbers of cores that are alike, slowest kind first."""
    alike: dict[tuple[int, int, str], list[int]] = {}
    for core in cores:
        key = core.capacity or 0, core.max_khz or 0, core.part or ""
        alike.setdefault(key, []).append(core.number)
    return [tuple(alike[key]) for key in sorted(alike)]


def choose(layout: Layout, *, requested: str | None, threads: int) -> Choice:
    """Cores of one kind for `threads`.

    Args:
      layout: The device.
      requested: "big" (default): the fastest kind with a core for each thread; "little": the
        slowest kind; or numbers such as "4-7".
      threads: How many run at once.
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
        return Choice(notes=("not kept to cores of one kind: the device has no taskset",))
    notes = []
    mixed = [span(group) for group in groups if set(group) & set(chosen)]
    if len(mixed) > 1:
        notes.append(f"cores of {len(mixed)} kinds: {', '.join(mixed)}")
    if len(chosen) < threads and chosen:
        notes.append(f"{threads} threads share {len(chosen)} cores")
    return Choice(() if chosen == online else chosen, tuple(notes))


def pinned(command: Sequence[str], cores: Sequence[int]) -> list[str]:
    """`command`, kept to `cores` where there are any."""
    # A mask, not a list: toybox's taskset knows no -c.
    mask = sum(1 << core for core in cores)
    return ["taskset", f"{mask:x}", *command] if cores else list(command)


def governor(state: State, cores: Iterable[int]) -> str | None:
    """How the clocks of `cores` (none: of all) are governed."""
    governors = state.governors or {}
    found = sorted({governors[core] for core in cores or governors if core in governors})
    return ", ".join(found) or None


def throttling(state: State, cores: Iterable[int]) -> list[str]:
    """What the device says of having slowed itself down, in words."""
    limits, most = state.limit_khz or {}, state.max_khz or {}
    held: dict[tuple[int, int], list[int]] = {}
    for core in cores or limits:
        if core in limits and core in most and limits[core] < most[core]:
            held.setdefault((limits[core], most[core]), []).append(core)
    notes = [
        f"throttled: cores {span(which)} held to {limit / 1e6:.2f} of {whole / 1e6:.2f} GHz"
        for (limit, whole), which in sorted(held.items())
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
      read: Tells the temperature in degrees Celsius; None ends the waiting.
      goal_c: None: nothing to wait for.
      limit_s: The longest time to wait.
      clock: Seconds, from any start.
      sleep: Waits for seconds.
    """
    end = clock() + limit_s
    while True:
        now_c = read()
        left_s = end - clock()
        if now_c is None or goal_c is None or now_c <= goal_c or left_s <= 0:
            return now_c
        sleep(min(2.0, left_s))


def numbers(text: str) -> set[int]:
    """The numbers of "0-3,6"; none where it is anything else."""
    found: set[int] = set()
    for part in text.strip().split(","):
        ends = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", part)
        if not ends or int(ends[2] or ends[1]) < int(ends[1]):
            return set()
        found.update(range(int(ends[1]), int(ends[2] or ends[1]) + 1))
    return found


def span(cores: Iterable[int]) -> str:
    """The reverse of `numbers`, such as "0-3,6"."""
    runs: list[list[int]] = []
    for core in sorted(cores):
        if runs and core == runs[-1][-1] + 1:
            runs[-1].append(core)
        else:
            runs.append([core])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def quote(words: Iterable[str]) -> str:
    """One command for a remote shell, which takes every word as it is."""
    return shlex.join(words)


def _told(text: str) -> dict[str, str]:
    lines = (line.partition("=") for line in text.split("\n"))
    return {key: value.strip() for key, equal, value in lines if equal}


def _per_core(told: Mapping[str, str], name: str) -> dict[int, int]:
    found = {}
    for path, value in told.items():
        core = re.fullmatch(rf"/sys/devices/system/cpu/cpu(\d+)/(?:cpufreq/)?{name}", path)
        if core and value.isdecimal():
            found[int(core[1])] = int(value)
    return found


def _by_core(pairs: Iterable[tuple[str, str]]) -> dict[int, str]:
    found: dict[int, str] = {}
    for number, part in pairs:  # "processor" opens the block of a core
        if number:
            latest = int(number)
            found[latest] = ""
        elif found:
            found[latest] = part
    return found


def _temperature(told: Mapping[str, str], text: str) -> float | None:
    zones = []
    for path, value in told.items():
        zone = re.fullmatch(r"(/sys/class/thermal/thermal_zone\d+/)temp", path)
        kind = told.get(f"{zone[1]}type", "") if zone else ""
        if zone and re.fullmatch(r"-?\d+", value):
            degrees = int(value) / (1000 if abs(int(value)) > 1000 else 1)
            zones.append((kind, degrees))
    # The HAL of Android 10 and later, where the files above may not be read.  "Current" comes last.
    current = text.rpartition("Current temperatures from HAL:")[2]
    for degrees_, kind in re.findall(r"\{mValue=(\d+(?:\.\d+)?), mType=(\d+),", current):
        if kind == "0":
            zones.append(("cpu", float(degrees_)))
    usable = [(kind, c) for kind, c in zones if 1 < c < 150 and math.isfinite(c)]
    of_cpu = [c for kind, c in usable if _OF_CPU.search(kind) and "gpu" not in kind.lower()]
    return round(max(of_cpu), 1) if of_cpu else None


def _words(*words: str | None) -> str:
    return " ".join(word for word in words if word)
