"""Reads the operator profile that the benchmark tools print."""

import itertools
import re
from collections import Counter
from collections.abc import Sequence

from android_bench.benchmark_tool import log_lines
from android_bench.benchmark_tool.delegation import ParseError
from android_bench.benchmark_tool.stdout_parser import BANNER, statistics
from android_bench.measurement import OperatorTime

REGULAR = "Operator-wise Profiling Info for Regular Benchmark Runs:"
TITLE = re.compile(r"={3,} ([A-Z][\w ]+) ={3,}")
TIMINGS = "Timings (microseconds): "
_GAP, _NUMBER = r"\s{1,99}", r"[0-9]{1,12}\.[0-9]{3}"
_SHARES = rf"(?P<percent>{_NUMBER}|-?nan|inf)%{_GAP}(?P<cdf>{_NUMBER}|-?nan|inf)%"
# After the type: start (up to TF 2.8, CompiledModel), first, average ms, %, cdf %, mem KB, calls.
ROW = re.compile(
    rf"{_GAP}(?:{_NUMBER}{_GAP})?{_NUMBER}{_GAP}(?P<ms>{_NUMBER}){_GAP}{_SHARES}{_GAP}{_NUMBER}"
    rf"{_GAP}(?P<calls>[0-9]{{1,15}}){_GAP}(?P<name>.+)"
)
# After the type: its number of rows, average ms, %, cdf %, mem KB, calls.
SUMMARY = re.compile(
    rf"{_GAP}[0-9]+{_GAP}{_NUMBER}{_GAP}{_SHARES}{_GAP}{_NUMBER}{_GAP}(?P<calls>[0-9]{{1,15}})$"
)
_MISSING = "profile: expected the tables of the regular runs, got none or a part"


def parse_profile(text: str) -> tuple[OperatorTime, ...]:
    """Reads the tables that `--enable_op_profiling` or `--use_profiler` adds to the output.

    Operators of one type and name in several partitions share a row.

    Args:
      text: All of the output.

    Raises:
      ParseError: The tables are missing, cut off, or contradict each other.
    """
    lines = [line.text for line in log_lines.split(text)]
    compiled = BANNER in lines  # its tool has no titles, and no profile of the initialization
    if not compiled and lines.count(REGULAR) != 1:
        raise ParseError(_MISSING)
    tables = lines if compiled else lines[lines.index(REGULAR) :]
    rows = _rows(_section(tables, "Run Order"))
    timings = next((line.removeprefix(TIMINGS) for line in tables if line.startswith(TIMINGS)), "")
    total = statistics(timings)
    # The CompiledModel tool sums over all runs, those of the warm-up too.
    runs = sum(one.count for line in lines if (one := statistics(line))) if compiled else 1
    if not rows or total is None or not runs or any(int(row["calls"]) % runs for _, row, _ in rows):
        raise ParseError(f"profile: expected the time and calls of {runs} runs: {timings!r:.200}")
    _check(rows, total.avg / 1000, _section(tables, "Summary by node type"))
    return tuple(
        OperatorTime(
            name,
            type_,
            # The share has more digits than the time, which is rounded to microseconds.
            float(row["percent"]) / 100 * total.avg / 1000 / runs if total.avg else 0.0,
            int(row["calls"]) // runs,
            is_delegated(name, type_),
        )
        for type_, row, name in rows
    )


def is_delegated(name: str, type_: str) -> bool | None:
    """Whether a delegate ran an operator; None if its name and type do not show that."""
    if name.startswith(("Delegate/", "[Delegate]")) or "delegate" in type_.lower():
        return None if type_ == "ModifyGraphWithDelegate" else True
    if re.fullmatch(r"\[.*\](?::[0-9]+)?", name, re.DOTALL):  # interpreter: outputs and the node
        return False
    return None


_Row = tuple[str, re.Match[str], str]  # type, figures, name


def _rows(lines: Sequence[str]) -> list[_Row]:
    rows: list[_Row] = []
    for line in lines[1:]:  # behind the heading
        if match := ROW.search(line):
            rows.append((line[: match.start()], match, match["name"]))
        elif rows:  # the name of a tensor has a line break
            type_, match, name = rows[-1]
            rows[-1] = (type_, match, f"{name}\n{line}")
    return rows


def _check(rows: Sequence[_Row], total_ms: float, summary: Sequence[str]) -> None:
    """Raises ParseError if times, shares or types do not fit each other."""
    calls: Counter[str] = Counter()
    ms = cdf = 0.0
    for type_, row, _ in rows:
        calls[type_] += int(row["calls"])
        ms += float(row["ms"]) * int(row["calls"])
        if abs(cdf + float(row["percent"]) - float(row["cdf"])) > 0.0016:
            raise ParseError("profile: the shares of the operators contradict each other")
        cdf = float(row["cdf"])
    if abs(ms - total_ms) > 0.0005 * (calls.total() + 1) + 1e-5 * total_ms:
        raise ParseError(f"profile: the operators take {ms:g} ms, and all of them {total_ms:g} ms")
    types = ((SUMMARY.search(line), line) for line in summary)
    if {line[: one.start()]: int(one["calls"]) for one, line in types if one} != calls:
        raise ParseError("profile: the operators are not those of the summary by type")


def _section(lines: Sequence[str], title: str) -> Sequence[str]:
    starts = [index for index, line in enumerate(lines) if TITLE.fullmatch(line)]
    for index, end in itertools.pairwise([*starts, len(lines)]):
        if title in lines[index]:
            return lines[index + 1 : end]
    raise ParseError(_MISSING)
