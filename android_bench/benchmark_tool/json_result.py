"""Reads the JSON file of litert-benchmark."""

import json

from android_bench.benchmark_tool.result import ParseError, Tool, ToolResult


def parse_result_json(text: str) -> ToolResult:
    """Reads a file that `litert-benchmark --result_json` wrote, with times rounded to 0.01 ms.

    Raises:
      ParseError: The file is cut off, or a figure is missing.
    """
    try:
        report = json.loads(text)
        latency = report["latency"]
        warmup_runs = int(latency["num_warmup_runs"])
        return ToolResult(
            tool=Tool.LITERT_BENCHMARK,
            graph=report["model"],
            runs=int(latency["num_runs"]),
            avg_ms=float(latency["avg_ms"]),
            min_ms=float(latency["min_ms"]),
            max_ms=float(latency["max_ms"]),
            std_ms=float(latency["std_ms"]),
            median_ms=float(latency["median_ms"]),
            p5_ms=float(latency["p5_ms"]),
            p95_ms=float(latency["p95_ms"]),
            init_ms=float(latency["init_ms"]),
            first_ms=float(latency["warmup_first_ms"]) if warmup_runs else None,
            warmup_runs=warmup_runs,
            warmup_ms=float(latency["warmup_avg_ms"]) if warmup_runs else None,
            model_size_mb=float(report["model_size_mb"]) * 2**20 / 1e6,
            accelerators=tuple(report["accelerators"]),
            fully_accelerated=bool(report["fully_accelerated"]),
        )
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ParseError(
            f"the JSON of litert-benchmark is cut off or lacks a figure: {error!r:.200}"
        ) from error
