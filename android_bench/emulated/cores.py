"""The ARM cores that are emulated, and what Linux tells of them in /proc and /sys.

QEMU shows its guest the host's /proc/cpuinfo, in which XNNPACK finds no ARM core: it crashes.  So
these files stand in the guest's root, where they win over the host's; they also keep the number of
the host's cores out of the counts.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from android_bench.errors import FlagError

ONLINE = 4  # cores of the one cluster; a single one is ever used
_V8_0 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
_V8_2 = f"{_V8_0} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"
_I8MM = f"{_V8_2} i8mm bf16"


@dataclass(frozen=True)
class Core:
    """A core that LiteRT takes itself to run on."""

    name: str
    kernels: str  # the instruction that does its int8 multiply-adds in XNNPACK
    qemu_cpu: str
    part: int  # number of the core in its main identification register, by Arm
    revision: tuple[int, int]  # r and p; XNNPACK takes an A55 r0 for one without sdot
    features: str  # as /proc/cpuinfo lists them
    max_khz: int


CORES: Mapping[str, Core] = {
    "a53": Core("Cortex-A53", "smlal", "cortex-a53", 0xD03, (0, 4), _V8_0, 1_800_000),
    # QEMU 7.2 has no A55: an A76 with its number has the same instructions and kernels
    "a55": Core("Cortex-A55", "sdot", "cortex-a76", 0xD05, (2, 0), _V8_2, 1_800_000),
    "a76": Core("Cortex-A76", "sdot", "cortex-a76", 0xD0B, (4, 1), _V8_2, 2_800_000),
    # QEMU 7.2 computes SME's smopa wrongly, and XNNPACK would prefer it
    "i8mm": Core("Cortex-A710", "smmla", "max,sve=off,sme=off", 0xD47, (2, 0), _I8MM, 2_800_000),
}


def find(name: str) -> Core:
    """The core of that short name."""
    if name in CORES:
        return CORES[name]
    near = difflib.get_close_matches(name, CORES, n=1)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    raise FlagError(f"Unknown emulated core {name!r}. {hint}Known: {', '.join(CORES)}.")


def files(core: Core) -> dict[str, str]:
    """Path below the guest's root -> text, for what XNNPACK and the C library read."""
    cpus = range(ONLINE)
    span = f"0-{ONLINE - 1}\n"
    tells = {
        "possible": span,
        "present": span,
        "online": span,
        "kernel_max": f"{ONLINE - 1}\n",
    }
    for cpu in cpus:
        tells |= {
            f"cpu{cpu}/cpufreq/cpuinfo_min_freq": f"{core.max_khz // 3}\n",
            f"cpu{cpu}/cpufreq/cpuinfo_max_freq": f"{core.max_khz}\n",
            f"cpu{cpu}/cpufreq/scaling_cur_freq": f"{core.max_khz}\n",
            f"cpu{cpu}/topology/physical_package_id": "0\n",
            f"cpu{cpu}/topology/core_id": f"{cpu}\n",
            f"cpu{cpu}/topology/core_siblings_list": span,
            f"cpu{cpu}/topology/thread_siblings_list": f"{cpu}\n",
        }
    in_sys = {f"sys/devices/system/cpu/{path}": text for path, text in tells.items()}
    return {"proc/cpuinfo": "".join(_processor(core, cpu) for cpu in cpus)} | in_sys


def make_root(core: Core, *, system: Path, into: Path) -> None:
    """Makes the guest's root in a folder: these files, and links to all that `system` holds."""
    for path, text in files(core).items():
        (into / path).parent.mkdir(parents=True, exist_ok=True)
        (into / path).write_text(text)
    for entry in system.iterdir():
        (into / entry.name).symlink_to(entry)


def _processor(core: Core, cpu: int) -> str:
    variant, revision = core.revision
    return (
        f"processor\t: {cpu}\nBogoMIPS\t: 38.40\nFeatures\t: {core.features}\n"
        f"CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: {variant:#x}\n"
        f"CPU part\t: {core.part:#05x}\nCPU revision\t: {revision}\n\n"
    )
