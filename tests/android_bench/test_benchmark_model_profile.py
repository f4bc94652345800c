import importlib.util
import json
import math
import random
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pool

from android_bench import benchmark_model
from android_bench.benchmark_model import ParseError, Profile
from android_bench.targets import OperatorTime

OUTPUTS = Path(__file__).with_name("outputs")
SPEC = importlib.util.spec_from_file_location("benchmark_printer", OUTPUTS / "printer.py")
printer = importlib.util.module_from_spec(SPEC)
sys.modules[SPEC.name] = printer
SPEC.loader.exec_module(printer)

TRUTH = json.loads((OUTPUTS / "truth.json").read_text())
CLASSIC = [name for name, version in printer.VERSIONS.items() if not version.logcat]
CLASSIC = [name for name in CLASSIC if printer.VERSIONS[name].profile not in ("2.1.6", "2.2")]
LITERT = ["compiled_model2.1.6", "compiled_model2.2"]
Row = tuple[str, str, float, int]


def check(told: Sequence[OperatorTime], true: Sequence[Row], total_ms: float, *, csv: bool) -> None:
    """Same operators in the same order; times within the rounding of a call's average."""
    assert [(one.name, one.type, one.calls) for one in told] == [
        (name, type_, calls) for name, type_, _, calls in true
    ]
    for one, (name, _, ms, calls) in zip(told, true, strict=True):
        # A share of 0.001 % is the other rounding, of operators that some runs leave out.
        step = max(calls, 1) * (ms * 5e-6 if csv else 0.0005)
        slack = step + 2e-5 * total_ms + 1e-9
        assert math.isclose(one.ms, ms, abs_tol=slack), f"{name}: {one.ms} in place of {ms}"


def check_all(told: Profile, profile: Any, *, csv: bool = False) -> None:
    true = printer.expected(profile.operators, profile.runs)
    total_ms = sum(ms for _, _, ms, _ in true)
    check(told.operators, true, total_ms, csv=csv)
    assert told.total_ms == pytest.approx(total_ms, rel=6e-6)
    summed = math.fsum(one.ms for one in told.operators)
    calls = sum(max(one.calls, 1) for one in told.operators)
    assert summed == pytest.approx(told.total_ms, abs=0.0005 * calls + 1e-4 * total_ms)
    check(told.initialization, printer.expected(profile.initial, 1), 0, csv=csv)
    for graph in told.subgraphs.values():
        check(graph, printer.expected(profile.subgraph, profile.runs), total_ms, csv=csv)
    assert len(told.subgraphs) == bool(profile.subgraph)
    internal = printer.expected(profile.internal, profile.runs)
    check(told.delegate_internals, internal, total_ms, csv=csv)


@pytest.mark.parametrize("name", [name for name in TRUTH if TRUTH[name]["profile"]])
def test_parse_profile_reads_the_corpus(name: str) -> None:
    text = (OUTPUTS / name).read_bytes().decode()
    csv = name.endswith(".csv")
    read = benchmark_model.parse_profile_csv if csv else benchmark_model.parse_profile
    true = [tuple(row) for row in TRUTH[name]["profile"]]
    check(read(text).operators, true, sum(row[2] for row in true), csv=csv)


@pytest.mark.parametrize("name", CLASSIC)
def test_the_tables_hold_what_was_printed(name: str) -> None:
    rng, version = random.Random(name), printer.VERSIONS[name]
    for _ in range(60):
        profile, run = printer.random_profile(rng), printer.random_run(rng)
        shown = replace(profile, initial=()) if version.compiled else profile
        check_all(benchmark_model.parse_profile(printer.text(run, version, profile=shown)), shown)


@pytest.mark.parametrize("name", CLASSIC)
def test_the_csv_holds_what_was_printed(name: str) -> None:
    rng, version = random.Random(name), printer.VERSIONS[name]
    for _ in range(60):
        profile = printer.random_profile(rng)
        text = printer.csv(profile, version)
        check_all(benchmark_model.parse_profile_csv(text), profile, csv=True)


@pytest.mark.parametrize("name", LITERT)
def test_the_sums_of_the_compiled_model_tool_become_times_of_an_inference(name: str) -> None:
    rng, version = random.Random(name), printer.VERSIONS[name]
    for _ in range(60):
        run = printer.random_run(rng)
        runs = len(run.warmup_us) + len(run.regular_us)
        profile = printer.random_profile(rng, runs=runs)
        text = printer.text(run, version, profile=profile)
        check_all(benchmark_model.parse_profile(text), profile)
        tables = text[text.index("=== Run Order") :]
        with pytest.raises(ParseError, match="does not tell how many these were"):
            benchmark_model.parse_profile(tables)
        check_all(benchmark_model.parse_profile(tables, runs=runs), profile)


@pytest.mark.parametrize("name", ["tf2.8", "litert1.1"])
def test_tables_pasted_with_blanks_for_tabs_are_read(name: str) -> None:
    rng, version = random.Random(3), printer.VERSIONS[name]
    for _ in range(30):
        profile, run = printer.random_profile(rng), printer.random_run(rng)
        text = printer.text(run, version, profile=profile).replace("\t", "      ")
        check_all(benchmark_model.parse_profile(text), profile)


def test_lines_of_the_runtime_between_the_rows_do_not_count() -> None:
    rng, version = random.Random(4), printer.VERSIONS["litert1.1"]
    profile, run = printer.random_profile(rng), printer.random_run(rng)
    lines = printer.text(run, version, profile=profile).splitlines(keepends=True)
    noisy = "".join(line + "INFO: Loaded OpenCL library with dlopen.\n" for line in lines)
    check_all(benchmark_model.parse_profile(noisy), profile)


def test_a_type_that_ends_in_a_number_keeps_it() -> None:
    operator = printer.Operator("Delegate/depth_to_space 5:3", "depth_to_space 5", [[7], [9]])
    for name in ("tf2.8", "litert1.1"):
        text = "\n".join(
            printer.profile_lines(printer.Profile([operator], 2), printer.VERSIONS[name])
        )
        (told,) = benchmark_model.parse_profile(text + "\n").operators
        assert told == OperatorTime(
            "Delegate/depth_to_space 5:3", "depth_to_space 5", 0.008, 1, True
        )


def test_operators_of_one_name_in_several_partitions_count_with_all_their_calls() -> None:
    merged = printer.Operator("Delegate/Copy (NC, X8):0", "Copy (NC, X8)", [[51] * 13] * 4)
    alone = printer.Operator("[out]:9", "SOFTMAX", [[100]] * 4)
    text = printer.csv(printer.Profile([merged, alone], 4), printer.VERSIONS["litert1.1"])
    told = benchmark_model.parse_profile_csv(text)
    assert [one.ms for one in told.operators] == pytest.approx([0.663, 0.1])
    assert [one.calls for one in told.operators] == [13, 1]
    assert told.total_ms == pytest.approx(0.763)


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
    told = benchmark_model.parse_profile(text)
    assert [(one.ms, one.calls) for one in told.operators] == [(6, 1), (2, 1)]
    assert told.total_ms == 8
    with pytest.raises(ParseError):  # without the first run's time nothing tells what the rows are
        benchmark_model.parse_profile(text.replace("first=8000", "first=8050"))


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
def test_names_and_types_tell_who_ran_an_operator(
    name: str, type_: str, delegated: bool | None
) -> None:
    profile = printer.Profile([printer.Operator(name, type_, [[5]])], 1)
    version = replace(printer.VERSIONS["tf2.12"], profile="new")
    text = printer.csv(profile, version)
    (told,) = benchmark_model.parse_profile_csv(text).operators
    assert told.delegated is delegated


def test_a_profile_that_lost_events_is_refused() -> None:
    rng = random.Random(5)
    text = printer.text(
        replace(printer.random_run(rng), noise=("Warning: Dropping ProfileBuffer event.",)),
        printer.VERSIONS["litert1.1"],
        profile=printer.random_profile(rng),
    )
    assert benchmark_model.parse(text).dropped_profile_events
    with pytest.raises(ParseError, match="buffer was too small, so that operators are missing"):
        benchmark_model.parse_profile(text)


@pytest.mark.parametrize("text", ["", "INFO: STARTING!\n", "no profile here\n"])
def test_output_without_a_profile_is_an_error(text: str) -> None:
    for read in (benchmark_model.parse_profile, benchmark_model.parse_profile_csv):
        with pytest.raises(ParseError, match="expected one profile of regular runs, found 0"):
            read(text)


# Damage


def drop_row(rng: random.Random, lines: list[str]) -> list[str]:
    index = rng.randrange(len(lines))
    return lines[:index] + lines[index + 1 :]


def double_row(rng: random.Random, lines: list[str]) -> list[str]:
    index, place = rng.randrange(len(lines)), rng.randrange(len(lines))
    return [*lines[:place], lines[index], *lines[place:]]


def swap_rows(rng: random.Random, lines: list[str]) -> list[str]:
    one, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines = lines[:]
    lines[one], lines[other] = lines[other], lines[one]
    return lines


def truncate(rng: random.Random, lines: list[str]) -> list[str]:
    text = "".join(lines)
    return text[: rng.randrange(len(text))].splitlines(keepends=True)


def damage_figure(rng: random.Random, lines: list[str]) -> list[str]:
    """Any digit outside of a name or type."""
    text = "".join(lines)
    places = [
        place
        for figure in re.finditer(r"(?<=[\t ])[0-9]+\.?[0-9]*(?=[\t,%\n ])", text)
        for place in range(*figure.span())
    ]
    if not places:
        return lines
    place = rng.choice(places)
    return (text[:place] + rng.choice("0123456789.") + text[place + 1 :]).splitlines(keepends=True)


def sprinkle(rng: random.Random, lines: list[str]) -> list[str]:
    text = "".join(lines)
    place = rng.randrange(len(text) + 1)
    return (text[:place] + rng.choice("\0 \t,:%=\u0663x\n\r") + text[place:]).splitlines(True)


DAMAGES: list[Callable[..., list[str]]] = [
    *(drop_row, double_row, swap_rows, truncate, damage_figure, damage_figure, sprinkle)
]


def harm(cases: int, seed: int) -> int:
    rng = random.Random(seed)
    survived = 0
    for _ in range(cases):
        name = rng.choice([*CLASSIC, *LITERT])
        version, run = printer.VERSIONS[name], printer.random_run(rng)
        runs = len(run.warmup_us) + len(run.regular_us)
        litert, csv = name in LITERT, name in CLASSIC and rng.random() < 0.5
        profile = printer.random_profile(rng, runs=runs if litert else None)
        if csv:
            text = printer.csv(profile, version)
        else:
            text = "\n".join(printer.profile_lines(profile, version)) + "\n"
        lines = text.splitlines(keepends=True)
        for _ in range(rng.choice([1, 1, 2])):
            lines = rng.choice(DAMAGES)(rng, lines) or ["\n"]
        try:
            if csv:
                told = benchmark_model.parse_profile_csv("".join(lines))
            else:
                told = benchmark_model.parse_profile("".join(lines), runs=runs if litert else None)
        except ParseError:
            continue
        survived += 1
        true = printer.expected(profile.operators, profile.runs)
        total_ms = sum(ms for _, _, ms, _ in true)
        assert len(told.operators) == len(true)
        known: dict[str, list[float]] = {}
        for row_name, _, ms, _ in true:
            known.setdefault(row_name, []).append(ms)
        nameless = sum(one.name not in known for one in told.operators)
        assert nameless <= 2  # names are not figures: their damage is not found
        for one in told.operators:
            # A damaged figure may be off by what its second copy is rounded to.
            slack = max(one.calls, 1) * 0.002 + 4e-5 * total_ms
            near = [ms for ms in known.get(one.name, [one.ms]) if abs(ms - one.ms) <= slack]
            assert near, f"{one.name}: {one.ms} in place of {known[one.name]}"
        assert told.total_ms == pytest.approx(total_ms, rel=1e-5, abs=0.001 * len(true))
    return survived


def test_a_damaged_profile_is_right_or_an_error() -> None:
    assert harm(400, seed=1) > 20


@pytest.mark.slow
def test_many_damaged_profiles_are_right_or_an_error() -> None:
    assert harm(6000, seed=2) > 300


@pytest.mark.parametrize("name", ["tf2.8", "litert1.1", *LITERT])
def test_a_profile_cut_off_before_its_end_is_refused(name: str) -> None:
    rng, version = random.Random(6), printer.VERSIONS[name]
    profile = printer.random_profile(rng, runs=5 if name in LITERT else None)
    profile = replace(profile, subgraph=(), internal=())
    text = "\n".join(printer.profile_lines(profile, version)) + "\n"
    end = text.rindex(" nodes observed\n")
    for length in range(0, end, 7):
        with pytest.raises(ParseError):
            benchmark_model.parse_profile(text[:length], runs=5)


# Proto files, written by LiteRT's own classes


POOL = descriptor_pool.DescriptorPool()


def messages(name: str) -> Any:
    """LiteRT's own messages, in a pool of their own: TensorFlow has some of the same names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(descriptor_pool, "Default", lambda: POOL)
        return pytest.importorskip(
            f"ai_edge_litert.{name}", reason="ai-edge-litert lacks its protos"
        )


def profile_proto(profile: Any) -> bytes:
    pb = messages("profiling_info_pb2")
    data = pb.BenchmarkProfilingData()

    def fill(rows: Any, operators: Sequence[Any], runs: int) -> None:
        for order, op in enumerate(operators):
            us = [value for one in op.us for value in one]
            if not us:
                continue
            row = rows.add(node_type=op.type, name=op.name, run_order=order)
            row.times_called = len(us) // runs
            stat = row.inference_microseconds
            stat.first, stat.last, stat.avg = us[0], us[-1], sum(us) // len(us)
            stat.stddev, stat.variance = 1.5, 2.25
            stat.min, stat.max, stat.sum, stat.count = min(us), max(us), sum(us), len(us)
            row.mem_kb.avg = 0

    if profile.initial:
        graph = data.init_profile.subgraph_profiles.add(subgraph_index=0, subgraph_name="")
        fill(graph.per_op_profiles, profile.initial, 1)
    graph = data.runtime_profile.subgraph_profiles.add(subgraph_index=0, subgraph_name="main")
    fill(graph.per_op_profiles, profile.operators, profile.runs)
    if profile.subgraph:
        graph = data.runtime_profile.subgraph_profiles.add(subgraph_index=1, subgraph_name="body")
        fill(graph.per_op_profiles, profile.subgraph, profile.runs)
    if profile.internal:
        fill(
            data.runtime_profile.delegate_profiles.add().per_op_profiles,
            profile.internal,
            profile.runs,
        )
    return data.SerializeToString()


def ordinary(profile: Any) -> Any:
    """With an operator that each run calls once, as each network has."""
    usual = printer.Operator("[usual]:99", "ADD", [[3]] * profile.runs)
    more = {
        name: [*getattr(profile, name), usual]
        for name in ("subgraph", "internal")
        if getattr(profile, name)
    }
    return replace(profile, operators=[*profile.operators, usual], **more)


def test_the_proto_holds_what_was_measured_exactly() -> None:
    rng = random.Random(7)
    for _ in range(100):
        profile = ordinary(printer.random_profile(rng))
        told = benchmark_model.parse_profile_proto(profile_proto(profile))
        check_all(told, profile, csv=True)
        true = printer.expected(profile.operators, profile.runs)
        assert [one.ms for one in told.operators] == pytest.approx([row[2] for row in true])


def test_a_proto_cut_off_anywhere_is_refused() -> None:
    data = profile_proto(ordinary(printer.random_profile(random.Random(8))))
    for length in range(len(data)):
        with pytest.raises(ParseError):
            benchmark_model.parse_profile_proto(data[:length])


def test_random_bytes_are_a_parse_error_or_a_profile_and_nothing_else() -> None:
    rng = random.Random(9)
    for _ in range(1500):
        data = bytearray(profile_proto(ordinary(printer.random_profile(rng))))
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        noise = bytes(rng.randrange(256) for _ in range(rng.randrange(40)))
        for damaged in (bytes(data), noise):
            for read in (
                benchmark_model.parse_profile_proto,
                benchmark_model.parse_result_proto,
                benchmark_model.parse_runtime_info_proto,
            ):
                try:
                    read(damaged)
                except ParseError as error:
                    if "\n" in str(error):
                        raise AssertionError("expected one line") from error


def runtime_info(names: Sequence[str], taken: Sequence[Sequence[int]]) -> bytes:
    """A graph whose nodes are `names`; each delegate kernel took the nodes of a list."""
    pb = messages("model_runtime_info_pb2")
    details = pb.ModelRuntimeDetails()
    graph = details.subgraphs.add(subgraph_id=0, name="main")
    graph.edges.add(id=0, name="image", shape=[1, 224, 224, 3])
    kernel_of = {node: len(names) + number for number, nodes in enumerate(taken) for node in nodes}
    for index, name in enumerate(names):
        node = graph.nodes.add(id=index, name=name, type="3", inputs=[0], outputs=[index])
        if index in kernel_of:
            node.delegated_to_node_id = kernel_of[index]
    for number, nodes in enumerate(taken):
        node = graph.nodes.add(id=len(names) + number, name="TfLiteXNNPackDelegate")
        node.delegate_node_details.delegate_name = "TfLiteXNNPackDelegate"
        node.delegate_node_details.tflite_node_ids_replaced.extend(nodes)
    plan = [index for index in range(len(names)) if index not in kernel_of]
    graph.execution_plan.extend([*plan, *range(len(names), len(names) + len(taken))])
    return details.SerializeToString()


def test_the_runtime_info_counts_partitions_and_what_no_delegate_took() -> None:
    names = ["CONV_2D", "CONV_2D", "TRANSPOSE", "CONV_2D", "TRANSPOSE", "SOFTMAX"] + ["ADD"] * 300
    told = benchmark_model.parse_runtime_info_proto(runtime_info(names, [[0, 1], [3]]))
    assert told.partitions == {"TfLiteXNNPackDelegate": 2}
    assert told.undelegated_operators == {"TRANSPOSE": 2, "SOFTMAX": 1, "ADD": 300}
    whole = benchmark_model.parse_runtime_info_proto(runtime_info(names, [range(len(names))]))
    assert (whole.partitions, whole.undelegated_operators) == ({"TfLiteXNNPackDelegate": 1}, {})


def test_a_runtime_info_cut_off_anywhere_is_refused() -> None:
    data = runtime_info(["CONV_2D", "TRANSPOSE", "SOFTMAX"], [[0]])
    for length in range(len(data)):
        with pytest.raises(ParseError):
            benchmark_model.parse_runtime_info_proto(data[:length])
