"""Command lines of the benchmark tools."""

from typing import Any

import pytest

from android_bench import benchmark_tool
from android_bench.benchmark_tool import Tool
from shufflelite.errors import InputError


def test_flags_of_the_classic_tool() -> None:
    words = benchmark_tool.flags(
        Tool.CLASSIC,
        "/data/local/tmp/a b; rm -rf $HOME.tflite",
        runs=10,
        warmup=3,
        threads=4,
        delegate="gpu",
        profile="csv",
        profile_file="/t/p.csv",
        result_file="/t/r.pb",
        runtime_info_file="/t/i.pb",
        peak_memory=True,
        max_seconds=60,
    )
    assert words[0] == "--graph=/data/local/tmp/a b; rm -rf $HOME.tflite"
    assert set(words[1:]) == {
        "--num_threads=4",
        "--num_runs=10",
        "--warmup_runs=3",
        "--min_secs=0",
        "--warmup_min_secs=0",
        "--report_peak_memory_footprint=true",
        "--max_secs=60",
        "--use_gpu=true",
        "--enable_op_profiling=true",
        "--max_profiling_buffer_entries=65536",
        "--op_profiling_output_mode=csv",
        "--op_profiling_output_file=/t/p.csv",
        "--profiling_output_csv_file=/t/p.csv",
        "--result_file_path=/t/r.pb",
        "--model_runtime_info_output_file=/t/i.pb",
        "--export_model_runtime_info=true",
    }


def test_the_warm_up_lasts_as_long_as_asked_for_or_as_the_tool_likes() -> None:
    for seconds, expected in ((2.5, ["--warmup_min_secs=2.5"]), (None, [])):
        words = benchmark_tool.flags(Tool.CLASSIC, "/m", runs=1, warmup=0, warmup_seconds=seconds)
        assert [word for word in words if "warmup_min_secs" in word] == expected


def test_the_deprecated_csv_flag_does_not_overrule_a_proto() -> None:
    words = benchmark_tool.flags(
        Tool.CLASSIC, "/m", runs=1, warmup=0, profile="proto", profile_file="/t/p.pb"
    )
    assert not [word for word in words if "csv" in word]


def test_the_compiled_model_tool_keeps_the_cpu_out_only_by_both_flags() -> None:
    words = benchmark_tool.flags(
        Tool.COMPILED_MODEL, "/m", runs=5, warmup=1, delegate="gpu", profile="text"
    )
    assert {"--use_gpu=true", "--use_cpu=false", "--require_full_delegation=true"} < set(words)
    assert "--use_profiler=true" in words


def test_a_path_that_looks_like_a_handle_stays_a_path() -> None:
    assert "--graph=./fd:3:0:9" in benchmark_tool.flags(Tool.CLASSIC, "fd:3:0:9", runs=1, warmup=0)


@pytest.mark.parametrize(
    ("tool", "change", "message"),
    [
        (Tool.CLASSIC, {"delegate": "tpu"}, "has no delegate 'tpu'. It has none, xnnpack, gpu"),
        (Tool.COMPILED_MODEL, {"delegate": "nnapi"}, "has no delegate 'nnapi'"),
        (Tool.LITERT_BENCHMARK, {"delegate": "none"}, "It has xnnpack, gpu"),
        (Tool.CLASSIC, {"runs": 0}, "runs and threads of 1 or more"),
        (Tool.CLASSIC, {"profile": "csv"}, "needs profile_file"),
        (Tool.CLASSIC, {"profile_file": "/p"}, "needs profile_file"),
        (Tool.COMPILED_MODEL, {"profile": "csv", "profile_file": "/p"}, "only as text"),
        (Tool.LITERT_BENCHMARK, {"profile": "text"}, "has no profile"),
        (Tool.LITERT_BENCHMARK, {"warmup_seconds": 0.5}, "seconds of warm-up"),
        (Tool.LITERT_BENCHMARK, {"peak_memory": True}, "peak of memory"),
        (Tool.CLASSIC, {"result_file": "a\nb"}, "expected a path in one line"),
    ],
)
def test_what_a_tool_cannot_do_is_refused(tool: Tool, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        benchmark_tool.flags(tool, "/m", **{"runs": 5, "warmup": 1, **change})
    assert message in str(caught.value)
