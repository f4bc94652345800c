"""The emulated ARM cores, and their files in /proc and /sys.

QEMU shows its guest the host's /proc/cpuinfo, in which XNNPACK finds no ARM core and crashes.  So
these files are in the guest's root, where they override the host's; they also make the counts
independent of the number of the host's cores.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from shufflelite.errors import FlagError

ONLINE = 4  # cores of the only cluster; one is used
_V8_0 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
_V8_2 = f"{_V8_0} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"
_I8MM = f"{_V8_2} i8mm bf16"


@dataclass(frozen=True)
class EmulatedCore:
    """A core, as LiteRT detects it in the guest."""

    name: str
    kernels: str  # the instruction that does its int8 multiply-adds in XNNPACK
    qemu_cpu: str
    part: int  # number of the core in its main identification register, by Arm
    revision: tuple[int, int]  # r and p; XNNPACK uses no sdot on an A55 r0
    features: str  # as /proc/cpuinfo lists them
    max_khz: int


CORES: Mapping[str, EmulatedCore] = {
    "a53": EmulatedCore("Cortex-A53", "smlal", "cortex-a53", 0xD03, (0, 4), _V8_0, 1_800_000),
    # QEMU 7.2 has no A55: an A76 with its number has the same instructions and kernels
    "a55": EmulatedCore("Cortex-A55", "sdot", "cortex-a76", 0xD05, (2, 0), _V8_2, 1_800_000),
    "a76": EmulatedCore("Cortex-A76", "sdot", "cortex-a76", 0xD0B, (4, 1), _V8_2, 2_800_000),
    # QEMU 7.2 computes SME's smopa wrongly, and XNNPACK would prefer it
    "i8mm": EmulatedCore(
        "Cortex-A710", "smmla", "max,sve=off,sme=off", 0xD47, (2, 0), _I8MM, 2_800_000
    ),
}


def find(name: str) -> EmulatedCore:
    """Returns the core of a short name."""
    if name in CORES:
        return CORES[name]
    near = difflib.get_close_matches(name, CORES, n=1)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    raise FlagError(f"Unknown emulated core {name!r}. {hint}Known: {', '.join(CORES)}.")


def files(core: EmulatedCore) -> dict[str, str]:
    """Returns the files that XNNPACK and the C library read: path in the guest's root -> text."""
    cpus = range(ONLINE)
    span = f"0-{ONLINE - 1}\n"
    texts = {
        "possible": span,
        "present": span,
        "online": span,
        "kernel_max": f"{ONLINE - 1}\n",
    }
    for cpu in cpus:
        texts |= {
            f"cpu{cpu}/cpufreq/cpuinfo_min_freq": f"{core.max_khz // 3}\n",
            f"cpu{cpu}/cpufreq/cpuinfo_max_freq": f"{core.max_khz}\n",
            f"cpu{cpu}/cpufreq/scaling_cur_freq": f"{core.max_khz}\n",
            f"cpu{cpu}/topology/physical_package_id": "0\n",
            f"cpu{cpu}/topology/core_id": f"{cpu}\n",
            f"cpu{cpu}/topology/core_siblings_list": span,
            f"cpu{cpu}/topology/thread_siblings_list": f"{cpu}\n",
        }
    in_sys = {f"sys/devices/system/cpu/{path}": text for path, text in texts.items()}
    return {"proc/cpuinfo": "".join(_processor(core, cpu) for cpu in cpus)} | in_sys


def make_root(core: EmulatedCore, *, system: Path, into: Path) -> None:
    """Makes the guest's root in a folder: these files, and links to all entries of `system`."""
    for path, text in files(core).items():
        (into / path).parent.mkdir(parents=True, exist_ok=True)
        (into / path).write_text(text)
    for entry in system.iterdir():
        (into / entry.name).symlink_to(entry)


def _processor(core: EmulatedCore, cpu: int) -> str:
    variant, revision = core.revision
    return (
        f"processor\t: {cpu}\nBogoMIPS\t: 38.40\nFeatures\t: {core.features}\n"
        f"CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: {variant:#x}\n"
        f"CPU part\t: {core.part:#05x}\nCPU revision\t: {revision}\n\n"
    )
