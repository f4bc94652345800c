"""Command lines of the benchmark tools."""

from typing import Literal

from android_bench.benchmark_tool.result import Tool
from shufflelite.errors import InputError

HANDLES = ("fd:", "pipe:", "buffer:")  # a path that begins so is no path for the tool

# By delegate; None: the tool has no such thing.
CLASSIC: dict[str | None, list[str] | None] = {
    None: [],
    "none": ["--use_xnnpack=false"],
    "xnnpack": ["--use_xnnpack=true"],  # asked for, so that the tool tells its partitions
    "gpu": ["--use_gpu=true"],
    "nnapi": ["--use_nnapi=true", "--disable_nnapi_cpu=true"],  # nnapi-reference is a CPU as well
}
COMPILED_MODEL: dict[str | None, list[str] | None] = {
    None: [],
    "none": None,
    "xnnpack": ["--use_cpu=true"],
    # Only both flags together keep the CPU out; then a model with other operators is refused.
    "gpu": ["--use_gpu=true", "--use_cpu=false", "--require_full_delegation=true"],
    "nnapi": None,
}
LITERT_BENCHMARK: dict[str | None, list[str] | None] = {
    None: [],
    "none": None,
    "xnnpack": [],
    "gpu": ["--use_gpu", "--require_full_delegation"],
    "nnapi": None,
}
DELEGATES = {
    Tool.CLASSIC: CLASSIC,
    Tool.COMPILED_MODEL: COMPILED_MODEL,
    Tool.LITERT_BENCHMARK: LITERT_BENCHMARK,
}


def flags(
    tool: Tool,
    model: str,
    *,
    runs: int,
    warmup: int,
    warmup_seconds: float | None = 0.0,
    threads: int = 1,
    delegate: str | None = None,
    profile: Literal["text", "csv", "proto"] | None = None,
    profile_file: str | None = None,
    result_file: str | None = None,
    runtime_info_file: str | None = None,
    peak_memory: bool = False,
    max_seconds: float | None = None,
) -> list[str]:
    """The tool's arguments, one string each; for no shell, which would need them quoted.

    A version that does not know a flag ignores it and goes on: see whether the files asked for
    exist, and give the result to `check_delegate`.

    Args:
      tool: The program.
      model: Path of the .tflite file, where the tool runs; so are all paths.
      runs: Timed inferences, no more and no fewer.
      warmup: Inferences before those; the first inference is the first of them.
      warmup_seconds: For at least that long; None: the tool's own half second.
      threads: Of the CPU.
      delegate: "xnnpack", "gpu", "nnapi" or "none"; None leaves it to the tool.
      profile: Times each operator, which slows the model down; "text" comes in the output.
      profile_file: Where "csv" and "proto" go.
      result_file: For the statistics as a proto; of litert-benchmark, as JSON.
      runtime_info_file: For the list of operators that each delegate took, as a proto.
      peak_memory: Watches the process's peak, which disturbs the times.
      max_seconds: After that no inference is begun; the tool's own limit is 150.

    Raises:
      InputError: The tool cannot do that.
    """
    for path in (model, profile_file, result_file, runtime_info_file):
        if path is not None and (not path or any(sign in path for sign in "\n\r\0")):
            raise InputError(f"expected a path in one line, got {path!r}")
    if runs < 1 or warmup < 0 or threads < 1:
        raise InputError(
            "expected runs and threads of 1 or more and warmup of 0 or more,"
            f" got {runs}, {threads} and {warmup}"
        )
    if (profile in ("csv", "proto")) != (profile_file is not None):
        raise InputError("a profile as csv or proto needs profile_file, and only they do")
    chosen = DELEGATES[tool].get(delegate)
    if chosen is None:
        known = [name for name, words in DELEGATES[tool].items() if name and words is not None]
        raise InputError(f"{tool.value} has no delegate {delegate!r}. It has {', '.join(known)}.")
    counts = [f"--num_threads={threads}", f"--num_runs={runs}", f"--warmup_runs={warmup}"]
    if tool is Tool.LITERT_BENCHMARK:
        if profile or runtime_info_file or peak_memory or warmup_seconds or max_seconds is not None:
            raise InputError(
                f"{tool.value} has no profile, runtime info, peak of memory, seconds of warm-up or"
                " time limit"
            )
        written = [f"--result_json={result_file}"] if result_file else []
        return [f"--model={model}", *counts, *chosen, *written]
    graph = f"./{model}" if model.startswith(HANDLES) else model
    # With the tool's own minimum of seconds a fast model would run oftener than asked for.
    words = [f"--graph={graph}", *counts, "--min_secs=0", *chosen]
    if warmup_seconds is not None:
        words.append(f"--warmup_min_secs={warmup_seconds:g}")
    if peak_memory:
        words.append("--report_peak_memory_footprint=true")
    if max_seconds is not None:
        words.append(f"--max_secs={max_seconds:g}")
    if result_file:
        words.append(f"--result_file_path={result_file}")
    if runtime_info_file:
        words.append(f"--model_runtime_info_output_file={runtime_info_file}")
    if tool is Tool.COMPILED_MODEL:
        if profile not in (None, "text"):
            raise InputError(f"{tool.value} has no profile as {profile}, only as text")
        return [*words, "--use_profiler=true"] if profile else words
    if runtime_info_file:
        words.append("--export_model_runtime_info=true")
    if profile:
        # 1024 events by default, which a large network exceeds, losing operators.
        words += ["--enable_op_profiling=true", "--max_profiling_buffer_entries=65536"]
    if profile_file:
        words += [
            f"--op_profiling_output_mode={profile}",
            f"--op_profiling_output_file={profile_file}",
        ]
    if profile == "csv":  # the only way up to TF 2.16; newer versions still heed it
        words.append(f"--profiling_output_csv_file={profile_file}")
    return words
