"""The instruction set that a CPU offers to int8 kernels, read from /proc/cpuinfo.

The same files take another ratio of times with other instructions: a core that multiplies and adds
four int8 values in each lane (VNNI, dotprod) gains far more from int8 than one that does not.
"""

import itertools
import re

# Name and required flags, the fastest for int8 first; the names of flags are those of Linux.
INSTRUCTION_SETS = (
    ("avx512-vnni", {"avx512bw", "avx512vl", "avx512_vnni"}),
    ("avx-vnni", {"avx2", "avx_vnni"}),
    ("avx512", {"avx512bw", "avx512vl"}),
    ("avx2", {"avx2"}),
    ("avx", {"avx"}),
    ("sse4.1", {"sse4_1"}),
    ("sse2", {"sse2"}),
    ("sme2", {"sme2"}),
    ("i8mm", {"i8mm"}),
    ("dotprod", {"asimddp"}),
    ("neon", {"asimd"}),
    ("neon", {"neon"}),  # of a 32-bit kernel
)
_MOST_CORES = 1000  # a broken device may print anything


def instruction_set(cpuinfo: str) -> str | None:
    """Returns the best instruction set that all cores have; None if the text names none."""
    lines = re.finditer(r"^(?:flags|Features)[ \t]*:(.*)$", cpuinfo, re.MULTILINE)
    per_core = [set(line[1].split()) for line in itertools.islice(lines, _MOST_CORES)]
    common = set.intersection(*per_core) if per_core else set()
    return next((name for name, flags in INSTRUCTION_SETS if flags <= common), None)
