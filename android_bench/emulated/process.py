"""Starts processes: the commands of the setup, and QEMU with a guest that answers requests."""

import json
import os
import select
import shlex
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import android_bench
from android_bench.emulated import cores
from android_bench.exit_reason import exit_reason
from android_bench.measurement import TargetError
from shufflelite import isolated

QEMU = "qemu-aarch64"
GUEST = "android_bench.emulated.guest"
ROOT, SITE, COUNTER = "root", "site", "counter.so"  # in the folder that the setup makes
START_TIMEOUT_S = 120.0  # 2 s on an idle machine
ANSWER_TIMEOUT_S = 3600.0  # the largest networks take a minute for an inference


def run(command: Sequence[str], *, timeout_s: float, cwd: Path | None = None) -> str:
    """Runs a command and returns its standard output."""
    command_line = shlex.join(command)
    try:
        completed = subprocess.run(
            isolated.guarded(command),
            cwd=cwd,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as error:
        raise TargetError(f"`{command_line}` did not end in {timeout_s:.0f} s") from error
    except OSError as error:
        raise TargetError(f"`{command_line}` cannot be started: {error.strerror}") from error
    if completed.returncode:
        stderr = " ".join(completed.stderr.split())[-500:] or "nothing on standard error"
        raise TargetError(f"`{command_line}` exited with {completed.returncode}: {stderr}")
    return completed.stdout


class Guest:
    """A guest process on an emulated core, with at most one model at a time."""

    def __init__(
        self,
        core: cores.EmulatedCore,
        system: Path,
        *,
        write_bytecode: bool = False,
        module: str = GUEST,
        packages: Path | None = None,
    ) -> None:
        """Starts the guest.

        Args:
          core: The core to emulate.
          system: The folder that the setup made.
          write_bytecode: Let Python save the compiled modules; only the setup does.
          module: The program of the guest.
          packages: A folder of more Python packages for it.
        """
        # Both live as long as the guest.
        self._folder = tempfile.TemporaryDirectory(prefix="emulated-")
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115
        self.folder = Path(self._folder.name)
        self._answers, guest_end = os.pipe()
        self._received = b""
        self.counted: list[Mapping[str, int]] = []  # in each interval of the last request
        self.process: subprocess.Popen[bytes] | None = None
        try:
            cores.make_root(core, system=system / ROOT, into=self.folder / ROOT)
            self.process = subprocess.Popen(
                isolated.guarded(
                    _command(core, system, module, root=self.folder / ROOT, answers=guest_end)
                ),
                stdin=subprocess.PIPE,
                stdout=self._stderr,  # native code prints there
                stderr=self._stderr,
                pass_fds=[guest_end],
                cwd=self.folder,
                env=_environment(system, packages, write_bytecode=write_bytecode),
                start_new_session=True,  # the guest must not get Ctrl-C
            )
            os.close(guest_end)
            guest_end = -1
            self.start = self.ask("start", timeout_s=START_TIMEOUT_S)
            if not self.counted:
                raise TargetError("expected the counts of the first interval, got none")
        except BaseException as error:  # Ctrl-C too: end the guest
            self.close()
            if isinstance(error, OSError):
                raise TargetError(f"{QEMU} cannot be started: {error}") from error
            raise
        finally:
            if guest_end >= 0:
                os.close(guest_end)

    def ask(self, verb: str, *, timeout_s: float = ANSWER_TIMEOUT_S, **arguments: Any) -> Any:
        """Sends a request and returns the answer."""
        assert self.process is not None
        assert self.process.stdin is not None
        request = json.dumps({"do": verb, **arguments}) + "\n"
        deadline = time.monotonic() + timeout_s
        self.counted = []
        try:
            self.process.stdin.write(request.encode())
            self.process.stdin.flush()
        except BrokenPipeError:
            raise TargetError(self._exit_reason()) from None
        while True:
            reply = json.loads(self._line(deadline, timeout_s))
            if "counted" in reply:
                self.counted.append(reply["counted"])
            elif "error" in reply:
                raise TargetError(reply["error"])
            else:
                return reply["answer"]

    def close(self) -> None:
        """Ends the guest."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
        if self._answers >= 0:
            os.close(self._answers)
            self._answers = -1
        self._stderr.close()
        self._folder.cleanup()

    def _line(self, deadline: float, timeout_s: float) -> bytes:
        while b"\n" not in self._received:
            remaining_s = max(0.0, deadline - time.monotonic())
            if not select.select([self._answers], [], [], remaining_s)[0]:
                raise TargetError(f"the emulated process gave no answer in {timeout_s:.0f} s")
            received = os.read(self._answers, 1 << 16)
            if not received:
                raise TargetError(self._exit_reason())
            self._received += received
        line, _, self._received = self._received.partition(b"\n")
        return line

    def _exit_reason(self) -> str:
        assert self.process is not None
        return exit_reason("the emulated process", self.process, self._stderr)


def _command(
    core: cores.EmulatedCore, system: Path, module: str, *, root: Path, answers: int
) -> list[str]:
    counter = str(system / COUNTER).replace(",", ",,")  # a comma ends QEMU's option
    return [
        *(QEMU, "-cpu", core.qemu_cpu, "-L", str(root)),
        *("-plugin", f"{counter},fd={answers}"),
        *(str(system / ROOT / "usr/bin/python3.11"), "-S"),
        *("-m", module, str(answers)),
    ]


def _environment(system: Path, packages: Path | None, *, write_bytecode: bool) -> dict[str, str]:
    """Returns all variables of the guest: others would shift its memory and so its counts."""
    project = Path(android_bench.__file__).resolve().parents[1]
    return {
        "PATH": os.defpath,
        "PYTHONPATH": os.pathsep.join(map(str, filter(None, (packages, system / SITE, project)))),
        "PYTHONHASHSEED": "0",
        "OPENBLAS_NUM_THREADS": "1",  # of NumPy; otherwise one thread for each core of the host
        **({} if write_bytecode else {"PYTHONDONTWRITEBYTECODE": "1"}),
    }
