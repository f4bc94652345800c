"""Cores, clocks and temperatures of a phone or a board, read through a shell.

Two shell scripts print them, LAYOUT and STATE; the functions here read what they printed.
"""

import itertools
import re
import shlex
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from android_bench.instruction_set import instruction_set
from shufflelite.display import printable
from shufflelite.errors import InputError

# Plain POSIX, mostly builtins: mksh, dash and busybox run it, and old phones have few tools.  A
# file may exist and still not be readable, so errors are dropped one by one.
_TELL = (
    'tell() { for f in "$@"; do v=; [ -r "$f" ] && { read -r v < "$f"; } 2>/dev/null;'
    ' [ -n "$v" ] && echo "$f=$v"; done; return 0; }; c=/sys/devices/system/cpu; '
)
LAYOUT = (
    _TELL
    + "tell $c/online $c/present $c/cpu[0-9]*/cpufreq/cpuinfo_max_freq"
    + " $c/cpu[0-9]*/cpufreq/related_cpus $c/cpu[0-9]*/topology/core_siblings_list"
    + " $c/cpu[0-9]*/cpu_capacity /proc/sys/kernel/random/boot_id"
    + " /sys/firmware/devicetree/base/model; "
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

# A broken device may print anything: longer lines, more of them and cores over 999 are left out.
_LINE = re.compile(r"^([\w/.-]{1,100})=(.{1,500})", re.MULTILINE)
_MOST_LINES = 10_000

# "soc" alone is not a system on a chip but a Qualcomm battery's state of charge, in percent.
_OF_CPU = re.compile(
    r"cpu|^soc[-_]|cluster|core|tsens|^(big|mid|little|ap)\b|x86_pkg|^exynos|^imx", re.IGNORECASE
)
_HOTTEST_C = 130  # a core switches off below it
_CPU = "/sys/devices/system/cpu"
_LITTLE = {  # Cortex-A5, A7, A35, A53, A55, A510 and A520: slower than others of their frequency
    *("0xc05", "0xc07", "0xd04", "0xd03", "0xd05", "0xd46", "0xd80"),
}
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
    offline: tuple[int, ...] = ()  # cores that the kernel has switched off
    instruction_set: str | None = None


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
    frequency, capacity = (_of_clock(values, of) for of in ("cpuinfo_max_freq", "cpu_capacity"))
    online = numbers(values.get(f"{_CPU}/online", "")) or {*parts, *frequency}
    cores = tuple(
        CpuCore(number, frequency.get(number), capacity.get(number), parts.get(number))
        for number in sorted(online)
    )
    machine = values.get("machine", "")
    abis = values.get("ro.product.cpu.abilist") or values.get("ro.product.cpu.abi") or machine
    models = (
        re.search(rf"^{name}[ \t]*:[ \t]*(\S.{{,200}})", text, re.MULTILINE)
        for name in ("Model", "Hardware", "model name")  # the last is the core's in old kernels
    )
    model = next((match[1].strip() for match in models if match), "")
    phone = _words(values.get("ro.product.manufacturer"), values.get("ro.product.model"))
    soc = _words(values.get("ro.soc.manufacturer"), values.get("ro.soc.model"))
    board = values.get("/sys/firmware/devicetree/base/model", "")
    cpu = board or printable(model) or machine
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
        offline=tuple(sorted(numbers(values.get(f"{_CPU}/present", "")) - online)),
        instruction_set=instruction_set(text),
    )


def parse_state(text: str) -> State:
    """Reads the output of STATE."""
    text = text.replace("\r", "")
    values = _values(text)
    load = re.match(r"\d{1,6}\.\d{1,6}", values.get("/proc/loadavg", ""))
    status = re.search(r"^ *Thermal Status: *(\d{1,3})\b", text, re.MULTILINE)
    governors = {
        int(number): value[:40]
        for path, value in values.items()
        for number in re.findall(r"/cpu(\d{1,3})/cpufreq/scaling_governor$", path)
    }
    return State(
        temperature_c=_temperature(values, text),
        load_average=float(load[0]) if load else None,
        governors=governors,
        limit_khz=_numbers_per_core(values, "scaling_max_freq"),
        max_khz=_numbers_per_core(values, "cpuinfo_max_freq"),
        status=int(status[1]) if status else None,
    )


def kinds(cores: Sequence[CpuCore]) -> list[tuple[int, ...]]:
    """Returns the numbers of the cores of each kind, slowest kind first.

    The kernel's measure and the highest frequency make a kind.  Cores that share both are told
    apart by their part numbers, if each of them has one.
    """
    speeds: dict[tuple[int, int], list[CpuCore]] = {}
    for core in cores:
        speeds.setdefault((core.capacity or 0, core.max_khz or 0), []).append(core)
    groups: dict[tuple[int, int, bool, str], list[int]] = {}
    for speed, alike in sorted(speeds.items()):
        for core in alike:
            part = (core.part or "") if all(one.part for one in alike) else ""
            groups.setdefault((*speed, part not in _LITTLE, part), []).append(core.number)
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
    notes = []
    unknown = [core.number for core in layout.cores if not core.capacity and not core.max_khz]
    if requested in (None, "big", "little"):
        if layout.offline:
            notes.append(f"cores {span(layout.offline)} are offline: not measured")
        if 0 < len(unknown) < len(online):
            notes.append(f"cores {span(unknown)} may be the fastest: their speed is not reported")
    if not layout.taskset and chosen != online:
        if requested is not None:
            raise InputError(f"--cores={requested}: the device has no taskset; leave --cores out")
        notes.append("not kept to cores of one kind: the device has no taskset")
        return CoreChoice(notes=tuple(notes))
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
        match = re.fullmatch(r"(\d{1,3})(?:-(\d{1,3}))?", interval)
        if not match or int(match[2] or match[1]) < int(match[1]) or len(text) > 10_000:
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
    lines = itertools.islice(_LINE.finditer(text), _MOST_LINES)
    return {line[1]: printable(line[2].strip(" \t\0")) for line in lines}


def _per_core(values: Mapping[str, str], name: str) -> dict[int, str]:
    pattern = re.compile(rf"{_CPU}/cpu(\d{{1,3}})/(?:cpufreq/|topology/)?{name}")
    return {
        int(core[1]): value for path, value in values.items() if (core := pattern.fullmatch(path))
    }


def _numbers_per_core(values: Mapping[str, str], name: str) -> dict[int, int]:
    return {
        core: int(value)
        for core, value in _per_core(values, name).items()
        if re.fullmatch(r"[0-9]{1,9}", value)
    }


def _of_clock(values: Mapping[str, str], name: str) -> dict[int, int]:
    """Returns the value of each core, or that of the cores on the same clock or in its cluster.

    Cores that the kernel switches on and off lack files now and then; others still name them.
    """
    per_core = _numbers_per_core(values, name)
    for relation in ("related_cpus", "core_siblings_list"):
        groups = {
            frozenset(numbers(",".join(v.split()))) for v in _per_core(values, relation).values()
        }
        for group in groups:
            known = {per_core[core] for core in group & per_core.keys()}
            if len(known) == 1:
                per_core = {**dict.fromkeys(group, *known), **per_core}
    return per_core


def _parts(cpuinfo: str) -> dict[int, str]:
    """Returns the part numbers of the cores; old kernels print one for all of them."""
    lines = re.finditer(
        r"^processor[ \t]*:[ \t]*(\d{1,3})$|^CPU part[ \t]*:[ \t]*(\S{1,10})$",
        cpuinfo,
        re.MULTILINE,
    )
    parts: dict[int, str] = {}
    for line in itertools.islice(lines, _MOST_LINES):  # "processor" begins the block of a core
        if line[1]:
            latest = int(line[1])
            parts[latest] = ""
        elif parts:
            parts[latest] = line[2]
    printed = [part for part in parts.values() if part]
    return dict.fromkeys(parts, printed[0]) if len(printed) == 1 else parts


def _temperature(values: Mapping[str, str], text: str) -> float | None:
    zones = []
    for path, value in values.items():
        zone = re.fullmatch(r"(/sys/class/thermal/thermal_zone\d{1,4}/)temp", path)
        if zone and re.fullmatch(r"[0-9]{1,6}", value):
            zones.append((values.get(f"{zone[1]}type", ""), _degrees(int(value))))
    # The HAL of Android 10 and later, where the files above are not readable.  "Current" is last.
    current = text.rpartition("Current temperatures from HAL:")[2]
    for degrees, kind in re.findall(r"\{mValue=(\d{1,3}(?:\.\d{1,9})?), mType=(\d),", current):
        if kind == "0":
            zones.append(("cpu", float(degrees)))
    of_cpu = [c for kind, c in zones if _OF_CPU.search(kind) and "gpu" not in kind.lower()]
    plausible = [c for c in of_cpu if 1 < c <= _HOTTEST_C]
    return round(max(plausible), 1) if plausible else None


def _degrees(value: int) -> float:
    """Kernels print degrees, tenths (Qualcomm's of 2015-2018) or thousandths: by the size."""
    if value <= _HOTTEST_C:
        return value
    return value / (10 if value <= 10 * _HOTTEST_C else 1000)


def _words(*words: str | None) -> str:
    return " ".join(word for word in words if word)
