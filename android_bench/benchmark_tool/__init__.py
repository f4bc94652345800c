"""Flags and output of the benchmark tools: functions of text and bytes; nothing is run here.

Three tools are known: TFLite's `benchmark_model` ("classic"), LiteRT's tool of the same name, which
runs a CompiledModel, and `litert-benchmark` of the ai-edge-litert package.
"""

from android_bench.benchmark_tool.command import flags
from android_bench.benchmark_tool.json_result import parse_result_json
from android_bench.benchmark_tool.profile import Profile, parse_profile, parse_profile_csv
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
    Result,
    Tool,
    agree,
    check_delegate,
)
from android_bench.benchmark_tool.stdout_parser import parse

__all__ = [
    "Delegate",
    "ParseError",
    "Profile",
    "Replacement",
    "Result",
    "RuntimeInfo",
    "Tool",
    "agree",
    "check_delegate",
    "flags",
    "parse",
    "parse_profile",
    "parse_profile_csv",
    "parse_profile_proto",
    "parse_result_json",
    "parse_result_proto",
    "parse_runtime_info_proto",
]
