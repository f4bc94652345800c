"""Profiles of operators in the tools' output and CSV files."""

import random
from dataclasses import replace
from typing import Any

import pytest

from android_bench import benchmark_tool
from android_bench.benchmark_tool import ParseError
from android_bench.measurement import OperatorTime
from tests.android_bench.outputs import printer, profile_printer
from tests.android_bench.printed import OUTPUTS, TRUTH, check_operators, check_profile

CLASSIC = [name for name, version in printer.VERSIONS.items() if not version.logcat]
CLASSIC = [name for name in CLASSIC if printer.VERSIONS[name].profile not in ("2.1.6", "2.2")]
LITERT = ["compiled_model2.1.6", "compiled_model2.2"]


def text_with(profile: Any, run: Any, version: Any) -> str:
    """The output of a run that was profiled."""
    lines = profile_printer.profile_lines(profile, version)
    return printer.text(run, version, profile=lines)


@pytest.mark.parametrize("name", [name for name in TRUTH if TRUTH[name]["profile"]])
def test_parse_profile_reads_the_corpus(name: str) -> None:
    text = (OUTPUTS / name).read_bytes().decode()
    csv = name.endswith(".csv")
    read = benchmark_tool.parse_profile_csv if csv else benchmark_tool.parse_profile
    true = [tuple(row) for row in TRUTH[name]["profile"]]
    check_operators(read(text), true, sum(row[2] for row in true), csv=csv)


@pytest.mark.parametrize("name", CLASSIC)
def test_the_tables_hold_what_was_printed(name: str) -> None:
    rng, version = random.Random(name), printer.VERSIONS[name]
    for _ in range(60):
        profile, run = profile_printer.random_profile(rng), printer.random_run(rng)
        check_profile(benchmark_tool.parse_profile(text_with(profile, run, version)), profile)


@pytest.mark.parametrize("name", CLASSIC)
def test_the_csv_holds_what_was_printed(name: str) -> None:
    rng, version = random.Random(name), printer.VERSIONS[name]
    for _ in range(60):
        profile = profile_printer.random_profile(rng)
        text = profile_printer.csv(profile, version)
        check_profile(benchmark_tool.parse_profile_csv(text), profile, csv=True)


@pytest.mark.parametrize("name", LITERT)
def test_the_sums_of_the_compiled_model_tool_become_times_of_an_inference(name: str) -> None:
    rng, version = random.Random(name), printer.VERSIONS[name]
    for _ in range(60):
        run = printer.random_run(rng)
        runs = len(run.warmup_us) + len(run.regular_us)
        profile = profile_printer.random_profile(rng, runs=runs)
        text = text_with(profile, run, version)
        check_profile(benchmark_tool.parse_profile(text), profile)
    with pytest.raises(ParseError, match="expected a multiple of 0 runs"):
        benchmark_tool.parse_profile(text[text.index("=== Run Order") :])


@pytest.mark.parametrize("name", ["tf2.8", "litert1.1"])
def test_tables_pasted_with_blanks_for_tabs_are_read(name: str) -> None:
    rng, version = random.Random(3), printer.VERSIONS[name]
    for _ in range(30):
        profile, run = profile_printer.random_profile(rng), printer.random_run(rng)
        text = text_with(profile, run, version).replace("\t", "      ")
        check_profile(benchmark_tool.parse_profile(text), profile)


def test_lines_of_the_runtime_between_the_rows_do_not_count() -> None:
    rng, version = random.Random(4), printer.VERSIONS["litert1.1"]
    profile, run = profile_printer.random_profile(rng), printer.random_run(rng)
    lines = text_with(profile, run, version).splitlines(keepends=True)
    noisy = "".join(line + "INFO: Loaded OpenCL library with dlopen.\n" for line in lines)
    check_profile(benchmark_tool.parse_profile(noisy), profile)


def test_a_type_that_ends_in_a_number_keeps_it() -> None:
    printed = profile_printer.Operator(
        "Delegate/depth_to_space 5:3", "depth_to_space 5", [[7], [9]]
    )
    for name in ("tf2.8", "litert1.1"):
        text = "\n".join(
            profile_printer.profile_lines(
                profile_printer.Profile([printed], 2), printer.VERSIONS[name]
            )
        )
        (operator,) = benchmark_tool.parse_profile(text + "\n")
        assert operator == OperatorTime(
            "Delegate/depth_to_space 5:3", "depth_to_space 5", 0.008, 1, True
        )


def test_operators_of_one_name_in_several_partitions_count_with_all_their_calls() -> None:
    merged = profile_printer.Operator("Delegate/Copy (NC, X8):0", "Copy (NC, X8)", [[51] * 13] * 4)
    alone = profile_printer.Operator("[out]:9", "SOFTMAX", [[100]] * 4)
    text = profile_printer.csv(
        profile_printer.Profile([merged, alone], 4), printer.VERSIONS["litert1.1"]
    )
    operators = benchmark_tool.parse_profile_csv(text)
    assert [one.ms for one in operators] == pytest.approx([0.663, 0.1])
    assert [one.calls for one in operators] == [13, 1]


def test_a_profile_of_one_run_among_many_is_that_run() -> None:
    # The oldest tools timed operators in the first run only, and divided their shares by all runs.
    text = """\
============================== Run Order ==============================
\t  [node type]\t  [start]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]
\t      CONV_2D\t    0.000\t    6.000\t    6.000\t  1.500%\t  1.500%\t     0.000\t        0\t[a]
\t      SOFTMAX\t    6.000\t    2.000\t    2.000\t  0.500%\t  2.000%\t     0.000\t        0\t[b]

============================== Top by Computation Time ==============================
\t  [node type]\t  [start]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]
\t      CONV_2D\t    0.000\t    6.000\t    6.000\t  1.500%\t  1.500%\t     0.000\t        0\t[a]
\t      SOFTMAX\t    6.000\t    2.000\t    2.000\t  0.500%\t  2.000%\t     0.000\t        0\t[b]

Number of nodes executed: 2
============================== Summary by node type ==============================
\t  [Node type]\t  [count]\t  [avg ms]\t    [avg %]\t    [cdf %]\t  [mem KB]\t[times called]
\t      CONV_2D\t        1\t     0.120\t    75.000%\t    75.000%\t     0.000\t        0
\t      SOFTMAX\t        1\t     0.040\t    25.000%\t   100.000%\t     0.000\t        0

Timings (microseconds): count=50 first=8000 curr=8100 min=7900 max=8100 avg=8000 std=50
Memory (bytes): count=0
2 nodes observed
"""  # noqa: E501
    operators = benchmark_tool.parse_profile(text)
    assert [(one.ms, one.calls) for one in operators] == [(6, 1), (2, 1)]


@pytest.mark.parametrize(
    ("name", "type_", "delegated"),
    [
        ("[a, b]:114", "CONV_2D", False),
        ("[a]", "CONV_2D", False),
        ("[]:64", "TfLiteNnapiDelegate", True),
        ("Delegate/Copy (NC, X8):0", "Copy (NC, X8)", True),
        ("[x]:3", "TFLite_Detection_PostProcess", False),
        ("[Delegate]:3", "Delegate/Copy (NC, X8)", True),
        ("[Builtin]:3", "CONV_2D", False),
        ("AllocateTensors/0", "AllocateTensors", None),
        ("ModifyGraphWithDelegate/0", "ModifyGraphWithDelegate", None),
    ],
)
def test_names_and_types_show_who_ran_an_operator(
    name: str, type_: str, delegated: bool | None
) -> None:
    profile = profile_printer.Profile([profile_printer.Operator(name, type_, [[5]])], 1)
    version = replace(printer.VERSIONS["tf2.12"], profile="new")
    text = profile_printer.csv(profile, version)
    (operator,) = benchmark_tool.parse_profile_csv(text)
    assert operator.delegated is delegated


def test_a_profile_that_lost_events_is_reported() -> None:
    rng, version = random.Random(5), printer.VERSIONS["litert1.1"]
    run = printer.random_run(rng)
    run = replace(run, noise=("Warning: Dropping ProfileBuffer event.",))
    text = text_with(profile_printer.random_profile(rng), run, version)
    assert benchmark_tool.parse(text).dropped_profile_events


@pytest.mark.parametrize("text", ["", "INFO: STARTING!\n", "no profile here\n"])
def test_output_without_a_profile_is_an_error(text: str) -> None:
    for read in (benchmark_tool.parse_profile, benchmark_tool.parse_profile_csv):
        with pytest.raises(ParseError, match="expected the tables of the regular runs, got none"):
            read(text)


@pytest.mark.parametrize("name", ["tf2.8", "litert1.1", *LITERT])
def test_a_profile_cut_off_within_its_tables_is_refused(name: str) -> None:
    rng, version = random.Random(6), printer.VERSIONS[name]
    profile = profile_printer.random_profile(rng, runs=5 if name in LITERT else None)
    profile = replace(profile, subgraph=(), internal=())
    text = "\n".join(profile_printer.profile_lines(profile, version)) + "\n"
    for length in range(0, text.rindex("Timings (microseconds)"), 7):
        with pytest.raises(ParseError):
            benchmark_tool.parse_profile(text[:length])


def test_a_profile_that_lacks_a_row_is_refused() -> None:
    profile = profile_printer.random_profile(random.Random(2))
    lines = profile_printer.csv(profile, printer.VERSIONS["litert1.1"]).splitlines(keepends=True)
    regular = next(i for i, line in enumerate(lines) if "Regular" in line)
    row = next(
        i for i, line in enumerate(lines) if i > regular and "%, " in line and "cdf" not in line
    )
    with pytest.raises(ParseError, match=f"expected {len(profile.operators)} operators"):
        benchmark_tool.parse_profile_csv("".join(lines[:row] + lines[row + 1 :]))
