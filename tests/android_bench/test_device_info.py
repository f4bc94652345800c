"""What a device's shell tells of cores, clocks and temperatures, read from texts of real ones."""

import shlex
import subprocess
import tracemalloc
from pathlib import Path

import pytest

from android_bench import device_info
from android_bench.device_info import CpuCore, Layout, State
from android_bench.targets import temperatures
from shufflelite.errors import InputError

PIXEL_6 = "".join(
    f"/sys/devices/system/cpu/cpu{core}/cpufreq/cpuinfo_max_freq={khz}\n"
    for core, khz in enumerate([1803000] * 4 + [2253000] * 2 + [2802000] * 2)
)


def layout(*cores: CpuCore, taskset: bool = True) -> Layout:
    return Layout(cores, "cpu", "fingerprint", ("arm64-v8a",), taskset)


def of_kinds(*kinds: tuple[int, int]) -> Layout:
    """Cores numbered on: (how many, frequency in MHz) of each kind."""
    each = [mhz * 1000 for count, mhz in kinds for _ in range(count)]
    return layout(*(CpuCore(number, khz) for number, khz in enumerate(each)))


def test_the_scripts_run_in_a_plain_shell_and_are_understood() -> None:
    shells = [
        subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=1200)
        for script in (device_info.LAYOUT, device_info.STATE)
    ]
    assert [one.returncode for one in shells] == [0, 0]
    assert [one.stderr for one in shells] == ["", ""]
    here = device_info.parse_layout(shells[0].stdout)
    online = Path("/sys/devices/system/cpu/online").read_text()
    assert device_info.span(core.number for core in here.cores) == online.strip()
    assert here.identity == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert here.cpu
    state = device_info.parse_state(shells[1].stdout)
    assert state.load_average is not None


def test_a_phone_is_identified_by_its_properties() -> None:
    text = (
        "/sys/devices/system/cpu/online=0-7\n"
        + PIXEL_6
        + "ro.serialno=1A2B\nro.product.manufacturer=Google\nro.product.model=Pixel 6\n"
        "ro.soc.manufacturer=Google\nro.soc.model=GS101\nro.build.fingerprint=google/oriole:14\n"
        "ro.product.cpu.abilist=arm64-v8a,armeabi-v7a,armeabi\nmachine=aarch64\ntaskset=yes\n"
        + "".join(
            f"processor\t: {core}\nFeatures\t: fp asimd asimddp\nCPU part\t: {part}\n\n"
            for core, part in enumerate(["0xd05"] * 4 + ["0xd41"] * 2 + ["0xd44"] * 2)
        )
    )
    for ends in ("\n", "\r\n"):  # adb of old phones
        device = device_info.parse_layout(text.replace("\n", ends))
        assert device.cpu == "Google Pixel 6 (Google GS101)"
        assert device.fingerprint == "google/oriole:14"
        assert device.abis == ("arm64-v8a", "armeabi-v7a", "armeabi")
        assert device.identity == "1A2B"
        assert device.instruction_set == "dotprod"
        assert device.cores[0] == CpuCore(0, 1803000, None, "0xd05")
        assert device.cores[7] == CpuCore(7, 2802000, None, "0xd44")
        # As a benchmark rig keeps its runs to one kind on this phone: masks c0, 30 and 0f.
        assert device_info.choose(device, requested=None, threads=1).cores == (6, 7)
        assert device_info.choose(device, requested=None, threads=4).cores == (0, 1, 2, 3)


CPU = "/sys/devices/system/cpu"
A53, A73, A72, KRAIT = "0xd03", "0xd09", "0xd08", "0x06f"


def files(name: str, values: dict[str, object]) -> str:
    """The lines of a file of several cores, given by their spans."""
    return "".join(
        f"{CPU}/cpu{core}/{name}={value}\n"
        for cores, value in values.items()
        for core in device_info.numbers(cores)
    )


def clocks(khz: dict[str, object], related: dict[str, object] | None = None) -> str:
    """Frequencies, and the cores that have them; by default of all cores of a span."""
    together = related or {cores: spaced(cores) for cores in khz}
    return files("cpufreq/cpuinfo_max_freq", khz) + files("cpufreq/related_cpus", together)


def spaced(cores: str) -> str:
    return " ".join(map(str, sorted(device_info.numbers(cores))))


def blocks(cores: str, part: str) -> str:
    """/proc/cpuinfo of kernels that print the part of each core."""
    numbers = sorted(device_info.numbers(cores))
    return "".join(f"processor\t: {core}\nCPU part\t: {part}\n\n" for core in numbers)


def one_block(cores: str, part: str, head: str) -> str:
    """/proc/cpuinfo of older kernels, which print the part of the core that reads it."""
    numbers = sorted(device_info.numbers(cores))
    listed = "".join(f"processor\t: {core}\n" for core in numbers)
    return f"Processor\t: {head}\n{listed}Features\t: neon\nCPU part\t: {part}\n\n"


# present, online and other files, and what follows from them: kinds, choice and notes.  Kernels
# switch cores off and on while their files are read.
PHONES = {
    # Two A72, printed last; core 4 went offline between two files.
    "Galaxy C9 Pro": (
        "0-7",
        "0-5,7",
        clocks({"0-3": 1401600, "5,7": 1958400}, {"0-3": "0 1 2 3", "5,7": "4 5 6 7"})
        + one_block("0-7", A72, "AArch64 Processor rev 0 (aarch64)"),
        ["0-3", "4-5,7"],
        "4-5,7",
        ("cores 6 are offline: not measured",),
    ),
    "Alcatel Revvl": (
        "0,4-7",
        "4-6",
        clocks({"4": 1508000}, {"4,6": "4 5 6 7"})
        + "processor\t: 4\nprocessor\t: 5\nCPU part\t: 0xd03\n",
        ["4-6"],
        "",
        ("cores 0,7 are offline: not measured",),
    ),
    "Galaxy J7": (  # eight A53, of which some had no cpufreq folder
        "0-7",
        "0-7",
        clocks({"0-2,4-5": 1500000}, {"0-2": "0 1 2 3", "4-5": "4 5 6 7"})
        + one_block("0-7", A53, "AArch64 Processor rev 3 (aarch64)"),
        ["0-7"],
        "",
        (),
    ),
    "Galaxy A8 2016": (  # the first cluster is the fast one
        "0-7",
        "0-2,4-7",
        clocks({"0-2": 1459200, "4-7": 1113600}, {"0-2": "0 1 2 3", "4-7": "4 5 6 7"})
        + one_block("0-2,4-7", A53, "AArch64 Processor rev 0 (aarch64)"),
        ["4-7", "0-2"],
        "0-2",
        ("cores 3 are offline: not measured",),
    ),
    "LG Optimus G Pro": (  # 32 bits, and a clock for each core
        "0-3",
        "0-2",
        clocks({"0": 1728000, "1": 1728000})
        + files("topology/core_siblings_list", {"0-2": "0-3"})
        + one_block("0-2", KRAIT, "ARMv7 Processor rev 0 (v7l)"),
        ["0-2"],
        "",
        ("cores 3 are offline: not measured",),
    ),
    "Galaxy S7": (
        "0-7",
        "0-5",
        clocks({"0-3": 1586000, "4-5": 2600000}) + blocks("0-3", A53) + blocks("4-5", "0x001"),
        ["0-3", "4-5"],
        "4-5",
        ("cores 6-7 are offline: not measured",),
    ),
    "Oppo R15": (  # one frequency for A53 and A73
        "0-7",
        "0-7",
        clocks({"0-3": 1989000, "4-7": 1989000}) + blocks("0-3", A53) + blocks("4-7", A73),
        ["0-3", "4-7"],
        "4-7",
        (),
    ),
    "Meizu Pro 6": (
        "0-9",
        "4,8",
        clocks({"4": 2002000}, {"4": "4 5 6 7"}) + blocks("4", A53),
        ["8", "4"],
        "4",
        (
            "cores 0-3,5-7,9 are offline: not measured",
            "cores 8 may be the fastest: their speed is not reported",
        ),
    ),
    "Redmi Note 3": (  # of its time, without related_cpus
        "0-5",
        "0-5",
        clocks({"0-3": 1401600, "4-5": 1804800}, {"0-5": ""})
        + one_block("0-5", A53, "AArch64 Processor rev 4 (aarch64)"),
        ["0-3", "4-5"],
        "4-5",
        (),
    ),
    "Lenovo Vibe X2": (
        "0-7",
        "0",
        clocks({"0": 1690000})
        + "".join(f"Processor\t: ARMv7 Processor rev 5 (v7l)\n{blocks(n, '0xc07')}" for n in "012"),
        ["0"],
        "",
        ("cores 1-7 are offline: not measured",),
    ),
    "Zenfone 2": (  # an Atom: no part
        "0-3",
        "0-3",
        clocks({"0-1": 2333000, "2-3": 2333000})
        + "".join(f"processor\t: {core}\nmodel name\t: Atom\n\n" for core in range(4)),
        ["0-3"],
        "",
        (),
    ),
}


@pytest.mark.parametrize("name", PHONES)
def test_the_cores_of_phones_are_told_apart_by_their_speed(name: str) -> None:
    present, online, text, kinds, chosen, notes = PHONES[name]
    device = device_info.parse_layout(
        f"{CPU}/online={online}\n{CPU}/present={present}\ntaskset=yes\n{text}"
    )
    assert [device_info.span(kind) for kind in device_info.kinds(device.cores)] == kinds
    choice = device_info.choose(device, requested=None, threads=1)
    assert (device_info.span(choice.cores), choice.notes) == (chosen, notes)


def test_the_kernel_s_measure_comes_before_the_frequency() -> None:
    cores = (CpuCore(0, 2000, 400), CpuCore(1, 2000, 400, A53), CpuCore(2, 1800, 1024, A73))
    assert device_info.kinds(cores) == [(0, 1), (2,)]


def test_a_board_is_named_by_its_hardware_and_not_by_its_core() -> None:
    text = one_block("0-3", "0xc07", "ARMv7 Processor rev 3 (v7l)").replace(
        "Processor\t", "model name\t"
    )
    assert device_info.parse_layout(f"{text}Hardware\t: BCM2835\n").cpu == "BCM2835"


def test_a_board_is_identified_by_its_device_tree() -> None:
    text = (
        "/sys/firmware/devicetree/base/model=Raspberry Pi 4 Model B Rev 1.4\0\n"
        "machine=aarch64\nkernel=Linux 6.1.0\n"
        + "".join(f"processor\t: {core}\nCPU part\t: 0xd08\n\n" for core in range(4))
    )
    device = device_info.parse_layout(text)
    assert device.cpu == "Raspberry Pi 4 Model B Rev 1.4"
    assert device.fingerprint == "Raspberry Pi 4 Model B Rev 1.4 Linux 6.1.0 aarch64"
    assert device.abis == ("aarch64",)
    assert [core.number for core in device.cores] == [0, 1, 2, 3]
    assert not device.taskset


@pytest.mark.parametrize(
    ("requested", "threads", "cores"),
    [
        (None, 1, (7,)),
        ("big", 1, (7,)),
        ("big", 2, (4, 5, 6)),
        ("big", 4, (0, 1, 2, 3)),
        ("big", 5, ()),
        ("little", 1, (0, 1, 2, 3)),
        ("0,2-3", 1, (0, 2, 3)),
    ],
)
def test_cores_of_one_kind_are_chosen_that_hold_all_threads(
    requested: str | None, threads: int, cores: tuple[int, ...]
) -> None:
    pixel_8 = of_kinds((4, 1704), (3, 2367), (1, 2914))
    assert device_info.choose(pixel_8, requested=requested, threads=threads).cores == cores


def test_equal_clocks_do_not_make_one_kind_of_different_cores() -> None:
    # Snapdragon 8 Gen 2: two A715 and two A710 of one frequency.
    parts = ["0xd46"] * 3 + ["0xd4d"] * 2 + ["0xd47"] * 2 + ["0xd4e"]
    khz = [2016000] * 3 + [2803200] * 4 + [3187200]
    cores = tuple(CpuCore(n, f, None, p) for n, (f, p) in enumerate(zip(khz, parts, strict=True)))
    assert [len(kind) for kind in device_info.kinds(cores)] == [3, 2, 2, 1]


def test_what_a_choice_means_is_noted() -> None:
    phone = of_kinds((4, 1704), (4, 2367))
    assert device_info.choose(phone, requested="3-4", threads=1).notes == (
        "cores of 2 kinds: 0-3, 4-7",
    )
    assert device_info.choose(phone, requested="7", threads=2).notes == ("2 threads share 1 cores",)
    assert device_info.choose(phone, requested=None, threads=8).notes == (
        "cores of 2 kinds: 0-3, 4-7",
    )
    assert device_info.choose(phone, requested=None, threads=4) == device_info.CoreChoice(
        (4, 5, 6, 7)
    )


def test_a_board_of_one_kind_needs_no_taskset() -> None:
    board = Layout(
        tuple(CpuCore(n, 1500000) for n in range(4)), "", "", ("aarch64",), taskset=False
    )
    assert device_info.choose(board, requested=None, threads=1) == device_info.CoreChoice()
    with pytest.raises(InputError, match="--cores=2: the device has no taskset; leave --cores"):
        device_info.choose(board, requested="2", threads=1)


def test_a_phone_without_taskset_is_noted() -> None:
    phone = layout(CpuCore(0, 1000), CpuCore(1, 2000), taskset=False)
    assert device_info.choose(phone, requested=None, threads=1).notes == (
        "not kept to cores of one kind: the device has no taskset",
    )


@pytest.mark.parametrize("requested", ["8", "7-4", "0-", "big,little", "-1", "", "0-99999", "bog"])
def test_cores_that_are_not_there_are_refused(requested: str) -> None:
    with pytest.raises(InputError, match="expected big, little or numbers of 0-3, which are"):
        device_info.choose(of_kinds((4, 1000)), requested=requested, threads=1)


def test_an_offline_core_is_not_chosen() -> None:
    text = PIXEL_6 + "/sys/devices/system/cpu/online=0-5\n"
    assert device_info.choose(device_info.parse_layout(text), requested=None, threads=1).cores == ()
    text += "taskset=yes\n"
    assert device_info.choose(device_info.parse_layout(text), requested=None, threads=1).cores == (
        4,
        5,
    )


@pytest.mark.parametrize(("cores", "mask"), [((7,), "80"), ((4, 5, 6, 7), "f0"), ((0, 8), "101")])
def test_masks_are_hexadecimal(cores: tuple[int, ...], mask: str) -> None:
    assert device_info.pinned(["tool", "-x"], cores) == ["taskset", mask, "tool", "-x"]


def test_without_cores_there_is_no_taskset() -> None:
    assert device_info.pinned(["tool"], ()) == ["tool"]


@pytest.mark.parametrize("text", ["0", "0-3", "0-3,6", "1,3,5-7"])
def test_spans_are_read_and_written(text: str) -> None:
    assert device_info.span(device_info.numbers(text)) == text


def zones(*pairs: tuple[str, str]) -> str:
    return "".join(
        f"/sys/class/thermal/thermal_zone{n}/type={kind}\n/sys/class/thermal/thermal_zone{n}/temp={t}\n"
        for n, (kind, t) in enumerate(pairs)
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (zones(("battery", "30000"), ("BIG", "45000"), ("LITTLE", "43100")), 45.0),
        (zones(("soc", "87000"), ("cpu-0-0-usr", "41200")), 41.2),  # soc: the battery's charge
        (zones(("soc-thermal", "52000")), 52.0),
        (zones(("cpu-thermal", "48312")), 48.3),
        (zones(("mtktscpu", "39")), 39.0),
        (zones(("tsens_tz_sensor1", "412"), ("tsens_tz_sensor2", "398")), 41.2),
        (zones(("tsens_tz_sensor1", "41"), ("cpu0", "0"), ("cpu1", "-40")), 41.0),
        (zones(("cpu-thermal", "9" * 5000)), None),
        (zones(("cpu-1-0", "-274000"), ("cpu-1-1", "40000")), 40.0),  # switched off
        (zones(("gpu-cpu-cluster", "90000")), None),
        (zones(("battery", "30000")), None),
        ("", None),
        (
            "Cached temperatures:\n\tTemperature{mValue=99.0, mType=0, mName=AP, mStatus=0}\n"
            "Current temperatures from HAL:\n"
            "\tTemperature{mValue=NaN, mType=0, mName=A, mStatus=0}\n"
            "\tTemperature{mValue=31.4, mType=0, mName=AP, mStatus=0}\n"
            "\tTemperature{mValue=60.0, mType=2, mName=BAT, mStatus=0}\n",
            31.4,
        ),
    ],
)
def test_the_temperature_is_that_of_the_hottest_core(text: str, expected: float | None) -> None:
    assert device_info.parse_state(text).temperature_c == expected


@pytest.mark.parametrize("temperature_c", [None, 40.0])
def test_a_device_whose_sensor_cannot_be_used_is_noted(temperature_c: float | None) -> None:
    kept = temperatures.Temperatures(device_info.parse_state("").temperature_c)
    kept.before_round(lambda: temperature_c)
    kept.after_round(temperature_c)
    assert kept.notes() == ["no sensor reports the CPU's temperature: throttling may go unnoticed"]


def test_governors_and_throttling_are_those_of_the_cores_in_use() -> None:
    cpu = "/sys/devices/system/cpu/cpu"
    text = "".join(
        f"{cpu}{n}/cpufreq/scaling_governor={governor}\n"
        f"{cpu}{n}/cpufreq/cpuinfo_max_freq=2000000\n"
        f"{cpu}{n}/cpufreq/scaling_max_freq={limit}\n"
        for n, (governor, limit) in enumerate(
            [("powersave", 1000000), ("schedutil", 2000000), ("schedutil", 1500000)]
        )
    )
    state = device_info.parse_state(text + "  Thermal Status: 2\n")
    assert device_info.governor(state, (1, 2)) == "schedutil"
    assert device_info.governor(state, ()) == "powersave, schedutil"
    assert device_info.throttling(state, (1, 2)) == [
        "throttled: cores 2 held to 1.50 of 2.00 GHz",
        "throttled: Android's thermal status is moderate",
    ]
    assert device_info.throttling(device_info.parse_state(text), (1,)) == []
    assert device_info.governor(State(), ()) is None


class Clock:
    """A device that cools down by a degree a second."""

    def __init__(self, start_c: float) -> None:
        self.now, self.start_c = 0.0, start_c

    def read(self) -> float:
        return self.start_c - self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def cool(device_: Clock, *, goal_c: float | None, limit_s: float) -> float | None:
    return device_info.cool_down(
        device_.read,
        goal_c=goal_c,
        limit_s=limit_s,
        clock=lambda: device_.now,
        sleep=device_.sleep,
    )


def test_cooling_ends_at_the_goal_or_at_the_limit() -> None:
    hot = Clock(50.0)
    assert cool(hot, goal_c=41.0, limit_s=60.0) == 40.0  # asked every two seconds
    assert hot.now == 10.0
    hotter = Clock(90.0)
    assert cool(hotter, goal_c=41.0, limit_s=15.0) == 75.0
    assert hotter.now == 15.0
    assert cool(Clock(50.0), goal_c=None, limit_s=60.0) == 50.0
    assert device_info.cool_down(lambda: None, goal_c=1.0, limit_s=60.0) is None


@pytest.mark.parametrize(
    "word", ["a b", "a'b", '"', "$(touch x)", "`x`", "a\nb", "\\", "*", "~", "é", "-n", ""]
)
def test_a_remote_shell_takes_words_as_they_are(word: str) -> None:
    command = device_info.quote(["printf", "%s", word])
    ran = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=1200)
    assert ran.stdout == word
    nested = device_info.quote(["sh", "-c", command])
    assert shlex.split(nested)[2] == command
    ran = subprocess.run(["sh", "-c", nested], capture_output=True, text=True, timeout=1200)
    assert ran.stdout == word


MEGABYTES = 8 << 20


@pytest.mark.parametrize(
    ("line", "ending"),
    [
        ("\n", ""),
        (f"{CPU}/cpu%d/cpufreq/related_cpus=0-%d\n", ""),
        ("/sys/%d=%d\n", ""),
        ("processor : %d\nCPU part : %d\n", ""),
        ("", "processor" + " " * MEGABYTES),
        ("", f"{CPU}/online=" + "0-999," * (MEGABYTES // 6)),
        ("", "Current temperatures from HAL:" + "{mValue=" * (MEGABYTES // 8)),
        ("", f"{CPU}/cpu99999999999/cpu_capacity=5\nprocessor : 99999999999\n"),
        ("", f"{CPU}/online=0-99999999999\n"),
        ("", f"{CPU}/cpu0/cpu_capacity={'9' * 5000}\n/proc/loadavg={'1' * 5000}.5\n"),
        ("", f"  Thermal Status: {'9' * 5000}\n{CPU}/cpu0/cpufreq/scaling_max_freq={'9' * 5000}"),
        ("", f"ro.product.model=\x1b[31m{'x' * MEGABYTES}\n"),
    ],
)
def test_what_a_broken_device_prints_is_read_in_bounded_memory(line: str, ending: str) -> None:
    many = MEGABYTES // (len(line) + 6) if line else 0
    text = "".join(line % (n, n) if "%" in line else line for n in range(many)) + ending
    tracemalloc.start()
    device, state = device_info.parse_layout(text), device_info.parse_state(text)
    choice = device_info.choose(device, requested=None, threads=1)
    device_info.pinned(["tool"], choice.cores)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * MEGABYTES
    assert len(device.cores) <= 1000
    assert len(device.cpu) < 2000
    assert device.cpu.isprintable()
    assert (state.load_average, state.status, state.limit_khz) == (None, None, {})
