"""Makes a model tell all its intermediate results."""

import struct

from ai_edge_litert import schema_py_generated as schema

_OUTPUTS = 8  # of a subgraph: the third field of its table, after tensors and inputs


def expose(data: bytes) -> bytes:
    """A copy of a .tflite file whose first subgraph also gives each tensor that it computes.

    A delegate keeps the tensors inside a partition to itself, but must hand over those that the
    graph gives.  The file's own outputs come first, and nothing else of the file moves: a longer
    list is appended, and the graph made to point to it.
    """
    graph = schema.Model.GetRootAs(data, 0).Subgraphs(0)
    indices = [graph.Outputs(i) for i in range(graph.OutputsLength())]
    for operator in map(graph.Operators, range(graph.OperatorsLength())):
        indices += [operator.Outputs(i) for i in range(operator.OutputsLength())]
    indices = list(dict.fromkeys(index for index in indices if index >= 0))
    copy = bytearray(data) + bytes(-len(data) % 4)
    place = graph._tab.Pos + graph._tab.Offset(_OUTPUTS)
    struct.pack_into("<I", copy, place, len(copy) - place)  # relative to where it stands
    return bytes(copy) + struct.pack(f"<I{len(indices)}i", len(indices), *indices)
