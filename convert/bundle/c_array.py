"""Writes the file as C source, for microcontroller firmware without a file system."""

import re

COLUMNS = 12  # bytes a line


def sources(data: bytes, name: str) -> dict[str, bytes]:
    """Returns a header and a source file of an array, as file name -> content.

    Args:
      data: The .tflite file.
      name: Name of the array and its files; characters that C does not allow become underscores.
    """
    name = re.sub(r"[^0-9A-Za-z_]", "_", name)
    guard = f"{name.upper()}_H_"
    rows = (data[start : start + COLUMNS] for start in range(0, len(data), COLUMNS))
    array = "\n".join("    0x" + row.hex(" ").replace(" ", ", 0x") + "," for row in rows)
    return {
        f"{name}.h": _HEADER.format(name=name, guard=guard).encode(),
        f"{name}.c": _SOURCE.format(name=name, array=array, length=len(data)).encode(),
    }


_HEADER = """\
#ifndef {guard}
#define {guard}

#include <stddef.h>

#ifdef __cplusplus
extern "C" {{
#endif

/* A .tflite file, aligned to 16 bytes, as the interpreter needs it. */
extern const unsigned char {name}[];
extern const size_t {name}_length;

#ifdef __cplusplus
}}
#endif

#endif /* {guard} */
"""
_SOURCE = """\
#include "{name}.h"

#include <stdalign.h>

alignas(16) const unsigned char {name}[] = {{
{array}
}};
const size_t {name}_length = {length};
"""
