"""The output of real benchmark tools against figures read off by eye (`tool_samples.py`)."""

from collections import Counter
from collections.abc import Mapping, Sequence

import pytest

from android_bench import benchmark_tool, tables
from android_bench.benchmark_tool import ParseError, Tool
from android_bench.measurement import OperatorTime
from android_bench.targets import tool_session
from tests.android_bench import rows, tool_samples

EXPECTED = tool_samples.expected()
HEAD = "classic_litert_head"
MODELS = ("m_mb_float", "models_augshufflenet.lowered", "models_shufflenet_v1_g3.direct")


def names(*kinds: str) -> list[str]:
    return [name for name, figures in EXPECTED.items() if figures["kind"] in kinds]


def number(figures: Mapping[str, str], name: str, unit: float = 1.0) -> float | None:
    return None if figures[name] == "-" else pytest.approx(float(figures[name]) / unit, rel=1e-6)


def counts(words: str) -> dict[str, int]:
    """As "CONV_2D:3,ADD:1"; "none" and "-" are none."""
    pairs = (word.rpartition(":") for word in words.split(",") if word not in ("none", "-"))
    return {name: int(count) for name, _, count in pairs}


def undelegated(operators: Sequence[OperatorTime]) -> dict[str, int]:
    calls: Counter[str] = Counter()
    for row in operators:
        assert row.delegated is not None
        if not row.delegated:
            calls[row.type] += row.calls
    return dict(calls)


def test_each_sample_has_its_line() -> None:
    assert set(EXPECTED) == set(tool_samples.samples())
    assert len(EXPECTED) == 251


@pytest.mark.parametrize("name", names("classic", "compiled"))
def test_the_figures_of_each_output_are_read(name: str) -> None:
    figures, text = EXPECTED[name], tool_samples.text(name)
    if figures["runs"] == "0":
        with pytest.raises(ParseError, match="timed no inference"):
            benchmark_tool.parse(text)
        return
    result = benchmark_tool.parse(text)
    compiled = figures["kind"] == "compiled"
    assert result.tool is (Tool.COMPILED_MODEL if compiled else Tool.CLASSIC)
    assert result.runs == int(figures["runs"])
    for figure in ("avg", "min", "max", "median", "p5", "p95", "first"):
        assert getattr(result, f"{figure}_ms") == number(figures, figure, 1000), figure
    assert result.init_ms == number(figures, "init_ms")
    assert result.memory_mb == number(figures, "memory")
    assert result.peak_memory_mb == number(figures, "peak")
    assert (",".join(result.unconsumed) or "-") == figures["unknown"]
    found = benchmark_tool.combine(result.delegations)
    assert found.partitions == counts(figures["partitions"])
    if "rows" in figures:
        operators = benchmark_tool.parse_profile(text)
        assert len(operators) == int(figures["rows"])
        assert undelegated(operators) == counts(figures["cpu"])
        top, calls, ms = figures["top"].split("|")
        runs = 9 if compiled else 1  # the CompiledModel tool sums over all runs
        total_ms = float(figures["total_us"]) / 1000 / runs
        costliest = max(operators, key=lambda row: row.ms / row.calls)
        assert (costliest.name, costliest.calls) == (top, int(calls) / runs)
        # Times are rounded to 1 us, and shares to 0.001 %.
        slack = 0.0005 * int(calls) + 0.00001 * total_ms
        assert costliest.ms == pytest.approx(float(ms) * costliest.calls, abs=slack)
        assert sum(row.ms for row in operators) == pytest.approx(total_ms, rel=0.001)
        benchmark_tool.combine([found, *benchmark_tool.of_profile(operators, delegate="xnnpack")])


@pytest.mark.parametrize("name", names("fails"))
def test_a_failed_run_is_its_reason(name: str) -> None:
    text, reason = tool_samples.text(name), EXPECTED[name]["reason"]
    assert benchmark_tool.failure(text) == reason[:500]
    with pytest.raises(ParseError) as caught:
        benchmark_tool.parse(text)
    if int(EXPECTED[name]["rc"]) > 0:
        assert str(caught.value) == f"the tool failed: {reason}"[:500]
    else:
        assert "holds no inference timings" in str(caught.value)


@pytest.mark.parametrize("name", names("result"))
def test_a_result_file_is_read_and_agrees_with_the_output(name: str) -> None:
    figures = EXPECTED[name]
    file = benchmark_tool.parse_result_proto(tool_samples.samples()[name])
    for figure in ("avg", "min", "max", "median", "p5", "p95", "init", "first"):
        assert getattr(file, f"{figure}_ms") == float(figures[f"{figure}_ms"])
    assert (file.runs, file.memory_mb) == (int(figures["runs"]), int(figures["memory_kb"]) / 1024)
    printed = benchmark_tool.parse(tool_samples.text(name.replace(".result.pb", "_res.txt")))
    merged = benchmark_tool.merge(printed, file)
    assert (merged.median_ms, merged.delegations) == (file.median_ms, printed.delegations)


@pytest.mark.parametrize("name", names("info"))
def test_the_runtime_info_tells_what_each_delegate_took(name: str) -> None:
    found = benchmark_tool.parse_runtime_info_proto(tool_samples.samples()[name])
    taken = counts(EXPECTED[name]["partitions"]).get("TfLiteXNNPackDelegate", 0)
    assert found.partitions == {"xnnpack": taken, "gpu": 0, "nnapi": 0}
    assert found.undelegated == counts(EXPECTED[name]["cpu"])


@pytest.mark.parametrize("name", names("profile"))
def test_a_profile_file_is_read_without_the_slowest_calls(name: str) -> None:
    figures = EXPECTED[name]
    operators = benchmark_tool.parse_profile_proto(tool_samples.samples()[name])
    assert len(operators) == int(figures["rows"])
    assert undelegated(operators) == counts(figures["cpu"])
    assert sum(row.ms for row in operators) == pytest.approx(float(figures["trimmed_us"]) / 1000)
    text = tool_samples.text(name.replace(".prof.pb", "_pproto.txt"))
    median_ms = benchmark_tool.parse(text).median_ms
    assert median_ms is not None
    assert sum(row.ms for row in operators) == pytest.approx(median_ms, rel=0.13)


@pytest.mark.parametrize("name", names("csv"))
def test_the_tool_s_csv_lists_the_same_operators(name: str) -> None:
    # It is not asked for any more; the tool wrote it in another run of the same file.
    text = name.replace("profile.csv", "txt.txt").replace(".csv", "_ptext.txt")
    operators = benchmark_tool.parse_profile(tool_samples.text(text))
    assert len(operators) == int(EXPECTED[name]["rows"])
    assert undelegated(operators) == counts(EXPECTED[name]["cpu"])


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("flag", ["dflt", "none", "xnn"])
def test_all_sources_agree_on_what_ran(model: str, flag: str) -> None:
    start = f"{HEAD}/{model}.tflite_{flag}"
    files = tool_samples.samples()
    profile = benchmark_tool.parse_profile_proto(files[f"{start}.prof.pb"])
    found = benchmark_tool.combine(
        [
            *benchmark_tool.parse(tool_samples.text(f"{start}_res.txt")).delegations,
            benchmark_tool.parse_runtime_info_proto(files[f"{start}.ri.pb"]),
            *benchmark_tool.of_profile(profile, delegate="xnnpack"),
            *benchmark_tool.of_profile(
                benchmark_tool.parse_profile(tool_samples.text(f"{start}_ptext.txt")),
                delegate="xnnpack",
            ),
        ]
    )
    # Its default XNNPACK takes no int8 operator, as that of tools built by CMake before LiteRT 1.4.
    takes = flag == "xnn" or (flag == "dflt" and "float" in model)
    assert benchmark_tool.in_use(found, None) == ("xnnpack" if takes else "none")
    if takes:
        with pytest.raises(ParseError, match="expected no delegate, but xnnpack took operators"):
            benchmark_tool.in_use(found, "none")
    else:
        with pytest.raises(ParseError, match="the delegate xnnpack took no operator of the model"):
            benchmark_tool.in_use(found, "xnnpack")
    with pytest.raises(ParseError, match="the delegate gpu took no operator of the model"):
        benchmark_tool.in_use(found, "gpu")


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("dflt.ri.pb", "xnn_res.txt"),
        ("xnn.ri.pb", "dflt_ptext.txt"),
        ("dflt.ri.pb", "xnn_ptext.txt"),
    ],
)
def test_sources_that_contradict_each_other_are_refused(name: str, other: str) -> None:
    model = f"{HEAD}/models_shufflenet_v1_g3.direct.tflite_"
    info = benchmark_tool.parse_runtime_info_proto(tool_samples.samples()[model + name])
    text = tool_samples.text(model + other)
    sources = list(benchmark_tool.parse(text).delegations)
    if "Run Order" in text:
        operators = benchmark_tool.parse_profile(text)
        sources = list(benchmark_tool.of_profile(operators, delegate="xnnpack"))
    with pytest.raises(ParseError, match="the tool contradicts itself on what"):
        benchmark_tool.combine([info, *sources])


@pytest.mark.parametrize(
    ("name", "median_ms"),
    [
        ("compiled_model_2.2/td_two_subgraphs.txt", 0.00328571),  # 3 us, a third of which is a step
        ("classic_litert_head/xnn_true.txt", 0.474),
    ],
)
def test_short_inferences_are_averages_since_medians_are_in_whole_microseconds(
    name: str, median_ms: float
) -> None:
    result = benchmark_tool.parse(tool_samples.text(name))
    assert tool_session.round_of([result]).median_ms == median_ms


def test_the_costliest_operators_are_named_and_counted() -> None:
    profile = benchmark_tool.parse_profile(
        tool_samples.text(f"{HEAD}/odd_parts_int8.tflite_xnn_ptext.txt")
    )
    table = tables.profile_tables([rows.row(profile=profile)], costliest=10)
    assert "| operator | type | calls | ms | % of the sum |" in table
    convolution = "Convolution (NHWC, QC8) IGEMM"
    assert f"| Delegate/{convolution}:0 | {convolution} | 4 | 0.0765 | 98.7 |" in table

    name = f"{HEAD}/models_shufflenet_v1_g3.direct.tflite_none.prof.pb"
    profile = benchmark_tool.parse_profile_proto(tool_samples.samples()[name])
    table = tables.profile_tables([rows.row(profile=profile)], costliest=128)
    # A fused operator has the names of all its operators.
    assert "| [shufflenet_v1/stage2_unit3_expand/BiasAdd]:25 | CONV_2D | 1 |" in table
    assert ";" not in table


def test_an_operator_that_only_one_source_leaves_to_the_cpu_is_a_contradiction() -> None:
    taken = benchmark_tool.Delegation("a", {"xnnpack": 1}, {})
    for other in ({"ADD": 1}, {"ADD": 1, "RELU": 2}):
        left = benchmark_tool.Delegation("b", {"xnnpack": None}, other)
        for sources in ([taken, left], [left, taken]):
            with pytest.raises(ParseError, match="what no delegate took of the model"):
                benchmark_tool.combine(sources)
