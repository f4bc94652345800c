"""The table of a run for people."""

import math
from collections.abc import Sequence
from typing import TextIO

from android_bench.results import Row
from shufflelite import cli


def print_table(shown: Sequence[Row], *, file: TextIO) -> None:
    """A table for people."""
    columns = {
        "median ms": [milliseconds(row.median_ms) for row in shown],
        "p95 ms": [milliseconds(row.p95_ms) for row in shown],
        "first ms": [milliseconds(row.first_ms) for row in shown],
        "init ms": [milliseconds(row.init_ms) for row in shown],
        "M instr": [
            "-" if (by := row.instructions) is None else f"{sum(by.values()) / 1e6:.2f}"
            for row in shown
        ],
        "ratio": [f"{row.ratio:.3f}" for row in shown],
        "p5-p95": [f"{row.ratio_p5:.3f}-{row.ratio_p95:.3f}" for row in shown],
        "peak MB": [number(row.peak_memory_mb, 1) for row in shown],
        "size kB": [f"{row.size_bytes / 1000:.0f}" for row in shown],
        "ops": [str(sum(row.operators.values())) for row in shown],
        "parts": [number(row.delegate_partitions) for row in shown],
        "out": [
            "-" if (out := row.undelegated_operators) is None else str(sum(out.values()))
            for row in shown
        ],
    }
    columns = {name: cells for name, cells in columns.items() if set(cells) != {"-"}}
    names = [row.model for row in shown]
    cli.print_table(["model", *columns], zip(names, *columns.values(), strict=True), file=file)
    for note in dict.fromkeys(note for row in shown for note in row.notes):
        print(note, file=file)
    head = shown[0]
    delegates = " and ".join(dict.fromkeys(row.delegate for row in shown))
    print(
        f"{head.target}, {head.cpu}: {head.runtime} {head.runtime_version}, delegate {delegates},"
        f" threads {head.threads}, {head.rounds} rounds of {head.runs} runs. Read ratios: each is"
        f" to {head.ratio_to} within the same round, which the machine's noise reaches alike.",
        file=file,
    )


def milliseconds(value: float | None) -> str:
    """A time for people, with three significant digits at least."""
    if value is None:
        return "-"
    digits = 2 - math.floor(math.log10(value)) if value > 0 else 2
    return f"{value:.{max(0, digits)}f}"


def number(value: float | None, digits: int = 0) -> str:
    """A number for people, where there is one."""
    return "-" if value is None else f"{value:.{digits}f}"
