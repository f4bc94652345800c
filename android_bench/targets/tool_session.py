"""One model on a device: each round is one start of the benchmark tool there."""

import contextlib
import signal
import statistics
from collections.abc import Sequence
from typing import Protocol

from android_bench import benchmark_tool, device_info
from android_bench.benchmark_tool import Delegation, ParseError, StartOptions, Tool, ToolResult
from android_bench.measurement import (
    DEFAULT_DELEGATE,
    UNKNOWN,
    Facts,
    OperatorTime,
    Options,
    Round,
    TargetError,
)
from android_bench.targets.remote_shell import Output, last_line
from android_bench.targets.temperatures import Temperatures

PROFILED_RUNS = 20
SHORT_MS = 0.02  # the tool's median is in whole microseconds: 5 % of this

FILES = RUNTIME_INFO, PROFILE, RESULT = ("runtime_info", "profile", "result")  # of a model there


class ToolDevice(Protocol):
    """A device on which the tool can be started."""

    name: str
    options: Options
    version: str  # of the tool
    tool: Tool  # of the last model; a session corrects it
    choice: device_info.CoreChoice
    start: device_info.State
    writes_files: bool  # whether files that the tool writes can be read

    def state(self) -> device_info.State:
        """Temperature, clocks and load as they are now."""

    def execute(self, words: Sequence[str]) -> Output:
        """Runs the tool with these flags."""

    def read_bytes(self, path: str) -> bytes | None:
        """Reads a small file; None if there is none."""

    def forget(self, remote: str) -> None:
        """Removes a model and the files that belong to it."""


class ToolSession:
    """A model on the device."""

    def __init__(self, device: ToolDevice, remote: str, *, warmup: int, seed: int) -> None:
        self.device = device
        self.remote = remote
        self.warmup = warmup
        self.tool = device.tool
        # XNNPACK by its flag also if none is requested: the default may not take int8 operators.
        self._delegate: str | None = device.options.requested_delegate
        self._found = Delegation("so far", {})
        self._in_use = UNKNOWN
        self._results: list[ToolResult] = []
        self._notes: dict[str, None] = dict.fromkeys(device.choice.notes)  # each once, in order
        if seed:
            self._notes["the seed has no effect: the tool there fills the inputs by itself"] = None
        self._temperatures = Temperatures(device.start.temperature_c)
        self._one_run_per_start = False

    def first(self) -> None:
        """Runs the model once, which shows which tool it is and which delegate runs."""
        self._first = self._run_first()
        if self._first.tool is not self.tool:
            assert self._first.tool is not None
            self.tool = self._first.tool  # a namesake, with flags of its own
            benchmark_tool.check_delegate(self.tool, self._delegate)
            self._first = self._run_first()
            self.device.tool = self.tool
        if (
            self._delegate in (None, DEFAULT_DELEGATE)
            and DEFAULT_DELEGATE not in self._found.partitions
            and self.tool is not Tool.LITERT_BENCHMARK  # which has no profile
        ):
            with contextlib.suppress(ParseError):  # the note below is enough then
                self._profile(runs=1)
        self._in_use = self._judge()
        if self._in_use == UNKNOWN:
            self._notes["the tool does not report which operators XNNPACK took"] = None

    def measure(self, *, runs: int) -> Round:
        """Measures one round.

        Old tools do not report a median: each inference is then one start of the tool.
        """
        self._temperatures.before_round(lambda: self.device.state().temperature_c)
        results = [] if self._one_run_per_start else [self._run(runs=runs)[0]]
        if self._one_run_per_start or results[0].median_ms is None:
            self._one_run_per_start = True
            self._notes[
                "one start of the tool for each inference, which takes longer: this tool, older"
                " than TF 2.20, reports no median"
            ] = None
            results = [self._run(runs=1)[0] for _ in range(runs)]
        self._results += results
        if (timed := sum(one.runs for one in results)) < runs:
            self._notes[f"its time limit ended a round after {timed} of {runs} inferences"] = None
        state = self.device.state()
        self._notes.update(dict.fromkeys(device_info.throttling(state, self.device.choice.cores)))
        self._temperatures.after_round(state.temperature_c)
        return round_of(results)

    def finish(self) -> Facts:
        """Returns what the runs reported."""
        profile = self._profile(runs=PROFILED_RUNS) if self.device.options.profile else ()
        results = self._results or [self._first]
        partitions = self._found.partitions.get(self._in_use)
        if self._in_use not in ("none", UNKNOWN) and self._found.undelegated != {}:
            extent = f"{partitions} part{'s' * (partitions != 1)}" if partitions else "a part"
            self._notes[f"{self._in_use} ran {extent} of the model, the CPU the rest"] = None
        return Facts(
            init_ms=_median([one.init_ms for one in results]),
            first_ms=_median([one.first_ms for one in results]),
            peak_memory_mb=_median([one.memory_mb for one in results]),
            process_peak_mb=self._first.peak_memory_mb,  # monitoring it disturbs the times
            delegate=self._in_use,
            delegate_partitions=0 if self._in_use == "none" else partitions,
            undelegated_operators=self._found.undelegated,
            runtime_version=f"{self.tool.value}, {self.device.version}",
            profile=profile,
            notes=[*self._notes, *self._temperatures.notes()],
        )

    def close(self) -> None:
        """Removes the model from the device."""
        self.device.forget(self.remote)

    def _run(
        self, *, runs: int, profile: bool = False, first: bool = False
    ) -> tuple[ToolResult, str]:
        """Starts the tool; returns its result and its output."""
        device, files = self.device, self.device.writes_files
        litert = self.tool is Tool.LITERT_BENCHMARK
        options = StartOptions(
            runs=runs,
            warmup=self.warmup + 1,  # the first inference is cold
            threads=device.options.threads,
            delegate=self._delegate,
            profile=profile,
            profile_file=self._file(PROFILE) if profile and files else None,
            result_file=self._file(RESULT) if litert or files else None,
            runtime_info_file=self._file(RUNTIME_INFO) if first and files else None,
            peak_memory=first and not litert,
        )
        words = benchmark_tool.flags(self.tool, self.remote, options)
        output = device.execute(words)
        requested = device.options.delegate
        if first and not requested and self._delegate and "Failed to apply XNN" in output.text:
            # Graphs with dynamic or string tensors: the tool's default takes what it can of them.
            self._notes[
                "XNNPACK cannot be applied by its flag, so the tool's default ran:"
                f" {benchmark_tool.failure(output.text)}"
            ] = None
            self._delegate = None
            return self._run(runs=runs, profile=profile, first=first)
        if output.code:
            raise TargetError(f"{device.name}: {_failure(output)}")
        result = self._result(output.text, options.result_file)
        if result.tool is self.tool:
            unknown = [flag for flag in result.unconsumed if flag in self._delegate_flags()]
            if unknown and requested is not None:
                raise ParseError(f"this version of the tool does not know {' '.join(unknown)}")
            self._learn(*result.delegations)
        return result, output.text

    def _run_first(self) -> ToolResult:
        result, _ = self._run(runs=1, first=True)
        if result.tool is self.tool:
            info = self._read(RUNTIME_INFO) if self.device.writes_files else None
            if info is not None:  # before LiteRT 1.1 the tool writes none
                self._learn(benchmark_tool.parse_runtime_info_proto(info))
            if any("require_full_delegation" in flag for flag in self._delegate_flags()):
                # It succeeded, which proves that the delegate took all.
                self._learn(Delegation("its success", {str(self._delegate): None}, {}))
        return result

    def _learn(self, *sources: Delegation) -> None:
        """Adds reports on which delegate ran what.

        Raises:
          ParseError: They contradict each other or the request.
        """
        self._found = benchmark_tool.combine([self._found, *sources])

    def _judge(self) -> str:
        """Returns the delegate that took operators; raises ParseError if it is not as requested."""
        requested = self.device.options.delegate
        # LiteRT's tools do not report how much a delegate took, but can refuse less than all.
        whole = self.tool is not Tool.CLASSIC and requested not in (None, "xnnpack", "none")
        return benchmark_tool.in_use(self._found, requested, whole=whole)

    def _delegate_flags(self) -> Sequence[str]:
        return benchmark_tool.DELEGATES[self.tool][self._delegate] if self._delegate else ()

    def _result(self, text: str, result_file: str | None) -> ToolResult:
        data = None if result_file is None else self._read(RESULT)
        if self.tool is Tool.LITERT_BENCHMARK:
            return benchmark_tool.parse_result_json((data or b"").decode(errors="replace"))
        printed = benchmark_tool.parse(text, graph=self.remote)
        if data is None:  # before LiteRT 2.1 the tool writes no such file
            return printed
        return benchmark_tool.merge(printed, benchmark_tool.parse_result_proto(data))

    def _profile(self, *, runs: int) -> Sequence[OperatorTime]:
        result, text = self._run(runs=runs, profile=True)
        if result.lost_profile_events:
            raise TargetError(f"{self.device.name}: the tool's profile lacks operators")
        data = self._read(PROFILE) if self.device.writes_files else None
        if data is None:  # an app's, an older tool's, or the CompiledModel tool's
            rows = benchmark_tool.parse_profile(text)
        else:
            rows = benchmark_tool.parse_profile_proto(data)
        self._learn(*benchmark_tool.of_profile(rows, delegate=self._delegate or DEFAULT_DELEGATE))
        return rows

    def _file(self, kind: str) -> str:
        return f"{self.remote}.{kind}"

    def _read(self, kind: str) -> bytes | None:
        return self.device.read_bytes(self._file(kind))


def _failure(output: Output) -> str:
    if output.code in (126, 127):
        last = last_line(output.text)
        return f"the tool cannot be run there ({last}): is it for this system and processor?"
    reason = benchmark_tool.failure(output.text) or "nothing"
    if output.code <= 128:
        return f"the tool failed: {reason} (exit code {output.code})"
    try:
        name = signal.Signals(output.code - 128).name
    except ValueError:
        name = f"signal {output.code - 128}"
    how = "was killed by SIGKILL; memory may be short" if name == "SIGKILL" else f"died of {name}"
    return f"the tool {how}; last output: {reason}"


def round_of(results: Sequence[ToolResult]) -> Round:
    """Returns one start of the tool, or several of one inference each, as a round."""
    one = results[0]
    median, p5, p95 = one.median_ms, one.p5_ms, one.p95_ms
    if len(results) == 1 and median is not None and p5 is not None and p95 is not None:
        # Of short ones, the median in whole microseconds is coarser than the average.
        return Round(median if median >= SHORT_MS else one.avg_ms, p5, p95, one.min_ms, one.runs)
    times = sorted(result.avg_ms for result in results)  # of one inference each
    p5, p95 = (times[len(times) * percent // 100] for percent in (5, 95))  # as the tool does
    return Round(statistics.median(times), p5, p95, times[0], len(times))


def _median(values: Sequence[float | None]) -> float | None:
    reported = [value for value in values if value is not None]
    return statistics.median(reported) if reported else None
