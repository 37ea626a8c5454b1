"""What TensorRT takes: a graph of operators that it knows, in an opset that every TensorRT from 8 on reads. No torch.

TensorRT itself is not run here: it builds its engine on the machine with the card, by the line of `build_line`.
"""

from __future__ import annotations

from pathlib import Path

import onnx

from mien.errors import ExportError
from mien.spec import CropSpec

__all__ = ["OPERATORS", "OPSET", "build_line", "for_tensorrt", "with_batch"]

#: JetPack 4.6, the last for the Jetson Nano, has TensorRT 8.2, which reads opsets up to 13.
OPSET = 13
#: What TensorRT 8 reads (NVIDIA's list, github.com/onnx/onnx-tensorrt, docs/operators.md) and networks for pictures use.
OPERATORS = frozenset(
    [
        "Abs",
        "Add",
        "And",
        "ArgMax",
        "AveragePool",
        "BatchNormalization",
        "Cast",
        "Ceil",
        "Clip",
        "Concat",
        "Constant",
        "ConstantOfShape",
        "Conv",
        "ConvTranspose",
        "Div",
        "Einsum",
        "Elu",
        "Equal",
        "Erf",
        "Exp",
        "Expand",
        "Flatten",
        "Floor",
        "Gather",
        "Gemm",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "Greater",
        "HardSigmoid",
        "Identity",
        "InstanceNormalization",
        "LRN",
        "LeakyRelu",
        "Less",
        "Log",
        "LogSoftmax",
        "LpPool",
        "MatMul",
        "Max",
        "MaxPool",
        "Mean",
        "Min",
        "Mul",
        "Neg",
        "Not",
        "Or",
        "PRelu",
        "Pad",
        "Pow",
        "Range",
        "ReduceL1",
        "ReduceL2",
        "ReduceLogSumExp",
        "ReduceMax",
        "ReduceMean",
        "ReduceMin",
        "ReduceProd",
        "ReduceSum",
        "ReduceSumSquare",
        "Relu",
        "Reshape",
        "Resize",
        "Selu",
        "Shape",
        "Sigmoid",
        "Sign",
        "Size",
        "Slice",
        "Softmax",
        "Softplus",
        "Softsign",
        "Split",
        "Sqrt",
        "Squeeze",
        "Sub",
        "Sum",
        "Tanh",
        "Tile",
        "Transpose",
        "Unsqueeze",
        "Where",
    ]
)
#: Options that operators have since opset 14, of which 0 is what they did before.
_NEW = ("allowzero", "start", "training_mode")


def for_tensorrt(model: onnx.ModelProto, where: str) -> onnx.ModelProto:
    """The graph in OPSET. Raises ExportError, naming them: operators that are not in OPERATORS, or that OPSET lacks.

    From 13 to 17 operators only took more types and new options; so the number is changed, the new options that say nothing are
    dropped, and ONNX's checker finds what OPSET does not have. The answers are compared afterwards, as always.
    """
    unknown = sorted({node.op_type for node in model.graph.node} - OPERATORS)
    if unknown:
        raise ExportError(f"{where}: TensorRT 8 does not know the operators {', '.join(unknown)}; use --to onnx there")
    older = onnx.ModelProto()
    older.CopyFrom(model)
    for entry in older.opset_import:
        entry.version = min(entry.version, OPSET) if not entry.domain else entry.version
    for node in older.graph.node:
        kept = [item for item in node.attribute if not (item.name in _NEW and item.i == 0)]
        del node.attribute[:]
        node.attribute.extend(kept)
    try:
        onnx.checker.check_model(older, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(
            f"{where}: cannot be written in opset {OPSET}, which every TensorRT from 8 on reads "
            f"({str(error).splitlines()[0][:160]}); use --to onnx with a newer TensorRT"
        ) from error
    return older


def with_batch(model: onnx.ModelProto, count: int) -> onnx.ModelProto:
    """The graph for batches of exactly `count` chips: static shapes throughout, where TensorRT optimises best."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for item in (*fixed.graph.input, *fixed.graph.output):
        item.type.tensor_type.shape.dim[0].dim_value = count
    return fixed


def build_line(file: Path, crop: CropSpec, batch: int | None = None, most: int = 32) -> str:
    """The command that builds the engine, on the machine with the card; `file` is what `mien export` wrote there."""
    words = ["trtexec", f"--onnx={file.name}", f"--saveEngine={file.with_suffix('.engine').name}", "--fp16"]
    if batch is None:
        sizes = {"min": 1, "opt": min(8, most), "max": most}
        words += [f"--{word}Shapes=chips:{size}x3x{crop.height}x{crop.width}" for word, size in sizes.items()]
    return " ".join(words)
