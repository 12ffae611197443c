"""Every operator of the half-precision files and of the graph that steadies has a CUDA kernel for its version and type.

What a GPU would say at load, where there is none: kernels are looked up in ONNX Runtime's own table (its
docs/OperatorKernels.md at commit 001d12d2, section CUDAExecutionProvider), copied here for the operators that are used.
"""

from pathlib import Path

import pytest

onnx = pytest.importorskip("onnx", reason="needs the [train] extra")

from videonst.engines.metadata import held_model, read_metadata  # noqa: E402
from videonst.models import list_models  # noqa: E402
from videonst.temporal.carry import GRAPH  # noqa: E402

ANY = {"float", "float16", "int64", "uint8", "bool"}
NUMBERS = ANY - {"bool"}
REAL = {"float", "float16"}
KERNELS = {
    "Add": (14, None, NUMBERS), "And": (7, None, {"bool"}), "Cast": (13, 18, ANY), "Clip": (13, None, NUMBERS),
    "Concat": (13, None, ANY), "ConstantOfShape": (9, None, {"int64"}), "Conv": (11, 21, REAL),
    "CumSum": (14, None, REAL | {"int64"}), "DepthToSpace": (13, None, REAL), "Div": (14, None, NUMBERS),
    "Equal": (13, None, REAL | {"int64", "bool"}), "Expand": (13, None, ANY), "Gather": (13, None, ANY),
    "Greater": (13, None, REAL | {"int64"}), "GridSample": (16, 19, {"float"}), "MatMul": (13, None, REAL),
    "Max": (13, None, REAL | {"int64"}), "MaxPool": (12, None, REAL | {"uint8"}),
    "Min": (13, None, REAL | {"int64"}), "Mul": (14, None, NUMBERS), "Neg": (13, None, REAL | {"int64"}),
    "Pad": (18, None, REAL | {"bool"}), "Pow": (15, None, REAL | {"int64"}), "Reciprocal": (13, None, REAL),
    "ReduceMean": (18, None, REAL), "ReduceSum": (13, None, REAL | {"int64"}),
    "Relu": (14, None, REAL), "Reshape": (14, 18, ANY), "Resize": (18, 18, REAL | {"uint8"}),
    "Round": (11, None, REAL), "Shape": (15, 18, ANY), "Sigmoid": (13, None, REAL), "Slice": (13, None, ANY),
    "Split": (18, None, ANY), "Sqrt": (13, None, REAL), "Squeeze": (13, 20, ANY), "Sub": (14, None, NUMBERS),
    "Transpose": (13, 20, ANY), "Unsqueeze": (13, 20, ANY), "Where": (16, None, {"bool"}),
}  # fmt: skip
"""Operator: first and last version of the kernel (None: open), types of its first input."""

TYPES = {"FLOAT": "float", "FLOAT16": "float16", "INT64": "int64", "UINT8": "uint8", "BOOL": "bool"}

HALF = [model.path for model in list_models() if model.metadata.precision == "fp16"]


def missing(graph: "onnx.ModelProto") -> list[str]:
    """Nodes without a kernel, in words."""
    (opset,) = [entry.version for entry in graph.opset_import if entry.domain == ""]
    graph = onnx.shape_inference.infer_shapes(graph)
    values = [*graph.graph.value_info, *graph.graph.input, *graph.graph.output]
    kinds = {value.name: value.type.tensor_type.elem_type for value in values}
    kinds |= {tensor.name: tensor.data_type for tensor in graph.graph.initializer}
    found = []
    for node in graph.graph.node:
        since = onnx.defs.get_schema(node.op_type, opset, node.domain).since_version
        first, last, types = KERNELS.get(node.op_type, (0, 0, set()))
        kind = TYPES.get(onnx.TensorProto.DataType.Name(kinds.get(node.input[0], 0)), "unknown")
        # A kernel serves a node whose operator was last changed between the versions that it was registered for.
        if node.domain or not first <= since <= (last or first) or kind not in types:
            found.append(f"{node.op_type} of version {since} on {kind}")
    return found


@pytest.mark.parametrize("path", HALF, ids=lambda path: path.stem)
def test_shipped_files_run_on_cuda_alone(path: Path) -> None:
    """With and without held statistics."""
    metadata = read_metadata(path)
    assert metadata.opset == 18
    assert metadata.held
    assert missing(onnx.load(path)) == []
    assert missing(onnx.load_from_string(held_model(path, metadata.held))) == []


def test_the_graph_that_steadies_runs_on_cuda_alone() -> None:
    assert missing(onnx.load(GRAPH)) == []


@pytest.mark.parametrize(
    ("operator", "kind", "opset", "wrong"),
    [
        ("Pad", onnx.TensorProto.UINT8, 18, "Pad of version 18 on uint8"),
        ("Pad", onnx.TensorProto.FLOAT16, 19, "Pad of version 19 on float16"),
        ("Tan", onnx.TensorProto.FLOAT16, 18, "Tan of version 7 on float16"),
    ],
)
def test_what_has_no_kernel_is_found(operator, kind, opset, wrong):
    """Known gaps: no bytes in Pad; no newer Pad in releases still in use (onnxruntime issue 26393); an operator that
    nobody has looked up."""
    value = onnx.helper.make_tensor_value_info
    inputs = ["x", "pads"] if operator == "Pad" else ["x"]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(operator, inputs, ["y"])], "one", [value("x", kind, [1, 4])], [value("y", kind, None)]
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    assert missing(model) == [wrong]
