"""Flags and output of the benchmark tools: functions of text and bytes that start no process.

Three tools are supported: TFLite's `benchmark_model` ("classic"), LiteRT's tool of the same name,
which runs a CompiledModel, and `litert-benchmark` of the ai-edge-litert package.

A reader ignores the lines and fields that it does not need.  A figure that it needs and does not
find is a ParseError, and so is a run that the tool reports as failed.
"""

from android_bench.benchmark_tool.command import StartOptions, flags
from android_bench.benchmark_tool.json_result import parse_result_json
from android_bench.benchmark_tool.profile import parse_profile, parse_profile_csv
from android_bench.benchmark_tool.protos import (
    RuntimeInfo,
    parse_profile_proto,
    parse_result_proto,
    parse_runtime_info_proto,
)
from android_bench.benchmark_tool.result import (
    Delegate,
    ParseError,
    Replacement,
    Tool,
    ToolResult,
    check_delegate,
    merge,
)
from android_bench.benchmark_tool.stdout_parser import parse

__all__ = [
    "Delegate",
    "ParseError",
    "Replacement",
    "RuntimeInfo",
    "StartOptions",
    "Tool",
    "ToolResult",
    "check_delegate",
    "flags",
    "merge",
    "parse",
    "parse_profile",
    "parse_profile_csv",
    "parse_profile_proto",
    "parse_result_json",
    "parse_result_proto",
    "parse_runtime_info_proto",
]
