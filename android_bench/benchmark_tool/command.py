"""Command lines of the benchmark tools."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from android_bench.benchmark_tool.result import Tool
from shufflelite.errors import InputError

DELEGATES: Mapping[Tool, Mapping[str, Sequence[str]]] = {  # flags by delegate
    Tool.CLASSIC: {
        "none": ["--use_xnnpack=false"],
        # Explicit: only so does the tool print the partitions, and tools built by CMake before
        # LiteRT 1.4 give XNNPACK no int8 operator otherwise.
        "xnnpack": ["--use_xnnpack=true"],
        "gpu": ["--use_gpu=true"],
        "nnapi": ["--use_nnapi=true", "--disable_nnapi_cpu=true"],  # nnapi-reference is a CPU too
    },
    Tool.COMPILED_MODEL: {
        "xnnpack": ["--use_cpu=true"],
        # Only both flags exclude the CPU; a model with unsupported operators is then refused.
        "gpu": ["--use_gpu=true", "--use_cpu=false", "--require_full_delegation=true"],
    },
    Tool.LITERT_BENCHMARK: {
        "xnnpack": [],
        "gpu": ["--use_gpu", "--require_full_delegation"],
    },
}


@dataclass(frozen=True)
class StartOptions:
    """Options of one start of a tool; paths are on the machine of the tool."""

    runs: int  # timed inferences, exactly
    warmup: int  # inferences before the timed ones; the first inference is one of them
    threads: int = 1  # of the CPU
    delegate: str | None = None  # "xnnpack", "gpu", "nnapi" or "none"; None: the tool's default
    profile: bool = False  # slows the model; the text goes to stdout
    profile_file: str | None = None  # for a proto in place of the text, where the tool can
    result_file: str | None = None  # statistics: a proto, from litert-benchmark JSON
    runtime_info_file: str | None = None  # operators by delegate, a proto
    peak_memory: bool = False  # monitors the peak memory, which disturbs the times


def check_delegate(tool: Tool, delegate: str | None) -> None:
    """Raises InputError if the tool does not have the delegate."""
    if delegate is not None and delegate not in DELEGATES[tool]:
        known = ", ".join(DELEGATES[tool])
        raise InputError(f"{tool.value} has no delegate {delegate!r}. It has {known}.")


def flags(tool: Tool, model: str, options: StartOptions) -> list[str]:
    """Returns the arguments of a tool, not quoted for a shell.

    A version that does not know a flag ignores it: check that the requested files exist, and look
    at `ToolResult.unconsumed`.

    Args:
      tool: The program.
      model: Path of the .tflite file.
      options: What to run; the delegate is one that `check_delegate` permits.
    """
    delegate_flags = DELEGATES[tool][options.delegate] if options.delegate else []
    counts = [
        f"--num_threads={options.threads}",
        f"--num_runs={options.runs}",
        f"--warmup_runs={options.warmup}",
    ]
    if tool is Tool.LITERT_BENCHMARK:
        result = [f"--result_json={options.result_file}"] if options.result_file else []
        return [f"--model={model}", *counts, *delegate_flags, *result]
    # With the tool's own minimum of seconds a fast model would run more often than requested.
    words = [f"--graph={model}", *counts, "--min_secs=0", *delegate_flags]
    if options.peak_memory:
        words.append("--report_peak_memory_footprint=true")
    if options.result_file:
        words.append(f"--result_file_path={options.result_file}")
    if tool is Tool.COMPILED_MODEL:
        return [*words, "--use_profiler=true"] if options.profile else words
    if options.runtime_info_file:
        words += [
            "--export_model_runtime_info=true",
            f"--model_runtime_info_output_file={options.runtime_info_file}",
        ]
    if options.profile:
        # 1024 events by default: a large network exceeds that and loses operators.
        words += ["--enable_op_profiling=true", "--max_profiling_buffer_entries=65536"]
    if options.profile and options.profile_file:
        words += [
            "--op_profiling_output_mode=proto",
            f"--op_profiling_output_file={options.profile_file}",
        ]
    return words
