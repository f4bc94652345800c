"""Reads the operator profiles that the benchmark tools print or write as CSV."""

import math
import re
from collections.abc import Sequence

from android_bench.benchmark_tool import log_lines
from android_bench.benchmark_tool.result import ParseError
from android_bench.benchmark_tool.stdout_parser import statistics
from android_bench.measurement import OperatorTime

INITIALIZATION = "Profiling Info for Benchmark Initialization:"
REGULAR = "Operator-wise Profiling Info for Regular Benchmark Runs:"
RUN_ORDER, TOP = re.compile(r"=+ Run Order =+"), re.compile(r"=+ Top by Computation Time =+")
EXECUTED = re.compile(r"Number of nodes executed: ([0-9]{1,9})")
TIMINGS = re.compile(r"Timings \(microseconds\): (.*)")
LITERT_NAME = re.compile(r"\[(Builtin|Delegate|Unknown)\]:[0-9]+")  # CompiledModel: no tensor names


def _row(number: str, gap: str) -> re.Pattern[str]:
    """Columns: type, start (up to TF 2.8), first, average ms, %, cdf %, mem KB, calls, name."""
    return re.compile(
        rf"(?P<type>.*?\S){gap}(?:{number}{gap})?{number}{gap}(?P<ms>{number}){gap}"
        rf"(?P<percent>{number}|-?nan|inf)%{gap}[^ ]+%{gap}{number}{gap}"
        rf"(?P<calls>[0-9]{{1,15}}){gap}(?P<name>.+)"
    )


TEXT_ROW = _row(r"[0-9]{1,12}\.[0-9]{3}", r"\s+")
# Not a CSV for a CSV reader: types hold commas and are not quoted.
CSV_ROW = _row(r"[0-9]{1,15}(?:\.[0-9]{1,12})?(?:e[+-][0-9]{2})?", ", ")


def parse_profile(text: str) -> tuple[OperatorTime, ...]:
    """Reads the tables that `--enable_op_profiling` or `--use_profiler` adds to the output.

    Args:
      text: All of the output.

    Raises:
      ParseError: The tables are missing or cut off.
    """
    return _parse(text, TEXT_ROW)


def parse_profile_csv(text: str) -> tuple[OperatorTime, ...]:
    """Reads the file of `--profiling_output_csv_file` or `--op_profiling_output_mode=csv`.

    Raises:
      ParseError: The tables are missing or cut off.
    """
    return _parse(text, CSV_ROW)


def is_delegated(name: str, type_: str) -> bool | None:
    """Whether a delegate ran an operator; None if its name and type do not show that."""
    if name.startswith(("Delegate/", "[Delegate]")) or "delegate" in type_.lower():
        return None if type_ == "ModifyGraphWithDelegate" else True
    if re.fullmatch(r"\[.*\](?::[0-9]+)?", name):  # the interpreter's: output tensors and the node
        return False
    return None


def _parse(text: str, row: re.Pattern[str]) -> tuple[OperatorTime, ...]:
    """Reads the first table of operators of the regular runs: that of the primary graph."""
    lines = [line.text for line in log_lines.split(text)]
    if INITIALIZATION in lines or REGULAR in lines:  # the CompiledModel tool has no titles
        lines = lines[_index(lines, re.compile(re.escape(REGULAR)), 0) :]
    start = _index(lines, RUN_ORDER, 0)
    end = _index(lines, TOP, start)
    rows = [match for line in lines[start:end] if (match := row.fullmatch(line))]
    executed = EXECUTED.fullmatch(lines[_index(lines, EXECUTED, end)])
    timings = TIMINGS.fullmatch(lines[_index(lines, TIMINGS, end)])
    assert executed
    assert timings
    if not rows or len(rows) != int(executed[1]):
        raise ParseError(
            f"profile: expected {executed[1]} operators, got {len(rows)} rows: it is cut off"
        )
    if row is TEXT_ROW and all(LITERT_NAME.fullmatch(match["name"]) for match in rows):
        return _of_all_runs(rows, lines)
    total = statistics(timings[1])
    if total is None:
        raise ParseError(f"profile: expected the statistics of the runs, got {timings[1][:120]!r}")
    # The oldest tools profile the first run, and divide shares and calls by all runs.
    rows_ms = math.fsum(float(match["ms"]) for match in rows)
    if all(match["calls"] == "0" for match in rows) and (
        abs(rows_ms - total.first / 1000) <= 0.0005 * (len(rows) + 1)
    ):
        return tuple(_operator(match, float(match["ms"]), 1, row) for match in rows)
    return tuple(
        _operator(match, _inference_ms(match, total.avg / 1000, row), int(match["calls"]), row)
        for match in rows
    )


def _index(lines: Sequence[str], pattern: re.Pattern[str], start: int) -> int:
    for index in range(start, len(lines)):
        if pattern.fullmatch(lines[index]):
            return index
    raise ParseError("profile: expected the tables of the regular runs, got none or a part")


def _inference_ms(match: re.Match[str], total_ms: float, row: re.Pattern[str]) -> float:
    """A row has the time of one call; operators of one name in several partitions share a row."""
    call_ms, calls, percent = float(match["ms"]), int(match["calls"]), float(match["percent"])
    ms, share_ms = call_ms * calls, percent / 100 * total_ms
    # Calls are rounded down if some runs leave an operator out; the share is exact then.
    step = 0.0005 if row is TEXT_ROW else call_ms * 5e-6
    exact = abs(ms - share_ms) <= step * calls + 1e-5 * total_ms + 1e-9
    return ms if exact or not math.isfinite(percent) else share_ms


def _operator(match: re.Match[str], ms: float, calls: int, row: re.Pattern[str]) -> OperatorTime:
    name = match["name"].replace("\t", ",") if row is CSV_ROW else match["name"]  # tool's escape
    return OperatorTime(name, match["type"], ms, calls, is_delegated(name, match["type"]))


def _of_all_runs(rows: Sequence[re.Match[str]], lines: Sequence[str]) -> tuple[OperatorTime, ...]:
    """The CompiledModel tool sums over the warm-up and the timed runs."""
    runs = sum(phase.count for phase in map(statistics, lines) if phase is not None)
    operators = []
    for match in rows:
        calls = int(match["calls"])
        if runs == 0 or calls % runs:
            raise ParseError(f"profile: expected a multiple of {runs} runs, got {calls} calls")
        operators.append(
            _operator(match, float(match["ms"]) * calls / runs, calls // runs, TEXT_ROW)
        )
    return tuple(operators)
