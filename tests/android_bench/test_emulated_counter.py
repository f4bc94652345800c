"""The counter that QEMU loads: classes of instructions, loops, and its licence."""

import ctypes
import json
import shutil
import struct
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from android_bench.emulated import setup

pytestmark = pytest.mark.skipif(not shutil.which("gcc"), reason="no gcc to compile the counter")

# Taken from LiteRT's own kernels and disassembled by Capstone 5.0.7.
INSTRUCTIONS = [
    (0x4E809443, "sdot v3.4s, v2.16b, v0.16b", "dot"),
    (0x4E90A432, "smmla v18.4s, v1.16b, v16.16b", "mmla"),
    (0x0F9020D2, "smlal v18.2d, v6.2s, v16.s[0]", "widening_multiply"),
    (0x0F90A0D2, "smull v18.2d, v6.2s, v16.s[0]", "widening_multiply"),
    (0x4F702094, "smlal2 v20.4s, v4.8h, v0.h[3]", "widening_multiply"),
    (0x2EB0C000, "umull v0.2d, v0.2s, v16.2s", "widening_multiply"),
    (0x4EA09427, "mla v7.4s, v1.4s, v0.4s", "simd_multiply"),
    (0x4EB09C02, "mul v2.4s, v0.4s, v16.4s", "simd_multiply"),
    (0x6E70B46C, "sqrdmulh v12.8h, v3.8h, v16.8h", "simd_multiply"),
    (0x4E70B650, "sqdmulh v16.8h, v18.8h, v16.8h", "simd_multiply"),
    (0x6EA094E3, "mls v3.4s, v7.4s, v0.4s", "simd_multiply"),
    (0x6E591F18, "fmul v24.8h, v24.8h, v25.8h", "simd_float"),
    (0x0F001050, "fmla v16.4h, v2.4h, v0.h[0]", "simd_float"),
    (0x4E61D800, "scvtf v0.2d, v0.2d", "simd_float"),
    (0x4E21A800, "fcvtns v0.4s, v0.4s", "simd_float"),
    (0x4E403718, "fmax v24.8h, v24.8h, v0.8h", "simd_float"),
    (0x4E401652, "fadd v18.8h, v18.8h, v0.8h", "simd_float"),
    (0x1F002500, "fmadd s0, s8, s0, s9", "simd_float"),
    (0x1E212000, "fcmp s0, s1", "simd_float"),
    (0x1E204008, "fmov s8, s0", "simd_float"),
    (0x6E20D404, "faddp v4.4s, v0.4s, v0.4s", "simd_float"),
    (0x4EA1B800, "fcvtzs v0.4s, v0.4s", "simd_float"),
    (0x6E30F800, "fmaxv s0, v0.4s", "simd_float"),
    (0x4EA10C00, "sqadd v0.4s, v0.4s, v1.4s", "simd_other"),
    (0x0E614800, "sqxtn v0.4h, v0.4s", "simd_other"),
    (0x0E0104E7, "dup v7.8b, v7.b[0]", "simd_other"),
    (0x4E102250, "tbl v16.16b, {v18.16b, v19.16b}, v16.16b", "simd_other"),
    (0x0E003810, "zip1 v16.8b, v0.8b, v0.8b", "simd_other"),
    (0x4EB1B800, "addv s0, v0.4s", "simd_other"),
    (0x0F10A40C, "sshll v12.4s, v0.4h, #0", "simd_other"),
    (0x0E301350, "saddw v16.8h, v26.8h, v16.8b", "simd_other"),
    (0x0F000420, "movi v0.2s, #1", "simd_other"),
    (0x6E301CE5, "eor v5.16b, v7.16b, v16.16b", "simd_other"),
    (0x6E0011C6, "ext v6.16b, v14.16b, v0.16b, #2", "simd_other"),
    (0x0E013C02, "umov w2, v0.b[0]", "simd_other"),
    (0x4E306410, "smax v16.16b, v0.16b, v16.16b", "simd_other"),
    (0x4E606813, "sadalp v19.4s, v0.8h", "simd_other"),
    (0x4F00F500, "fmov v0.4s, #3.00000000", "simd_other"),
    (0x0D400DF3, "ld1 {v19.b}[3], [x15]", "vector_load"),
    (0x3DC00020, "ldr q0, [x1]", "vector_load"),
    (0xAD4006A0, "ldp q0, q1, [x21]", "vector_load"),
    (0x3CDB83A2, "ldur q2, [x29, #-0x48]", "vector_load"),
    (0x4D40C040, "ld1r {v0.16b}, [x2]", "vector_load"),
    (0x4C400D70, "ld4 {v16.2d, v17.2d, v18.2d, v19.2d}, [x11]", "vector_load"),
    (0x0D000197, "st1 {v23.b}[0], [x12]", "vector_store"),
    (0x3D800120, "str q0, [x9]", "vector_store"),
    (0x2D000000, "stp s0, s0, [x0]", "vector_store"),
    (0xFC001260, "stur d0, [x19, #1]", "vector_store"),
    (0x4C0081A4, "st2 {v4.16b, v5.16b}, [x13]", "vector_store"),
    (0xF9400008, "ldr x8, [x0]", "scalar_load"),
    (0x39400108, "ldrb w8, [x8]", "scalar_load"),
    (0xA9400408, "ldp x8, x1, [x0]", "scalar_load"),
    (0xB98006CA, "ldrsw x10, [x22, #4]", "scalar_load"),
    (0x885FFC20, "ldaxr w0, [x1]", "scalar_load"),
    (0xB8200020, "ldadd w0, w0, [x1]", "scalar_load"),
    (0x88DFFC08, "ldar w8, [x0]", "scalar_load"),
    (0xF8401037, "ldur x23, [x1, #1]", "scalar_load"),
    (0xF9000008, "str x8, [x0]", "scalar_store"),
    (0x39000008, "strb w8, [x0]", "scalar_store"),
    (0xA900083F, "stp xzr, x2, [x1]", "scalar_store"),
    (0x889FFC01, "stlr w1, [x0]", "scalar_store"),
    (0x880FFC31, "stlxr w15, w17, [x1]", "scalar_store"),
    (0xF81003AA, "stur x10, [x29, #-0x100]", "scalar_store"),
    (0xF9802940, "prfm pldl1keep, [x10, #0x50]", "prefetch"),
    (0xF88821E0, "prfum pldl1keep, [x15, #0x82]", "prefetch"),
    (0x8B000101, "add x1, x8, x0", "integer"),
    (0x9B100CC3, "madd x3, x6, x16, x3", "integer"),
    (0x9AC10809, "udiv x9, x0, x1", "integer"),
    (0x1A9010B5, "csel w21, w5, w16, ne", "integer"),
    (0x72A0002A, "movk w10, #1, lsl #16", "integer"),
    (0xD0000088, "adrp x8, #0x12000", "integer"),
    (0x53103DCE, "lsl w14, w14, #0x10", "integer"),
    (0x9B207C8E, "smull x14, w4, w0", "integer"),
    (0x7A400900, "ccmp w8, #0, #0, eq", "integer"),
    (0x14000002, "b #8", "branch"),
    (0x94000015, "bl #0x54", "branch"),
    (0x54000061, "b.ne #0xc", "branch"),
    (0xB4000040, "cbz x0, #8", "branch"),
    (0x37000093, "tbnz w19, #0, #0x10", "branch"),
    (0xD65F03C0, "ret", "branch"),
    (0xD63F0260, "blr x19", "branch"),
    (0xD53B4413, "mrs x19, fpcr", "system"),
    (0xD50339BF, "dmb ishld", "system"),
    (0xD503203F, "yield", "system"),
    (0xD4200020, "brk #1", "system"),
    (0xD503245F, "bti c", "system"),
]


@pytest.fixture(scope="module")
def counter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("counter") / "counter.so"
    setup._compile(path)
    return path


@pytest.mark.parametrize(
    ("code", "name"),
    [pytest.param(code, name, id=text) for code, text, name in INSTRUCTIONS],
)
def test_an_instruction_has_the_class_of_its_mnemonic(counter: Path, code: int, name: str) -> None:
    library = ctypes.CDLL(str(counter), mode=1)  # RTLD_LAZY: what it calls is in QEMU alone
    library.class_name.restype = ctypes.c_char_p
    assert library.class_name(library.instruction_class(code)).decode() == name


def program(loop: list[int], *, turns: int) -> bytes:
    """An ELF file for aarch64 that marks an interval around `turns` turns of a loop."""
    mov = 0xD2800000  # mov x<low bits>, #<bits 20 to 5>
    code = [
        *(mov | 141 << 5 | 8, mov | 0, mov | 1, 0xD4000001),  # getpriority(PRIO_PROCESS, ...)
        0x910003E3,  # mov x3, sp
        mov | turns << 5 | 2,
        *loop,
        0xF1000442,  # subs x2, x2, #1
        0x54000001 | (-(len(loop) + 1) & 0x7FFFF) << 5,  # b.ne, back to the loop
        *(mov | 141 << 5 | 8, mov | 1 << 5, 0xD4000001),  # getpriority(PRIO_PGRP, ...)
        *(mov | 93 << 5 | 8, mov | 0, 0xD4000001),  # exit(0)
    ]
    base, headers = 0x400000, 64 + 56
    size = headers + 4 * len(code)
    identity = b"\x7fELF\x02\x01\x01" + bytes(9)
    elf = struct.pack("<HHIQQQIHHHHHH", 2, 183, 1, base + headers, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 0x1000)
    return identity + elf + segment + struct.pack(f"<{len(code)}I", *code)


@pytest.mark.skipif(not shutil.which("qemu-aarch64"), reason="no qemu-aarch64")
@pytest.mark.parametrize("turns", [1, 1000, 50_000])
def test_each_turn_of_a_loop_is_counted(counter: Path, tmp_path: Path, turns: int) -> None:
    loop = {
        0x4E809443: "dot",
        0x4E90A432: "mmla",
        0x0F9020D2: "widening_multiply",
        0x4EB09C02: "simd_multiply",
        0x4E61D800: "simd_float",
        0x6E301CE5: "simd_other",
        0x3DC00060: "vector_load",  # ldr q0, [x3]
        0xF9400064: "scalar_load",  # ldr x4, [x3]
        0xF9000064: "scalar_store",  # str x4, [x3]
        0xF9800060: "prefetch",  # prfm pldl1keep, [x3]
    }
    path = tmp_path / "program"
    path.write_bytes(program(list(loop), turns=turns))
    path.chmod(0o755)
    done = subprocess.run(
        ["qemu-aarch64", "-cpu", "max", "-plugin", f"{counter},fd=1", str(path)],
        capture_output=True,
        timeout=1200,
        check=True,
    )
    counted = json.loads(done.stdout)["counted"]
    # of the loop: subs and b.ne; around it: four moves behind the first mark, and the second mark
    expected = Counter(dict.fromkeys([*loop.values(), "integer", "branch"], turns))
    expected.update({"integer": 4, "system": 1})
    assert {name: count for name, count in counted.items() if count} == expected


@pytest.mark.skipif(not shutil.which("qemu-aarch64"), reason="no qemu-aarch64")
@pytest.mark.parametrize("arguments", ["", ",file=x", ",fd=1,fd=2"])
def test_the_counter_refuses_other_arguments(counter: Path, arguments: str) -> None:
    command = ["qemu-aarch64", "-plugin", f"{counter}{arguments}", "/bin/true"]
    done = subprocess.run(command, capture_output=True, timeout=1200)
    assert done.returncode
    assert b"expected one argument, fd=NUMBER" in done.stderr


def test_the_counter_carries_a_licence_that_goes_with_qemus() -> None:
    assert setup.SOURCE.read_text().splitlines()[1] == " * SPDX-License-Identifier: MIT"
