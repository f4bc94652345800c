"""Command lines of the benchmark tools."""

import pytest

from android_bench import benchmark_tool
from android_bench.benchmark_tool import StartOptions, Tool
from shufflelite.errors import InputError


def test_flags_of_the_classic_tool() -> None:
    options = StartOptions(
        runs=10,
        warmup=3,
        threads=4,
        delegate="gpu",
        profile=True,
        profile_file="/t/p.pb",
        result_file="/t/r.pb",
        runtime_info_file="/t/i.pb",
        peak_memory=True,
    )
    words = benchmark_tool.flags(Tool.CLASSIC, "/data/local/tmp/a b; rm -rf $HOME.tflite", options)
    assert words[0] == "--graph=/data/local/tmp/a b; rm -rf $HOME.tflite"
    assert set(words[1:]) == {
        "--num_threads=4",
        "--num_runs=10",
        "--warmup_runs=3",
        "--min_secs=0",
        "--report_peak_memory_footprint=true",
        "--use_gpu=true",
        "--enable_op_profiling=true",
        "--max_profiling_buffer_entries=65536",
        "--op_profiling_output_mode=proto",
        "--op_profiling_output_file=/t/p.pb",
        "--result_file_path=/t/r.pb",
        "--model_runtime_info_output_file=/t/i.pb",
        "--export_model_runtime_info=true",
    }


def test_the_compiled_model_tool_keeps_the_cpu_out_only_by_both_flags() -> None:
    options = StartOptions(runs=5, warmup=1, delegate="gpu", profile=True)
    words = benchmark_tool.flags(Tool.COMPILED_MODEL, "/m", options)
    assert {"--use_gpu=true", "--use_cpu=false", "--require_full_delegation=true"} < set(words)
    assert "--use_profiler=true" in words


@pytest.mark.parametrize(
    ("tool", "delegate", "message"),
    [
        (Tool.CLASSIC, "tpu", "has no delegate 'tpu'. It has none, xnnpack, gpu, nnapi."),
        (Tool.COMPILED_MODEL, "nnapi", "has no delegate 'nnapi'. It has xnnpack, gpu."),
        (Tool.LITERT_BENCHMARK, "none", "has no delegate 'none'. It has xnnpack, gpu."),
    ],
)
def test_a_delegate_that_the_tool_does_not_have_is_refused(
    tool: Tool, delegate: str, message: str
) -> None:
    with pytest.raises(InputError) as caught:
        benchmark_tool.check_delegate(tool, delegate)
    assert message in str(caught.value)
