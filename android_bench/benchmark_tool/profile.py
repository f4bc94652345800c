"""Reads the operator profiles that the benchmark tools print or write as CSV."""

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from android_bench.benchmark_tool.log_prefixes import SEVERITY, strip, unwrap
from android_bench.benchmark_tool.result import ParseError
from android_bench.benchmark_tool.stat_line import STATISTICS, Statistics, rounding, statistics
from android_bench.measurement import OperatorTime

INITIALIZATION = "Profiling Info for Benchmark Initialization:"
REGULAR = "Operator-wise Profiling Info for Regular Benchmark Runs:"
RULE = re.compile(r"=+ (\w[\w ]*\w) =+")
RUN_ORDER, TOP, SUMMARY = "Run Order", "Top by Computation Time", "Summary by node type"
DELEGATE_STATISTICS = "Delegate Statistics"
PRIMARY = re.compile(r"Primary graph.* profile:")
SUBGRAPH = re.compile(r"Subgraph \((.*)\) profile:")
INTERNAL = "Delegate internal:"
EXECUTED = re.compile(r"Number of nodes executed: ([0-9]{1,9})")
TIMINGS = re.compile(r"(?:Subgraph \(.*\) )?Timings \(microseconds\): (.*)")
OBSERVED = re.compile(r"([0-9]{1,9}) nodes observed")
DROPPED = "Dropping ProfileBuffer event"

# LiteRT's CompiledModel tool has no names of tensors.
LITERT_NAME = re.compile(r"\[(Builtin|Delegate|Unknown)\]:[0-9]+")

FIXED = r"([0-9]{1,12}\.[0-9]{3})"
PERCENT = r"([0-9]{1,12}\.[0-9]{3}|-?nan|inf)%"
COUNT = r"([0-9]{1,15})"
GENERAL = r"([0-9]{1,15}(?:\.[0-9]{1,12})?(?:e[+-][0-9]{2})?)"
CSV_PERCENT = r"([0-9]{1,15}(?:\.[0-9]{1,12})?(?:e[+-][0-9]{2})?|-?nan|inf)%"


def _row(*columns: str, gap: str, kind: str) -> re.Pattern[str]:
    return re.compile(rf"\s*({kind}\S)" + "".join(gap + column for column in columns))


# A type may end in a number, so whether there is a column of starts is told by the heading alone.
_ROW = (FIXED, FIXED, PERCENT, PERCENT, FIXED, COUNT, r"(\S.*?)\s*")
TEXT_ROWS = {
    False: _row(*_ROW, gap=r"\s+", kind=".*?"),
    True: _row(FIXED, *_ROW, gap=r"\s+", kind=".*?"),
}
TEXT_SUMMARY = _row(COUNT, FIXED, PERCENT, PERCENT, FIXED, COUNT + r"\s*", gap=r"\s+", kind=".*")
_CSV_ROW = (GENERAL, GENERAL, CSV_PERCENT, CSV_PERCENT, GENERAL, COUNT, r"(\S.*?)\s*")
CSV_ROWS = {
    False: _row(*_CSV_ROW, gap=r", ", kind=".*"),
    True: _row(GENERAL, *_CSV_ROW, gap=r", ", kind=".*"),
}
CSV_SUMMARY = _row(
    COUNT, GENERAL, CSV_PERCENT, CSV_PERCENT, GENERAL, COUNT + r"\s*", gap=r", ", kind=".*"
)


@dataclass(frozen=True)
class Profile:
    """Times of the operators; those of `operators` add up to `total_ms` an inference."""

    operators: Sequence[OperatorTime]  # of the primary graph in the regular runs
    initialization: Sequence[OperatorTime]
    subgraphs: Mapping[str, Sequence[OperatorTime]]  # spent within operators, as WHILE
    delegate_internals: Sequence[OperatorTime]  # spent within operators that are delegates
    total_ms: float


@dataclass(frozen=True)
class _Row:
    type: str
    first: str
    avg_ms: float
    percent: float  # nan: not told
    cdf: float
    calls: int  # of an inference, cut to a whole number; LiteRT's tool: of all runs
    name: str


@dataclass
class _Part:
    """Tables of one graph in one section."""

    section: str
    graph: str  # "": the primary one
    csv: bool
    rows: list[_Row] = field(default_factory=list)
    top: list[_Row] = field(default_factory=list)
    summary: list[tuple[str, int, float, int]] = field(default_factory=list)
    executed: int | None = None
    timings: str | None = None
    observed: int | None = None


def parse_profile(text: str, *, runs: int | None = None) -> Profile:
    """Reads the tables that `--enable_op_profiling` or `--use_profiler` adds to the output.

    Args:
      text: All of the output, or from the first table on, with its last newline.
      runs: How often the model ran, warm-up and timed, where `text` lacks its lines of statistics:
        only for LiteRT's CompiledModel tool, which tells sums over all runs.

    Raises:
      ParseError: The tables are cut off, lack operators or contradict themselves.
    """
    return _parse(text, csv=False, runs=runs)


def parse_profile_csv(text: str) -> Profile:
    """Reads the file of `--profiling_output_csv_file` or `--op_profiling_output_mode=csv`.

    Raises:
      ParseError: The tables are cut off or contradict themselves.
    """
    return _parse(text, csv=True, runs=None)


def is_delegated(name: str, type_: str) -> bool | None:
    """Whether a delegate ran an operator; None where its name and type do not tell."""
    if name.startswith(("Delegate/", "[Delegate]")) or "delegate" in type_.lower():
        return None if type_ == "ModifyGraphWithDelegate" else True
    if re.fullmatch(r"\[.*\](?::[0-9]+)?", name):  # the interpreter's own: tensors and the node
        return False
    return None


def _parse(text: str, *, csv: bool, runs: int | None) -> Profile:
    try:
        parts, counts = _read(text, csv=csv)
        runs = sum(counts) if len(counts) == 2 else runs
        initial = [part for part in parts if part.section == INITIALIZATION]
        regular = [part for part in parts if part.section == REGULAR]
        primary = [part for part in regular if not part.graph]
        if len(primary) != 1:
            raise ParseError(f"expected one profile of regular runs, found {len(primary)}")
        operators, total_ms = _operators(primary[0], runs)
        others = {part.graph: _operators(part, runs)[0] for part in regular if part.graph}
        return Profile(
            operators=operators,
            initialization=tuple(row for part in initial for row in _operators(part, runs)[0]),
            subgraphs={name: rows for name, rows in others.items() if name != INTERNAL},
            delegate_internals=others.get(INTERNAL, ()),
            total_ms=total_ms,
        )
    except ParseError as error:
        raise ParseError(" ".join(f"profile: {error}".split())[:500]) from None


def _read(text: str, *, csv: bool) -> tuple[list[_Part], list[int]]:
    """Splits the text into parts; and the counts of the tool's own lines of statistics."""
    processes = unwrap(text)
    if len(processes) != 1:
        raise ParseError(f"expected one run, found {len(processes)}")
    parts: list[_Part] = []
    counts: list[int] = []
    section, table, has_start = REGULAR, "", False
    for raw in processes[0]:
        line = strip(raw).text
        part = parts[-1] if parts and parts[-1].observed is None else None
        title = RULE.fullmatch(line)
        if DROPPED in line:
            raise ParseError("the tool's buffer was too small, so that operators are missing")
        if line in (INITIALIZATION, REGULAR):
            if part is not None or line in [one.section for one in parts]:
                raise ParseError("a section begins before the last one's end")
            section = line
            parts.append(_Part(section, "", csv))
        elif PRIMARY.fullmatch(line) or SUBGRAPH.fullmatch(line) or line == INTERNAL:
            if part is not None and (part.rows or part.graph):
                raise ParseError("a graph begins before the last one's end")
            inner = SUBGRAPH.fullmatch(line)
            if inner or line == INTERNAL:
                parts.append(_Part(section, inner[1] if inner else INTERNAL, csv))
        elif title and title[1] in (RUN_ORDER, TOP, SUMMARY, DELEGATE_STATISTICS):
            table = title[1]
            if table == RUN_ORDER and part is None:
                parts.append(_Part(section, "", csv))
            elif table != DELEGATE_STATISTICS and (part is None or _filled(part, table)):
                raise ParseError(f"the table {table!r} is out of place")
        elif line.startswith("Delegate Statistics:"):
            table = DELEGATE_STATISTICS
        elif STATISTICS.fullmatch(line):
            counts.append(statistics(line).count)
        elif not line:
            table = table if table == DELEGATE_STATISTICS else ""
        elif part is None or SEVERITY.match(raw.strip()):
            continue  # the tool's and the runtime's other lines, which may come between rows
        elif found := EXECUTED.fullmatch(line):
            part.executed, table = int(found[1]), ""
        elif found := TIMINGS.fullmatch(line):
            part.timings, table = found[1], ""
        elif found := OBSERVED.fullmatch(line):
            part.observed, table = int(found[1]), ""
        elif table in (RUN_ORDER, TOP) and re.match(r"\[node type\]|node type, ", line):
            has_start = "[start]" in line or ", start," in line
        elif table in (RUN_ORDER, TOP):
            rows = part.rows if table == RUN_ORDER else part.top
            rows.append(_read_row(raw, (CSV_ROWS if csv else TEXT_ROWS)[has_start], csv))
        elif table == SUMMARY and not re.match(r"\[Node type\]|node type, ", line):
            part.summary.append(_read_summary(raw, CSV_SUMMARY if csv else TEXT_SUMMARY))
        elif not table and not line.startswith("Memory (bytes): "):
            raise ParseError(f"a line is cut off or damaged: {line[:120]!r}")
    return parts, counts


def _filled(part: _Part, table: str) -> bool:
    return bool({RUN_ORDER: part.rows, TOP: part.top, SUMMARY: part.summary}[table])


def _read_row(line: str, shape: re.Pattern[str], csv: bool) -> _Row:
    found = shape.fullmatch(line)
    if not found:
        raise ParseError(f"expected a row of operators, got {line.strip()[:120]!r}")
    type_, *_, first, avg, percent, cdf, _memory, calls, name = found.groups()
    if re.search(r"[\s,][0-9.e+-]*[0-9]\.[0-9][0-9.e+-]*$", type_):
        raise ParseError(f"a row has a column more than its heading: {line.strip()[:120]!r}")
    if csv:
        name = name.replace("\t", ",")  # the tool's escape
    return _Row(type_, first, float(avg), float(percent), float(cdf), int(calls), name)


def _read_summary(line: str, shape: re.Pattern[str]) -> tuple[str, int, float, int]:
    found = shape.fullmatch(line)
    if not found:
        raise ParseError(f"expected a row of types, got {line.strip()[:120]!r}")
    return found[1], int(found[2]), float(found[3]), int(found[7])


def _operators(part: _Part, runs: int | None) -> tuple[tuple[OperatorTime, ...], float]:
    """The rows as times per inference, and their sum, in ms."""
    rows = part.rows
    if part.timings is None or part.observed is None or part.executed is None:
        raise ParseError("the tables are cut off")
    if not rows or {part.executed, part.observed} != {len(rows)}:
        raise ParseError(
            f"{len(rows)} rows, but {part.executed} nodes executed and {part.observed} observed"
        )
    if not _is_litert(part) and len({row.name for row in rows}) < len(rows):
        raise ParseError("a row is there twice")
    times = statistics_of_total(part.timings)
    if _is_litert(part):
        return _litert(part, times, runs)
    _check_top(part, len(rows) if len(rows) < 10 else 10)
    total_ms = times.avg / 1000
    single = _is_one_run(part, times)
    _check_shares(part, whole=not single, timed=times.avg > 0)
    if single:
        total_ms = math.fsum(row.avg_ms for row in rows)
    found = []
    for row in rows:
        ms = row.avg_ms if single else _per_inference(row, part, times)
        calls = 1 if single else row.calls
        found.append(OperatorTime(row.name, row.type, ms, calls, is_delegated(row.name, row.type)))
    if not single:
        _check_summary(part, found)
    return tuple(found), total_ms


def statistics_of_total(text: str) -> Statistics:
    """Reads the statistics behind "Timings"."""
    found = STATISTICS.fullmatch(text.strip())
    # LiteRT's tool gives the number of nodes as the count, without "(all same)".
    if found and found[2] and not found[3] and int(found[1]) > 1:
        value = int(found[2])
        return Statistics(int(found[1]), value, value, value, value, value, 0.0, 0, None)
    return statistics(text.strip())


def _is_litert(part: _Part) -> bool:
    return not part.csv and all(LITERT_NAME.fullmatch(row.name) for row in part.rows)


def _check_top(part: _Part, length: int) -> None:
    """The slowest operators are told a second time."""

    def values(row: _Row) -> tuple[object, ...]:
        return (row.type, row.first, row.avg_ms, f"{row.percent}", row.calls, row.name)

    known = {values(row) for row in part.rows}
    if len(part.top) != length or not all(values(row) in known for row in part.top):
        raise ParseError(f"the {length} slowest operators are told in two ways")


def _step(part: _Part, value: float) -> float:
    """Half a unit of the last digit of a printed number."""
    return (rounding(value) if part.csv else 0.0005) + 1e-9


def _check_shares(part: _Part, *, whole: bool, timed: bool) -> None:
    """Each share is the growth of the sum of shares, which ends at 100 %."""
    if not all(math.isfinite(row.percent) for row in part.rows):
        if timed:
            raise ParseError("shares are no numbers")
        return
    before, slack = 0.0, 0.0
    for row in part.rows:
        now = _step(part, row.cdf) + row.cdf * 3e-7  # the tool adds in float32
        if not abs(before + row.percent - row.cdf) <= slack + now + _step(part, row.percent):
            raise ParseError(f"the shares do not add up at {row.name!r}: {row.cdf:g} %")
        before, slack = row.cdf, now
    if whole and abs(before - 100) > 0.01:
        raise ParseError(f"the shares add up to {before:g} %: rows are missing")


def _is_one_run(part: _Part, times: Statistics) -> bool:
    """Whether a very old tool timed the operators in its first run only."""
    total_ms = math.fsum(row.avg_ms for row in part.rows)
    slack = sum(_step(part, row.avg_ms) for row in part.rows) + 0.0005
    seen = all(row.calls == 0 for row in part.rows) and times.count > 1
    return seen and abs(total_ms - times.first / 1000) <= slack


def _per_inference(row: _Row, part: _Part, times: Statistics) -> float:
    """Time of all calls of an operator in an inference, in ms.

    Rows are of one call, and operators of one name in several partitions are one row.
    """
    step, total_ms = _step(part, row.avg_ms), times.avg / 1000
    if not math.isfinite(row.percent):
        return row.avg_ms * row.calls
    share_ms = row.percent / 100 * total_ms
    slack = _step(part, row.percent) / 100 * total_ms + share_ms * 6e-6 + 1e-9
    told_ms = row.avg_ms * row.calls
    if abs(told_ms - share_ms) <= step * row.calls + slack:
        return told_ms
    # The calls are cut to whole ones where some runs leave an operator out.
    most_ms = (row.avg_ms + step) * (row.calls + 1 - 1 / times.count)
    if told_ms - step * row.calls - slack <= share_ms <= most_ms + slack:
        return share_ms
    raise ParseError(
        f"{row.name!r}: {row.calls} calls of {row.avg_ms:g} ms are not {row.percent:g} % of"
        f" {total_ms:g} ms"
    )


def _check_summary(part: _Part, found: Sequence[OperatorTime]) -> None:
    rows, calls, ms, slack = (defaultdict[str, float](float) for _ in range(4))
    for row, operator in zip(part.rows, found, strict=True):
        rows[row.type] += 1
        calls[row.type] += row.calls
        ms[row.type] += operator.ms
        # Each is cut to whole us before they are added.
        slack[row.type] += 0.001 + _step(part, row.avg_ms) * max(row.calls, 1) + operator.ms * 1e-5
    if sorted(type_ for type_, *_ in part.summary) != sorted(rows):
        raise ParseError("the table of types has other types than the table of operators")
    for type_, count, summed_ms, called in part.summary:
        if (count, called) != (rows[type_], calls[type_]):
            raise ParseError(f"{type_}: {count} nodes in one table, {rows[type_]:g} in the other")
        far = abs(summed_ms - ms[type_]) - slack[type_] - _step(part, summed_ms)
        if far > _share_slack(part, ms):
            raise ParseError(f"{type_}: {summed_ms:g} ms in one table, {ms[type_]:g} in the other")


def _share_slack(part: _Part, ms: Mapping[str, float]) -> float:
    inexact = any(row.calls == 0 for row in part.rows)
    return 1e-5 * math.fsum(ms.values()) * len(part.rows) if inexact else 0.0


def _litert(
    part: _Part, times: Statistics, runs: int | None
) -> tuple[tuple[OperatorTime, ...], float]:
    """LiteRT's tool sums over all runs, with the warm-up, and tells no number of runs."""
    if runs is None or runs < 1:
        raise ParseError("it is of all runs, but the output does not tell how many these were")
    if times.count != len(part.rows) or len(part.top) != len(part.rows):
        raise ParseError(f"{len(part.rows)} rows, but {times.count} and {len(part.top)} told")
    _check_top(part, len(part.rows))
    _check_shares(part, whole=times.curr > 0, timed=times.curr > 0)
    summed_ms = times.curr / 1000
    found, told_ms, slack = [], 0.0, 0.0
    for row in part.rows:
        if row.calls < 1:
            raise ParseError(f"{row.name!r} was never called")
        all_ms, step = row.avg_ms * row.calls, 0.0005 * row.calls
        if abs(row.percent / 100 * summed_ms - all_ms) > step + 0.000006 * summed_ms + 1e-6:
            raise ParseError(f"{row.name!r}: {all_ms:g} ms are not {row.percent:g} % of all")
        if row.calls % runs:
            raise ParseError(f"{row.name!r} was called {row.calls} times in {runs} runs")
        told_ms, slack = told_ms + all_ms, slack + step
        delegated = is_delegated(row.name, row.type)
        found.append(OperatorTime(row.name, row.type, all_ms / runs, row.calls // runs, delegated))
    if abs(told_ms - summed_ms) > slack + 1e-6:
        raise ParseError(f"the rows add up to {told_ms:g} ms of {summed_ms:g}: some are missing")
    return tuple(found), summed_ms / runs
