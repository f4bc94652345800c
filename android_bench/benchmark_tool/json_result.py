"""Reads the JSON file of litert-benchmark."""

import json
import math
from typing import Any

from android_bench.benchmark_tool.result import ParseError, Result, Tool

HALF = 0.005 + 1e-9  # the file's times are rounded to 0.01 ms


def parse_result_json(text: str) -> Result:
    """Reads what `litert-benchmark --result_json` wrote; times are rounded to 0.01 ms there.

    Raises:
      ParseError: The file is cut off or contradicts itself.
    """
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ParseError(f"the JSON of litert-benchmark is cut off or damaged: {error}") from error
    latency = _field(whole, "latency", dict)
    runs, warmup_runs = _field(latency, "num_runs", int), _field(latency, "num_warmup_runs", int)
    names = (
        "avg",
        "min",
        "max",
        "std",
        "median",
        "p5",
        "p95",
        "init",
        "warmup_first",
        "warmup_avg",
    )
    ms = {name: _number(latency, f"{name}_ms") for name in names}
    accelerators = _field(whole, "accelerators", list)
    if not all(isinstance(name, str) for name in accelerators):
        raise ParseError("the JSON of litert-benchmark has accelerators that are no names")
    if runs < 1:
        raise ParseError("litert-benchmark timed no inference")
    in_order = [ms[name] for name in ("min", "p5", "median", "p95", "max")]
    if in_order != sorted(in_order):
        raise ParseError(f"litert-benchmark's percentiles are out of order: {in_order}")
    least = (ms["min"] * (runs - 1) + ms["max"]) / runs - 2 * HALF
    most = (ms["max"] * (runs - 1) + ms["min"]) / runs + 2 * HALF
    if not least <= ms["avg"] <= most:
        raise ParseError(f"an average of {ms['avg']} ms is not in {ms['min']} to {ms['max']}")
    spread = ms["max"] - ms["min"] + 2 * HALF
    # Of a sample: at most all values lie at the two ends, at least all but two in the middle.
    most_std = spread / 2 * math.sqrt(runs / max(runs - 1, 1)) + HALF
    least_std = (spread - 4 * HALF) / math.sqrt(2 * max(runs - 1, 1)) - HALF
    if not least_std <= ms["std"] <= most_std:
        raise ParseError(f"a deviation of {ms['std']} ms is not that of {runs} in {spread:.2f} ms")
    warm = warmup_runs > 0
    if warm and ms["warmup_first"] > ms["warmup_avg"] * warmup_runs + HALF * (warmup_runs + 1):
        raise ParseError("litert-benchmark's first inference took longer than its whole warm-up")
    if warmup_runs == 1 and ms["warmup_first"] != ms["warmup_avg"]:
        raise ParseError("litert-benchmark's one warm-up has two times")
    return Result(
        tool=Tool.LITERT_BENCHMARK,
        graph=_field(whole, "model", str),
        runs=runs,
        avg_ms=ms["avg"],
        min_ms=ms["min"],
        max_ms=ms["max"],
        std_ms=ms["std"],
        median_ms=ms["median"],
        p5_ms=ms["p5"],
        p95_ms=ms["p95"],
        init_ms=ms["init"],
        first_ms=ms["warmup_first"] if warm else None,
        warmup_runs=warmup_runs,
        warmup_ms=ms["warmup_avg"] if warm else None,
        model_size_mb=_number(whole, "model_size_mb") * 2**20 / 1e6,
        accelerators=tuple(accelerators),
        fully_accelerated=_field(whole, "fully_accelerated", bool),
    )


def _field(mapping: Any, name: str, kind: type) -> Any:
    value = mapping.get(name) if isinstance(mapping, dict) else None
    is_number = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1e12
    if not isinstance(value, kind) or (kind is int and not is_number):
        raise ParseError(f"the JSON of litert-benchmark lacks {name!r}, or it is {value!r:.40}")
    return value


def _number(mapping: Any, name: str) -> float:
    value = mapping.get(name) if isinstance(mapping, dict) else None
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e12:
        return float(value)
    raise ParseError(f"the JSON of litert-benchmark lacks {name!r}, or it is {value!r:.40}")
