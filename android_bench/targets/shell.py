"""A device with a shell, on which the benchmark tool runs: phones by adb and boards by ssh.

A private folder there holds the tool and the models; it goes when the target is closed, and so
does a run that a broken connection left behind.
"""

import contextlib
import secrets
import signal
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, Protocol, TypeVar

from android_bench import benchmark_model, binaries, device
from android_bench.benchmark_model import ParseError, Result, Tool
from android_bench.targets import Facts, Machine, OperatorTime, Options, Round, TargetError
from keras_models.errors import InputError

ATTEMPTS = 3  # of whatever a broken connection ended
RETURN_S = 60.0  # for a device to come back
RUN_S = 600.0  # for one start of the tool; its own limit is 150 s for warming up and for measuring
LITERT_BENCHMARK = "litert-benchmark"  # a script of the ai-edge-litert package
WARMER_C = 1.0  # than at the start, when a round begins
COOL_DOWN_S = 60.0  # before a round
COOL_DOWNS_S = 300.0  # of one model in all
PROFILED_RUNS = 20

# The file shows whether programs can be run there; the end tells the absolute path.
_MAKE = (
    "find {base} -maxdepth 1 -name 'shufflelite-????????????????' -mtime +1 -exec rm -rf {{}} +"
    " 2>/dev/null; mkdir -p {folder} && echo '#!/bin/sh' > {folder}/test &&"
    " chmod 755 {folder} {folder}/test && {folder}/test && rm {folder}/test && cd {folder} && pwd"
)

_T = TypeVar("_T")


class DroppedError(TargetError):
    """The connection broke: what was asked may succeed once the device is back."""


@dataclass(frozen=True)
class Output:
    """What a command printed on both streams, and its exit code, 128 + N if signal N ended it."""

    text: str
    code: int


class Shell(Protocol):
    """The connection.  Methods raise DroppedError when it breaks, TargetError when for good."""

    name: str  # as --target names it
    system: str  # whose programs run there: "android" or "linux"

    @property
    def folders(self) -> Sequence[str]:
        """Where to try to make a private one."""

    def run(self, command: str, *, timeout_s: float = 60.0) -> Output:
        """Runs a command of the device's sh; its failure is in the output's code."""

    def push(self, path: Path, to: str) -> None:
        """Copies a file to the device."""

    def wait(self, *, timeout_s: float) -> None:
        """Returns as soon as the device can be reached again."""

    def close(self) -> None:
        """Ends the connection."""


class ShellTarget:
    """The native program of the benchmark tool on a device."""

    writes_files = True  # where they can be read

    def __init__(self, shell: Shell, *, options: Options, system: str | None = None) -> None:
        self.shell = shell
        self.options = options
        self.name = shell.name
        self.folder = ""  # there, once there is one
        self.program = ""
        self._prepared = False
        self._files: dict[str, Path] = {}  # there: here
        self._loaded = 0
        try:
            self.layout = device.parse_layout(self.ask(device.LAYOUT))
            self.choice = self.choose_cores()
            self.tool, self.kind = self._find_tool(system or shell.system)
            self.start = self.state()
        except BaseException:
            shell.close()
            raise

    def _find_tool(self, system: str) -> tuple[binaries.Tool, Tool]:
        """The program, and which tool it is as far as can be known before it speaks."""
        given = self.options.benchmark_binary
        if given == LITERT_BENCHMARK and system == "linux":
            if self.options.profile:
                raise InputError(f"--profile: {given} has none; use benchmark_model")
            if self.shell.run(f"command -v {given}").code:
                raise InputError(
                    f"{self.name}: has no {given} in its PATH; install it there with"
                    " `pip install ai-edge-litert`"
                )
            return binaries.Tool(Path(given), ""), Tool.LITERT_BENCHMARK
        return binaries.find(system=system, abis=self.layout.abis, given=given), Tool.CLASSIC

    def choose_cores(self) -> device.Choice:
        """The cores to keep to."""
        options = self.options
        return device.choose(self.layout, wanted=options.cores, threads=options.threads)

    def machine(self) -> Machine:
        """The device as it is now."""
        state = self.state()
        return Machine(
            cpu=self.layout.cpu,
            governor=device.governor(state, self.choice.cores),
            load_average=state.load_average,
            temperature_c=state.temperature_c,
            fingerprint=self.layout.fingerprint,
            cores=self.choice.cores,
        )

    def state(self) -> device.State:
        """Temperature, clocks and load as they are now."""
        return device.parse_state(self.ask(device.STATE))

    def load(self, path: Path, *, warmup: int, seed: int) -> "ToolSession":
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
                with contextlib.suppress(TargetError):  # what went wrong first is told
                    undisturbed(self._remove)
                raise
            self._prepared = True
        self._loaded += 1
        remote = f"{self.folder}/{self._loaded}.tflite"  # no name of the user's gets there
        session = ToolSession(self, remote, warmup=warmup)
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
        self.program = str(self.tool.path)
        if self.kind is not Tool.LITERT_BENCHMARK:  # which is the device's own
            self.program = f"{self.folder}/benchmark_model"
            self.push(self.tool.path, self.program)
            self.ask(device.quote(["chmod", "755", self.program]))

    def make_folder(self) -> None:
        """Makes a private folder in which programs can be run, and removes forgotten ones."""
        self._remove()  # of an attempt that failed
        name = f"shufflelite-{secrets.token_hex(8)}"
        why = ""
        for base in self.shell.folders:
            self.folder = folder = f"{base}/{name}"
            made = self.again(partial(self.shell.run, _MAKE.format(base=base, folder=folder)))
            if not made.code:
                self.folder = last_line(made.text)
                return
            why = last_line(made.text)
            self.ask(f"rm -rf {folder}")
        self.folder = ""
        raise TargetError(
            f"{self.name}: found no folder to run programs in ({', '.join(self.shell.folders)}):"
            f" {why}"
        )

    def push(self, path: Path, to: str) -> None:
        """Copies a file to the device, whole, however often the connection breaks."""
        size = path.stat().st_size
        self._files[to] = path

        def push() -> None:
            self.shell.push(path, to)
            there = self.shell.run(f"wc -c < {device.quote([to])}").text.strip()
            if there != str(size):
                raise TargetError(
                    f"{self.name}: pushed {size} bytes of {path.name}, {there!r} arrived; is its"
                    " disk full?"
                )

        self.again(push)

    def execute(self, words: Sequence[str]) -> Output:
        """Runs the tool with these flags, anew where the connection breaks."""
        command = device.pinned([self.program, *words], self.choice.cores)
        pid = device.quote([f"{self.folder}/pid"])
        started = device.quote(["sh", "-c", f'echo $$ > {pid}; exec "$@"', "sh", *command])
        there = device.quote(["cd", self.folder])
        try:
            return self.again(
                lambda: self.shell.run(
                    f"{there} && ({started} 2>&1; c=$?; rm -f {pid}; exit $c)",
                    timeout_s=RUN_S,
                ),
                before=self._restore,
            )
        except TargetError:
            undisturbed(partial(self._try, self._kill_command()))
            raise

    def ask(self, command: str) -> str:
        """What a command prints that must succeed."""
        output = self.again(lambda: self.shell.run(command))
        if output.code:
            raise TargetError(
                f"{self.name}: expected success, got exit code {output.code} and"
                f" {last_line(output.text)!r} of: {shortened(command)}"
            )
        return output.text

    def again(self, action: Callable[[], _T], *, before: Callable[[], None] | None = None) -> _T:
        """Does `action`; where the connection breaks, waits for the device and does it anew.

        Args:
          action: What to do.
          before: What to do first, each time after the first.
        """
        for attempt in range(1, ATTEMPTS + 1):
            try:
                if attempt > 1 and before is not None:
                    before()
                return action()
            except DroppedError as error:
                if attempt == ATTEMPTS:
                    raise TargetError(f"{error} ({ATTEMPTS} times)") from error
                self.shell.wait(timeout_s=RETURN_S)
        raise AssertionError

    def close(self) -> None:
        """Removes everything from the device; waits for it if the connection is broken."""
        undisturbed(self._close)

    def _close(self) -> None:
        try:
            self._remove()
        finally:
            self.shell.close()

    def _remove(self) -> None:
        if not self.folder:
            return
        try:
            self.ask(self._kill_command())
            self.clean_up()
            self.ask(device.quote(["rm", "-rf", self.folder]))
        except TargetError as error:
            raise TargetError(f"{error}; {self.folder} stays on the device: remove it") from error
        self.folder = ""

    def clean_up(self) -> None:
        """Removes what is not in the folder."""

    def forget(self, remote: str) -> None:
        """Removes a model; a device that is gone is left to `close`."""
        self._files.pop(remote, None)

        files = [remote, f"{remote}.csv", f"{remote}.json"]
        undisturbed(partial(self._try, device.quote(["rm", "-f", *files])))

    def _try(self, command: str) -> None:
        with contextlib.suppress(TargetError):
            self.shell.run(command, timeout_s=10)

    def _kill_command(self) -> str:
        # The number may be another process's by now, after a restart of the device.
        pid = device.quote([f"{self.folder}/pid"])
        name = self.folder.rpartition("/")[2]
        return (
            f"p=$(cat {pid} 2>/dev/null) && grep -q {name} /proc/$p/cmdline 2>/dev/null &&"
            " kill -9 $p; true"
        )

    def _restore(self) -> None:
        """Ends what still runs, and pushes what a restart took with it."""
        self.ask(self._kill_command())
        for to, path in list(self._files.items()):
            found = self.ask(f"wc -c < {device.quote([to])} 2>/dev/null || true").strip()
            if found != str(path.stat().st_size):
                self.ask(device.quote(["mkdir", "-p", self.folder]))
                self.push(path, to)
                self.ask(device.quote(["chmod", "755", to]))


class ToolSession:
    """A model on the device; each round is a start of the tool."""

    def __init__(self, target: ShellTarget, remote: str, *, warmup: int) -> None:
        self.target = target
        self.remote = remote
        self.warmup = warmup
        self.tool = target.kind
        self._done: list[Result] = []
        self._notes: dict[str, None] = dict.fromkeys(target.choice.notes)  # each once, in order
        self._begun_c: list[float] = []  # temperatures at the beginnings of rounds
        self._ended_c: list[float] = []
        self._waited_s = 0.0
        self._alone = False  # each inference needs a start of its own

    def first(self) -> None:
        """Runs the model once, which shows what the tool can tell."""
        self._first, _ = self._run(runs=1, more=["--report_peak_memory_footprint=true"])
        if self._first.tool is not None and self._first.tool is not self.tool:
            self.tool = self._first.tool  # a namesake, with flags of its own
            self._first, _ = self._run(runs=1, more=["--report_peak_memory_footprint=true"])
            self.target.kind = self.tool

    def measure(self, *, runs: int) -> Round:
        """One round.  Old tools tell no median, so that each inference is a start of its own."""
        self._cool_down()
        done = [] if self._alone else [self._run(runs=runs)[0]]
        if self._alone or done[0].median_ms is None:
            self._alone = True
            self._notes["one start of the tool for each inference"] = None
            done = [self._run(runs=1)[0] for _ in range(runs)]
        self._done += done
        state = self.target.state()
        self._notes.update(dict.fromkeys(device.throttling(state, self.target.choice.cores)))
        if state.temperature_c is not None:
            self._ended_c.append(state.temperature_c)
        return _round(done)

    def finish(self) -> Facts:
        """What the runs told."""
        profile = self._profile() if self.target.options.profile else []
        undelegated = None
        if profile and all(row.delegated is not None for row in profile):
            outside = [row for row in profile if not row.delegated]
            undelegated = {row.type: 0 for row in outside}
            for row in outside:
                undelegated[row.type] += row.calls
        done = self._done or [self._first]
        version = self.target.tool.sha256[:12]
        return Facts(
            init_ms=_median([one.init_ms for one in done]),
            first_ms=_median([one.first_ms for one in done]),
            peak_memory_mb=_median([one.memory_mb for one in done]),
            process_peak_mb=self._first.peak_memory_mb,  # watching it disturbs what is timed
            delegate_partitions=self._partitions,
            undelegated_operators=undelegated,
            runtime_version=self.tool.value + (f", SHA-256 {version}" if version else ""),
            profile=profile,
            notes=[*self._notes, *self._temperatures()],
        )

    def close(self) -> None:
        """Removes the model from the device."""
        self.target.forget(self.remote)

    def _run(
        self,
        *,
        runs: int,
        profile: Literal["text", "csv"] | None = None,
        more: Sequence[str] = (),
    ) -> tuple[Result, str]:
        """Starts the tool; returns what it told, and its output."""
        target, options = self.target, self.target.options
        result_file = f"{self.remote}.json" if self.tool is Tool.LITERT_BENCHMARK else None
        words = benchmark_model.flags(
            self.tool,
            self.remote,
            runs=runs,
            warmup=self.warmup + 1,  # the first inference is no warm one
            threads=options.threads,
            delegate=options.delegate,
            profile=profile,
            profile_file=f"{self.remote}.csv" if profile == "csv" else None,
            result_file=result_file,
        )
        if result_file is None:
            # Clocks rise within the tool's own half second, not within a few short inferences.
            words = [*(word for word in words if word != "--warmup_min_secs=0"), *more]
        output = target.execute(words)
        if output.code:
            raise TargetError(f"{target.name}: {_failure(output)}")
        if result_file is None:
            result = benchmark_model.parse(output.text, graph=self.remote)
        else:
            result = benchmark_model.parse_result_json(self._read(result_file))
        self._partitions = None
        if options.delegate is not None and result.tool in (None, self.tool):
            found = benchmark_model.check_delegate(
                result,
                options.delegate,
                full_required=any("require_full_delegation" in word for word in words),
            )
            self._partitions = found.kernels
            if found.outcome == "partial":
                parts = "a part" if found.kernels is None else f"{found.kernels} parts"
                self._notes[f"{found.name} ran {parts} of the model, the CPU the rest"] = None
        return result, output.text

    def _profile(self) -> Sequence[OperatorTime]:
        # CSV has more digits, but an app may not write where we can read.
        csv = self.tool is Tool.CLASSIC and self.target.writes_files
        result, text = self._run(runs=PROFILED_RUNS, profile="csv" if csv else "text")
        if result.dropped_profile_events:
            raise TargetError(f"{self.target.name}: the tool's profile lacks operators")
        if csv:
            return benchmark_model.parse_profile_csv(self._read(f"{self.remote}.csv")).operators
        return benchmark_model.parse_profile(text).operators

    def _read(self, remote: str) -> str:
        return self.target.ask(device.quote(["cat", remote])).replace("\r", "")

    def _cool_down(self) -> None:
        start_c = self.target.start.temperature_c
        begun = time.monotonic()
        now_c = device.cool_down(
            lambda: self.target.state().temperature_c,
            goal_c=None if start_c is None else start_c + WARMER_C,
            limit_s=max(0.0, min(COOL_DOWN_S, COOL_DOWNS_S - self._waited_s)),
        )
        self._waited_s += time.monotonic() - begun
        if now_c is not None:
            self._begun_c.append(now_c)

    def _temperatures(self) -> list[str]:
        start_c = self.target.start.temperature_c
        if start_c is None or not self._begun_c:
            return []
        notes = [
            f"{start_c:.1f} C at the start,"
            f" {max(self._begun_c):.1f} C at most before and"
            f" {max(self._ended_c, default=start_c):.1f} C after a round"
        ]
        warm = [c for c in self._begun_c if c > start_c + WARMER_C]
        if warm:
            notes.append(
                f"warm: {len(warm)} of {len(self._begun_c)} rounds began up to"
                f" {max(warm) - start_c:.1f} C above the start, after waiting in vain"
            )
        return notes


def undisturbed(action: Callable[[], None]) -> None:
    """Does `action` to its end, though Ctrl-C may come again and again; raises it afterwards."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            action()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)  # signals reach the main thread alone
    thread.start()
    interrupted: KeyboardInterrupt | None = None
    while thread.is_alive():
        try:
            thread.join()
        except KeyboardInterrupt as error:
            interrupted = error
    if interrupted is not None:
        raise interrupted
    if failures:
        raise failures[0]


def last_line(text: str) -> str:
    """The last line that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def shortened(command: str) -> str:
    """A command for a message."""
    line = " ".join(command.split())
    return line if len(line) <= 100 else f"{line[:97]}..."


def _failure(output: Output) -> str:
    said = last_line(output.text)
    if output.code in (126, 127):
        return f"the tool cannot be run there ({said}): is it for this system and processor?"
    try:
        benchmark_model.parse(output.text)
        why = f"it left with {output.code}"
    except ParseError as error:
        why = str(error)
    if output.code <= 128:
        return f"{why} (exit code {output.code})"
    try:
        name = signal.Signals(output.code - 128).name
    except ValueError:
        name = f"signal {output.code - 128}"
    how = "was killed by SIGKILL; memory may be short" if name == "SIGKILL" else f"died of {name}"
    return f"the tool {how}; it last said: {said or 'nothing'}"


def _round(done: Sequence[Result]) -> Round:
    one = done[0]
    median, p5, p95 = one.median_ms, one.p5_ms, one.p95_ms
    if len(done) == 1 and median is not None and p5 is not None and p95 is not None:
        return Round(median, p5, p95, one.min_ms, one.runs)
    times = sorted(each.avg_ms for each in done)  # of one inference each
    p5, p95 = (times[len(times) * percent // 100] for percent in (5, 95))  # as the tool counts
    return Round(statistics.median(times), p5, p95, times[0], len(times))


def _median(values: Sequence[float | None]) -> float | None:
    told = [value for value in values if value is not None]
    return statistics.median(told) if told else None
