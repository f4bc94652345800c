"""Flags and output of the benchmark tools: functions of text and bytes that start no process.

Three tools are supported: TFLite's `benchmark_model` ("classic"), LiteRT's tool of the same name,
which runs a CompiledModel, and `litert-benchmark` of the ai-edge-litert package.

A reader ignores the lines and fields that it does not need.  A figure that it needs and does not
find, or finds twice with different values, is a ParseError, and so is a run that failed.
"""

from android_bench.benchmark_tool.command import DELEGATES, StartOptions, check_delegate, flags
from android_bench.benchmark_tool.delegation import (
    Delegation,
    ParseError,
    combine,
    in_use,
    of_profile,
)
from android_bench.benchmark_tool.json_result import parse_result_json
from android_bench.benchmark_tool.profile import parse_profile
from android_bench.benchmark_tool.protos import (
    parse_profile_proto,
    parse_result_proto,
    parse_runtime_info_proto,
)
from android_bench.benchmark_tool.result import Tool, ToolResult, merge
from android_bench.benchmark_tool.stdout_parser import failure, parse

__all__ = [
    "DELEGATES",
    "Delegation",
    "ParseError",
    "StartOptions",
    "Tool",
    "ToolResult",
    "check_delegate",
    "combine",
    "failure",
    "flags",
    "in_use",
    "merge",
    "of_profile",
    "parse",
    "parse_profile",
    "parse_profile_proto",
    "parse_result_json",
    "parse_result_proto",
    "parse_runtime_info_proto",
]
