"""Binary files of the benchmark tools, written here by LiteRT's own classes."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from google.protobuf import descriptor_pool

from android_bench import benchmark_tool
from android_bench.benchmark_tool import ParseError
from tests.android_bench.outputs import profile_printer
from tests.android_bench.printed import check_profile

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
    usual = profile_printer.Operator("[usual]:99", "ADD", [[3]] * profile.runs)
    more = {
        name: [*getattr(profile, name), usual]
        for name in ("subgraph", "internal")
        if getattr(profile, name)
    }
    return replace(profile, operators=[*profile.operators, usual], **more)


def test_the_proto_holds_what_was_measured_exactly() -> None:
    rng = random.Random(7)
    for _ in range(100):
        profile = ordinary(profile_printer.random_profile(rng))
        operators = benchmark_tool.parse_profile_proto(profile_proto(profile))
        check_profile(operators, profile, csv=True)
        expected = profile_printer.expected(profile.operators, profile.runs)
        assert [one.ms for one in operators] == pytest.approx([row[2] for row in expected])


def test_a_proto_cut_off_anywhere_is_refused() -> None:
    data = profile_proto(ordinary(profile_printer.random_profile(random.Random(8))))
    for length in range(len(data)):
        with pytest.raises(ParseError):
            benchmark_tool.parse_profile_proto(data[:length])


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
    info = benchmark_tool.parse_runtime_info_proto(runtime_info(names, [[0, 1], [3]]))
    assert info.partitions == {"TfLiteXNNPackDelegate": 2}
    assert info.undelegated_operators == {"TRANSPOSE": 2, "SOFTMAX": 1, "ADD": 300}
    whole = benchmark_tool.parse_runtime_info_proto(runtime_info(names, [range(len(names))]))
    assert (whole.partitions, whole.undelegated_operators) == ({"TfLiteXNNPackDelegate": 1}, {})


def test_a_runtime_info_cut_off_anywhere_is_refused() -> None:
    data = runtime_info(["CONV_2D", "TRANSPOSE", "SOFTMAX"], [[0]])
    for length in range(len(data)):
        with pytest.raises(ParseError):
            benchmark_tool.parse_runtime_info_proto(data[:length])
