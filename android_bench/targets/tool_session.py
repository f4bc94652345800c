"""One model on a device: each round is one start of the benchmark tool there."""

import signal
import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Literal, Protocol

from android_bench import benchmark_tool, device_info
from android_bench.benchmark_tool import ParseError, StartOptions, Tool, ToolResult
from android_bench.binaries import ToolBinary
from android_bench.measurement import Facts, OperatorTime, Options, Round, TargetError
from android_bench.targets.remote_shell import Output, last_line
from android_bench.targets.temperatures import Temperatures

PROFILED_RUNS = 20


class ToolDevice(Protocol):
    """A device on which the tool can be started."""

    name: str
    options: Options
    binary: ToolBinary
    tool: Tool  # of the last model; a session corrects it
    choice: device_info.CoreChoice
    start: device_info.State
    writes_files: bool  # whether files that the tool writes can be read

    def state(self) -> device_info.State:
        """Temperature, clocks and load as they are now."""

    def execute(self, words: Sequence[str]) -> Output:
        """Runs the tool with these flags."""

    def check_output(self, command: str) -> str:
        """Runs a command that must succeed, and returns its output."""

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
        self._results: list[ToolResult] = []
        self._notes: dict[str, None] = dict.fromkeys(device.choice.notes)  # each once, in order
        if seed:
            self._notes["the seed has no effect: the tool there fills the inputs by itself"] = None
        self._temperatures = Temperatures(device.start.temperature_c)
        self._one_run_per_start = False

    def first(self) -> None:
        """Runs the model once, which shows which tool it is."""
        self._first, _ = self._run(runs=1, peak_memory=True)
        if self._first.tool is not None and self._first.tool is not self.tool:
            self.tool = self._first.tool  # a namesake, with flags of its own
            self._first, _ = self._run(runs=1, peak_memory=True)
            self.device.tool = self.tool

    def measure(self, *, runs: int) -> Round:
        """Measures one round.

        Old tools do not report a median: each inference is then one start of the tool.
        """
        self._temperatures.before_round(lambda: self.device.state().temperature_c)
        results = [] if self._one_run_per_start else [self._run(runs=runs)[0]]
        if self._one_run_per_start or results[0].median_ms is None:
            self._one_run_per_start = True
            self._notes["one start of the tool for each inference"] = None
            results = [self._run(runs=1)[0] for _ in range(runs)]
        self._results += results
        state = self.device.state()
        self._notes.update(dict.fromkeys(device_info.throttling(state, self.device.choice.cores)))
        self._temperatures.after_round(state.temperature_c)
        return _round(results)

    def finish(self) -> Facts:
        """Returns what the runs reported."""
        profile = self._profile() if self.device.options.profile else []
        undelegated = None
        if profile and all(row.delegated is not None for row in profile):
            calls = Counter[str]()
            for row in profile:
                if not row.delegated:
                    calls[row.type] += row.calls
            undelegated = dict(calls)
        results = self._results or [self._first]
        version = self.device.binary.sha256[:12]
        return Facts(
            init_ms=_median([one.init_ms for one in results]),
            first_ms=_median([one.first_ms for one in results]),
            peak_memory_mb=_median([one.memory_mb for one in results]),
            process_peak_mb=self._first.peak_memory_mb,  # monitoring it disturbs the times
            delegate_partitions=self._partitions,
            undelegated_operators=undelegated,
            runtime_version=self.tool.value + (f", SHA-256 {version}" if version else ""),
            profile=profile,
            notes=[*self._notes, *self._temperatures.notes()],
        )

    def close(self) -> None:
        """Removes the model from the device."""
        self.device.forget(self.remote)

    def _run(
        self,
        *,
        runs: int,
        profile: Literal["text", "csv"] | None = None,
        peak_memory: bool = False,
    ) -> tuple[ToolResult, str]:
        """Starts the tool; returns its result and its output."""
        device, delegate = self.device, self.device.options.delegate
        litert = self.tool is Tool.LITERT_BENCHMARK
        options = StartOptions(
            runs=runs,
            warmup=self.warmup + 1,  # the first inference is cold
            threads=device.options.threads,
            delegate=delegate,
            profile=profile,
            profile_file=f"{self.remote}.csv" if profile == "csv" else None,
            result_file=f"{self.remote}.result" if litert or device.writes_files else None,
            peak_memory=peak_memory and not litert,
        )
        words = benchmark_tool.flags(self.tool, self.remote, options)
        output = device.execute(words)
        if output.code:
            raise TargetError(f"{device.name}: {_failure(output)}")
        result = self._result(output.text, options.result_file)
        self._partitions = None
        if delegate is not None and result.tool in (None, self.tool):
            part = benchmark_tool.check_delegate(
                result,
                delegate,
                full_required=any("require_full_delegation" in word for word in words),
            )
            self._partitions = part.kernels
            if part.outcome == "partial":
                extent = "a part" if part.kernels is None else f"{part.kernels} parts"
                self._notes[f"{part.name} ran {extent} of the model, the CPU the rest"] = None
        return result, output.text

    def _result(self, text: str, result_file: str | None) -> ToolResult:
        if result_file is not None and self.tool is Tool.LITERT_BENCHMARK:
            return benchmark_tool.parse_result_json(self._read(result_file))
        printed = benchmark_tool.parse(text, graph=self.remote)
        data = None if result_file is None else self.device.read_bytes(result_file)
        if data is None:  # before LiteRT 2.1 the tool writes no such file
            return printed
        return benchmark_tool.merge(printed, benchmark_tool.parse_result_proto(data))

    def _profile(self) -> Sequence[OperatorTime]:
        # CSV has more digits, but an app's files cannot be read.
        csv = self.tool is Tool.CLASSIC and self.device.writes_files
        result, text = self._run(runs=PROFILED_RUNS, profile="csv" if csv else "text")
        if result.dropped_profile_events:
            raise TargetError(f"{self.device.name}: the tool's profile lacks operators")
        if csv:
            return benchmark_tool.parse_profile_csv(self._read(f"{self.remote}.csv"))
        return benchmark_tool.parse_profile(text)

    def _read(self, remote: str) -> str:
        return self.device.check_output(device_info.quote(["cat", remote])).replace("\r", "")


def _failure(output: Output) -> str:
    last = last_line(output.text)
    if output.code in (126, 127):
        return f"the tool cannot be run there ({last}): is it for this system and processor?"
    try:
        benchmark_tool.parse(output.text)
        reason = "the tool failed"
    except ParseError as error:
        reason = str(error)
    if output.code <= 128:
        return f"{reason} (exit code {output.code})"
    try:
        name = signal.Signals(output.code - 128).name
    except ValueError:
        name = f"signal {output.code - 128}"
    how = "was killed by SIGKILL; memory may be short" if name == "SIGKILL" else f"died of {name}"
    return f"the tool {how}; last output: {last or 'none'}"


def _round(results: Sequence[ToolResult]) -> Round:
    one = results[0]
    median, p5, p95 = one.median_ms, one.p5_ms, one.p95_ms
    if len(results) == 1 and median is not None and p5 is not None and p95 is not None:
        return Round(median, p5, p95, one.min_ms, one.runs)
    times = sorted(result.avg_ms for result in results)  # of one inference each
    p5, p95 = (times[len(times) * percent // 100] for percent in (5, 95))  # as the tool does
    return Round(statistics.median(times), p5, p95, times[0], len(times))


def _median(values: Sequence[float | None]) -> float | None:
    reported = [value for value in values if value is not None]
    return statistics.median(reported) if reported else None
