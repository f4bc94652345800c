"""The file as C source, compiled."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from convert.bundle import c_array

CC = shutil.which("cc")
# Writes the array, after a check of its alignment, with a second file that includes the header.
MAIN = """
#include <stdint.h>
#include <stdio.h>
#include "net_x0_5.h"
#include "net_x0_5.h"
int main(void) {
    if ((uintptr_t)net_x0_5 % 16) return 2;
    return fwrite(net_x0_5, 1, net_x0_5_length, stdout) != net_x0_5_length;
}
"""


@pytest.mark.skipif(CC is None, reason="no C compiler")
@pytest.mark.parametrize("length", [1, 12, 1000])
def test_a_compiled_array_is_the_file(length: int, tmp_path: Path) -> None:
    data = np.random.default_rng(0).bytes(length)
    files = c_array.sources(data, "net_x0.5")
    assert list(files) == ["net_x0_5.h", "net_x0_5.c"]
    for name, content in {**files, "main.c": MAIN.encode()}.items():
        (tmp_path / name).write_bytes(content)
    flags = ["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    subprocess.run(
        [str(CC), *flags, "net_x0_5.c", "main.c", "-o", "main"],
        cwd=tmp_path,
        check=True,
        timeout=1200,
    )
    ran = subprocess.run([tmp_path / "main"], capture_output=True, check=True, timeout=1200)
    assert ran.stdout == data
