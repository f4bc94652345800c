"""A device with a shell, on which the benchmark tool runs: phones by adb and boards by ssh.

A private folder there holds the tool and the models.  Closing the target removes it, and ends a
run that a broken connection left behind.
"""

import contextlib
import secrets
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from android_bench import benchmark_tool, binaries, device_info
from android_bench.benchmark_tool import Tool
from android_bench.interrupts import undisturbed
from android_bench.measurement import Machine, Options, TargetError
from android_bench.targets.remote_shell import DroppedError, Output, Shell, last_line, shortened
from android_bench.targets.tool_session import FILES, ToolSession
from shufflelite.errors import InputError

ATTEMPTS = 3  # of an action that a broken connection ended
RETURN_S = 60.0  # for a device to come back
RUN_S = 600.0  # for one start of the tool; its own limit is 150 s for warming up and for measuring
_LONGEST_PATH = 1000  # of the private folder
LITERT_BENCHMARK = "litert-benchmark"  # a script of the ai-edge-litert package
_LITERT_VERSION = (  # by the Python of the script, which its first line names
    f"script=$(command -v {LITERT_BENCHMARK}) || exit 1; "
    """$(sed -n '1s/^#!//p' "$script") -c 'from importlib import metadata;"""
    """ print(metadata.version("ai-edge-litert"))' 2>/dev/null; true"""
)

# The file shows whether programs can be run there; `pwd` prints the absolute path.
_MAKE = (
    "find {base} -maxdepth 1 -name 'shufflelite-????????????????' -mtime +1 -exec rm -rf {{}} +"
    " 2>/dev/null; mkdir -p {folder} && echo '#!/bin/sh' > {folder}/test &&"
    " chmod 755 {folder} {folder}/test && {folder}/test && rm {folder}/test && cd {folder} && pwd"
)

_T = TypeVar("_T")


class ShellTarget:
    """The native program of the benchmark tool on a device."""

    writes_files = True  # files that the tool writes can be read

    def __init__(self, shell: Shell, *, options: Options, system: str | None = None) -> None:
        self.shell = shell
        self.options = options
        self.name = shell.name
        self.folder = ""  # on the device, once it is made
        self.program = ""
        self._prepared = False
        self._files: dict[str, Path] = {}  # path on the device: path on this machine
        self._loaded = 0
        try:
            self.layout = device_info.parse_layout(self.check_output(device_info.LAYOUT))
            self.identity = self.layout.identity or shell.name.partition(":")[2]
            self.choice = self.choose_cores()
            self.binary, self.tool, self.version = self._find_tool(system or shell.system)
            benchmark_tool.check_delegate(self.tool, options.delegate)
            self.start = self.state()
        except BaseException:
            shell.close()
            raise

    def _find_tool(self, system: str) -> tuple[Path, Tool, str]:
        """Returns the program, the tool that it most likely is, and its version."""
        binary = self.options.benchmark_binary
        if binary == LITERT_BENCHMARK and system == "linux":
            if self.options.profile:
                raise InputError(f"--profile: {binary} has none; use benchmark_model")
            version = self.shell.run(_LITERT_VERSION)
            if version.code:
                raise InputError(
                    f"{self.name}: has no {binary} in its PATH; install it there with"
                    " `pip install ai-edge-litert`"
                )
            return Path(binary), Tool.LITERT_BENCHMARK, last_line(version.text) or "unknown version"
        found = binaries.find(system=system, abis=self.layout.abis, path=binary)
        compiled = b"= BENCHMARK RESULTS =" in found.path.read_bytes()
        tool = Tool.COMPILED_MODEL if compiled else Tool.CLASSIC
        return found.path, tool, f"SHA-256 {found.sha256[:12]}"

    def choose_cores(self) -> device_info.CoreChoice:
        """Chooses the cores to run on."""
        options = self.options
        return device_info.choose(self.layout, requested=options.cores, threads=options.threads)

    def machine(self) -> Machine:
        """The device as it is now."""
        state = self.state()
        return Machine(
            cpu=self.layout.cpu,
            governor=device_info.governor(state, self.choice.cores),
            load_average=state.load_average,
            temperature_c=state.temperature_c,
            fingerprint=self.layout.fingerprint,
            cores=self.choice.cores,
            instruction_set=self.layout.instruction_set,
        )

    def state(self) -> device_info.State:
        """Temperature, clocks and load as they are now."""
        return device_info.parse_state(self.check_output(device_info.STATE))

    def load(self, path: Path, *, warmup: int, seed: int) -> ToolSession:
        """Pushes the model and runs it once.

        Args:
          path: The model.
          warmup: Untimed inferences before the timed ones of each round.
          seed: Has no effect: the tool fills the inputs by itself.
        """
        if not self._prepared:
            try:
                self.prepare()
            except BaseException:
                with contextlib.suppress(TargetError):  # report the first error
                    undisturbed(self._remove)
                raise
            self._prepared = True
        self._loaded += 1
        remote = f"{self.folder}/{self._loaded}.tflite"  # the user's file name is not used there
        session = ToolSession(self, remote, warmup=warmup, seed=seed)
        try:
            self.push(path, remote)
            session.first()
        except BaseException:
            session.close()
            raise
        return session

    def prepare(self) -> None:
        """Makes the folder and pushes the tool."""
        self.make_folder()
        self.program = str(self.binary)
        if self.tool is not Tool.LITERT_BENCHMARK:  # which is installed on the device
            self.program = f"{self.folder}/benchmark_model"
            self.push(self.binary, self.program)
            self.check_output(device_info.quote(["chmod", "755", self.program]))

    def make_folder(self) -> None:
        """Makes a private folder in which programs can be run, and removes old ones."""
        self._remove()  # of an attempt that failed
        name = f"shufflelite-{secrets.token_hex(8)}"
        reason = ""
        for base in self.shell.folders:
            self.folder = folder = f"{base}/{name}"
            output = self.retry(partial(self.shell.run, _MAKE.format(base=base, folder=folder)))
            path = output.text.rstrip("\n")[-_LONGEST_PATH:].rpartition("\n")[2]
            if not output.code and path.endswith(f"/{name}"):
                self.folder = path
                return
            reason = last_line(output.text)
            self.check_output(f"rm -rf {folder}")
        self.folder = ""
        raise TargetError(
            f"{self.name}: found no folder to run programs in ({', '.join(self.shell.folders)}):"
            f" {reason}"
        )

    def push(self, path: Path, to: str) -> None:
        """Copies a file to the device and checks its size there."""
        size = path.stat().st_size
        self._files[to] = path

        def push() -> None:
            self.shell.push(path, to)
            arrived = last_line(self.shell.run(f"wc -c < {device_info.quote([to])}").text)
            if arrived != str(size):
                raise TargetError(
                    f"{self.name}: pushed {size} bytes of {path.name}, {arrived!r} arrived; is its"
                    " disk full?"
                )

        self.retry(push)

    def execute(self, words: Sequence[str]) -> Output:
        """Runs the tool with these flags, again if the connection breaks."""
        command = device_info.pinned([self.program, *words], self.choice.cores)
        pid = device_info.quote([f"{self.folder}/pid"])
        started = device_info.quote(["sh", "-c", f'echo $$ > {pid}; exec "$@"', "sh", *command])
        change_folder = device_info.quote(["cd", self.folder])
        try:
            return self.retry(
                lambda: self.shell.run(
                    f"{change_folder} && ({started} 2>&1; c=$?; rm -f {pid}; exit $c)",
                    timeout_s=RUN_S,
                ),
                before=self._restore,
            )
        except TargetError:
            undisturbed(self.end_run)
            raise

    def check_output(self, command: str) -> str:
        """Runs a command that must succeed, and returns its output."""
        output = self.retry(lambda: self.shell.run(command))
        if output.code:
            raise TargetError(
                f"{self.name}: expected success, got exit code {output.code} and"
                f" {last_line(output.text)!r} of: {shortened(command)}"
            )
        return output.text

    def read_bytes(self, path: str) -> bytes | None:
        """Reads a small file of the device; None if there is none."""
        # As text: the shells of old phones change line ends in their output.
        file = device_info.quote([path])
        command = f"[ ! -f {file} ] || {{ echo 'a file'; od -An -v -tx1 {file} 2>/dev/null; }}"
        heading, _, digits = self.check_output(command).partition("\n")
        try:
            return bytes.fromhex(digits) if heading else None
        except ValueError as error:
            raise TargetError(f"{self.name}: {path} arrived damaged: {error}") from error

    def retry(self, action: Callable[[], _T], *, before: Callable[[], None] | None = None) -> _T:
        """Calls `action`; if the connection breaks, waits for the device and calls it again.

        Args:
          action: What to do.
          before: Called before each attempt but the first.
        """
        for attempt in range(1, ATTEMPTS + 1):
            if self.shell.stopping.is_set():
                raise KeyboardInterrupt
            try:
                if attempt > 1 and before is not None:
                    before()
                return action()
            except DroppedError as error:
                if attempt == ATTEMPTS:
                    raise TargetError(f"{error} ({ATTEMPTS} times)") from error
                self.shell.wait(timeout_s=RETURN_S)
        raise AssertionError

    def stop(self) -> None:
        """Ends the run there; the thread that waits for it gets a KeyboardInterrupt."""
        self.shell.stopping.set()
        self.end_run()

    def end_run(self) -> None:
        """Ends the tool if it runs and the device can be reached."""
        self._try(self._kill_command())

    def close(self) -> None:
        """Removes all files from the device; waits for it if the connection is broken."""
        undisturbed(self._close)

    def _close(self) -> None:
        self.shell.stopping.clear()
        try:
            self._remove()
        finally:
            self.shell.close()

    def _remove(self) -> None:
        if not self.folder:
            return
        try:
            self.check_output(self._kill_command())
            self.clean_up()
            self.check_output(device_info.quote(["rm", "-rf", self.folder]))
        except TargetError as error:
            raise TargetError(f"{error}; {self.folder} stays on the device: remove it") from error
        self.folder = ""

    def clean_up(self) -> None:
        """Removes what is not in the folder: nothing, by default."""

    def forget(self, remote: str) -> None:
        """Removes a model and its files; if the device is gone, `close` does it."""
        self._files.pop(remote, None)
        files = [remote, *(f"{remote}.{kind}" for kind in FILES)]
        undisturbed(partial(self._try, device_info.quote(["rm", "-f", *files])))

    def _try(self, command: str) -> None:
        with contextlib.suppress(TargetError):
            self.shell.run(command, timeout_s=10)

    def _kill_command(self) -> str:
        # After a restart of the device the PID may be another process's.
        pid = device_info.quote([f"{self.folder}/pid"])
        name = self.folder.rpartition("/")[2]
        return (
            f"p=$(cat {pid} 2>/dev/null) && grep -q {name} /proc/$p/cmdline 2>/dev/null &&"
            " kill -9 $p; true"
        )

    def _restore(self) -> None:
        """Ends what still runs, and pushes files that a restart removed."""
        self.check_output(self._kill_command())
        for to, path in list(self._files.items()):
            command = f"wc -c < {device_info.quote([to])} 2>/dev/null || true"
            if self.check_output(command).strip() != str(path.stat().st_size):
                self.check_output(device_info.quote(["mkdir", "-p", self.folder]))
                self.push(path, to)
                self.check_output(device_info.quote(["chmod", "755", to]))
