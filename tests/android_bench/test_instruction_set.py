"""The instruction set of a CPU is read from the texts of /proc/cpuinfo."""

import pytest

from android_bench.emulated import cores
from android_bench.instruction_set import instruction_set

ZEN_3 = "fpu sse sse2 ssse3 sse4_1 sse4_2 avx f16c fma avx2 bmi2"
SKYLAKE_X = f"{ZEN_3} avx512f avx512dq avx512cd avx512bw avx512vl"
ZEN_4 = f"{SKYLAKE_X} avx512_bf16 avx512_vnni"


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        (ZEN_4, "avx512-vnni"),
        (f"{ZEN_3} avx_vnni", "avx-vnni"),
        (SKYLAKE_X, "avx512"),
        (ZEN_3, "avx2"),
        ("fpu sse sse2 sse4_1 avx", "avx"),
        ("fpu sse sse2", "sse2"),
        ("fpu avx512", None),  # a part of a name is not the name
    ],
)
def test_x86_cores_are_named_by_their_flags(flags: str, name: str | None) -> None:
    core = f"processor\t: 0\nmodel name\t: AMD EPYC\nflags\t\t: {flags}\nvmx flags\t: avx512_vnni\n"
    assert instruction_set(core) == name
    assert instruction_set(2 * core) == name


def test_arm_cores_are_named_by_their_features() -> None:
    names = {
        name: instruction_set(cores.files(one)["proc/cpuinfo"]) for name, one in cores.CORES.items()
    }
    assert names == {"a53": "neon", "a55": "dotprod", "a76": "dotprod", "i8mm": "i8mm"}
    assert instruction_set("Features\t: half thumb fastmult vfp edsp neon vfpv3") == "neon"


def test_cores_of_two_kinds_have_what_both_have() -> None:
    """As XNNPACK, which takes the kernels that run on each core."""
    little, big = "Features\t: fp asimd\n", "Features\t: fp asimd asimddp\n"
    assert instruction_set(big + little) == "neon"
    assert instruction_set(big + big) == "dotprod"


@pytest.mark.parametrize("text", ["", "processor : 0\nisa : rv64imafdcv\n", "Features", "flags:"])
def test_other_texts_name_none(text: str) -> None:
    assert instruction_set(text) is None
