"""One model on a device: each round is a start of the benchmark tool there."""

import signal
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from android_bench import benchmark_tool, device_info
from android_bench.benchmark_tool import ParseError, Result, Tool
from android_bench.measurement import Facts, OperatorTime, Round, TargetError
from android_bench.targets.remote_shell import Output, last_line
from android_bench.targets.temperatures import Temperatures

if TYPE_CHECKING:
    from android_bench.targets.remote_target import ShellTarget

PROFILED_RUNS = 20


class ToolSession:
    """A model on the device; each round is a start of the tool."""

    def __init__(self, target: "ShellTarget", remote: str, *, warmup: int, seed: int) -> None:
        self.target = target
        self.remote = remote
        self.warmup = warmup
        self.tool = target.kind
        self._done: list[Result] = []
        self._notes: dict[str, None] = dict.fromkeys(target.choice.notes)  # each once, in order
        if seed:
            self._notes["the seed has no effect: the tool there fills the inputs by itself"] = None
        self._temperatures = Temperatures(target.start.temperature_c)
        self._alone = False  # each inference needs a start of its own

    def first(self) -> None:
        """Runs the model once, which shows what the tool can tell."""
        self._first, _ = self._run(runs=1, peak_memory=True)
        if self._first.tool is not None and self._first.tool is not self.tool:
            self.tool = self._first.tool  # a namesake, with flags of its own
            self._first, _ = self._run(runs=1, peak_memory=True)
            self.target.kind = self.tool

    def measure(self, *, runs: int) -> Round:
        """One round.  Old tools tell no median, so that each inference is a start of its own."""
        self._temperatures.before_round(lambda: self.target.state().temperature_c)
        done = [] if self._alone else [self._run(runs=runs)[0]]
        if self._alone or done[0].median_ms is None:
            self._alone = True
            self._notes["one start of the tool for each inference"] = None
            done = [self._run(runs=1)[0] for _ in range(runs)]
        self._done += done
        state = self.target.state()
        self._notes.update(dict.fromkeys(device_info.throttling(state, self.target.choice.cores)))
        self._temperatures.after_round(state.temperature_c)
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
            notes=[*self._notes, *self._temperatures.notes()],
        )

    def close(self) -> None:
        """Removes the model from the device."""
        self.target.forget(self.remote)

    def _run(
        self,
        *,
        runs: int,
        profile: Literal["text", "csv"] | None = None,
        peak_memory: bool = False,
    ) -> tuple[Result, str]:
        """Starts the tool; returns what it told, and its output."""
        target, options = self.target, self.target.options
        litert = self.tool is Tool.LITERT_BENCHMARK
        result_file = f"{self.remote}.result" if litert or target.writes_files else None
        words = benchmark_tool.flags(
            self.tool,
            self.remote,
            runs=runs,
            warmup=self.warmup + 1,  # the first inference is no warm one
            # Clocks rise within the tool's own half second, not within a few short inferences.
            warmup_seconds=None,
            threads=options.threads,
            delegate=options.delegate,
            profile=profile,
            profile_file=f"{self.remote}.csv" if profile == "csv" else None,
            result_file=result_file,
            peak_memory=peak_memory and not litert,
        )
        output = target.execute(words)
        if output.code:
            raise TargetError(f"{target.name}: {_failure(output)}")
        result = self._result(output.text, result_file)
        self._partitions = None
        if options.delegate is not None and result.tool in (None, self.tool):
            found = benchmark_tool.check_delegate(
                result,
                options.delegate,
                full_required=any("require_full_delegation" in word for word in words),
            )
            self._partitions = found.kernels
            if found.outcome == "partial":
                parts = "a part" if found.kernels is None else f"{found.kernels} parts"
                self._notes[f"{found.name} ran {parts} of the model, the CPU the rest"] = None
        return result, output.text

    def _result(self, text: str, file: str | None) -> Result:
        """What a run told; its output is held against the result file where there is one."""
        if file is not None and self.tool is Tool.LITERT_BENCHMARK:
            return benchmark_tool.parse_result_json(self._read(file))
        printed = benchmark_tool.parse(text, graph=self.remote)
        data = None if file is None else self.target.read_bytes(file)
        if data is None:  # before LiteRT 2.1 the tool knows no such file
            return printed
        return benchmark_tool.agree(printed, benchmark_tool.parse_result_proto(data))

    def _profile(self) -> Sequence[OperatorTime]:
        # CSV has more digits, but an app may not write where we can read.
        csv = self.tool is Tool.CLASSIC and self.target.writes_files
        result, text = self._run(runs=PROFILED_RUNS, profile="csv" if csv else "text")
        if result.dropped_profile_events:
            raise TargetError(f"{self.target.name}: the tool's profile lacks operators")
        if csv:
            return benchmark_tool.parse_profile_csv(self._read(f"{self.remote}.csv")).operators
        return benchmark_tool.parse_profile(text).operators

    def _read(self, remote: str) -> str:
        return self.target.ask(device_info.quote(["cat", remote])).replace("\r", "")


def _failure(output: Output) -> str:
    said = last_line(output.text)
    if output.code in (126, 127):
        return f"the tool cannot be run there ({said}): is it for this system and processor?"
    try:
        benchmark_tool.parse(output.text)
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
