"""Reads the JSON file of litert-benchmark."""

import json
from typing import Any

from android_bench.benchmark_tool.delegation import Delegation, ParseError
from android_bench.benchmark_tool.result import Tool, ToolResult

_TIMES = ("avg_ms", "min_ms", "max_ms", "median_ms", "p5_ms", "p95_ms", "init_ms")


def parse_result_json(text: str) -> ToolResult:
    """Reads a file that `litert-benchmark --result_json` wrote, with times rounded to 0.01 ms.

    Raises:
      ParseError: The file is cut off, or a figure is missing.
    """
    try:
        report = json.loads(text)
        latency = report["latency"]
        first = float(latency["warmup_first_ms"]) if int(latency["num_warmup_runs"]) else None
        permitted = tuple(str(name).lower() for name in report["accelerators"])
        whole = report["fully_accelerated"] is True
        times: dict[str, Any] = {name: float(latency[name]) for name in _TIMES}
        runs = int(float(latency["num_runs"]))  # an integer of any size overflows here
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ParseError(
            f"the JSON of litert-benchmark is cut off or lacks a figure: {error!r:.200}"
        ) from error
    delegate = "xnnpack" if permitted == ("cpu",) else permitted[0] if len(permitted) == 1 else None
    # Of a model that is not fully accelerated, an accelerator may have taken a part or nothing.
    taken = {delegate: None} if delegate and (whole or delegate != "xnnpack") else {}
    delegation = Delegation("its JSON", taken, {} if whole else None)
    return ToolResult(
        Tool.LITERT_BENCHMARK, runs, **times, first_ms=first, delegations=(delegation,)
    )
