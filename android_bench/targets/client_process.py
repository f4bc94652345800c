"""Runs a client program such as ssh or adb, which passes on what a device prints."""

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from typing import BinaryIO

from android_bench.targets.remote_shell import OUTPUT_BYTES, TooMuchOutputError

_LOOK_S = 0.2  # between two looks at the size of the output


def run(
    words: Sequence[str], *, stdin: BinaryIO | None = None, timeout_s: float
) -> tuple[int, str, str]:
    """Runs the program; returns its exit code, output and errors.

    Raises:
      TimeoutError: It has not ended in time, and was killed.
      TooMuchOutputError: It printed more than OUTPUT_BYTES, and was killed.
    """
    end = time.monotonic() + timeout_s
    # Files, not pipes: a background process of the command would keep a pipe open.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            words,  # not guarded: ssh's shared connection waits for a client that was killed
            stdin=stdin or subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,  # the client must not get Ctrl-C
        )
        try:
            while process.poll() is None:
                remaining_s = end - time.monotonic()
                if remaining_s <= 0:
                    raise TimeoutError
                if any(os.fstat(file.fileno()).st_size > OUTPUT_BYTES for file in (out, err)):
                    raise TooMuchOutputError
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=min(_LOOK_S, remaining_s))
        finally:
            process.kill()
            process.wait()
        texts = []
        for file in (out, err):
            file.seek(0)
            data = file.read(OUTPUT_BYTES + 1)
            if len(data) > OUTPUT_BYTES:
                raise TooMuchOutputError
            texts.append(data.decode(errors="replace"))
    return process.returncode, texts[0], texts[1]
