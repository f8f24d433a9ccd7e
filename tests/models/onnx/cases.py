"""Calls of every operator, over the opsets in which its attributes became inputs."""

from typing import Any, NamedTuple

import numpy as np

from tests.models.onnx import graphs
from tests.models.onnx.graphs import normal


class Case(NamedTuple):
    op: str
    opset: int
    inputs: tuple[Any, ...]
    attributes: dict[str, Any] = {}  # noqa: RUF012
    outputs: int = 1
    limit: float = 1e-4

    def __str__(self):
        details = "-".join(f"{k}={v}" for k, v in self.attributes.items()).replace(" ", "")
        shapes = "-".join("none" if x is None else "x".join(map(str, x.shape)) for x in self.inputs)
        return f"{self.op}-{self.opset}-{shapes}-{details}"


def ints(*values):
    return np.asarray(values, np.int64)


def f32(value):
    return np.asarray(value, np.float32)


def whole(seed, *shape, low=-5, high=6):
    return np.random.default_rng(seed).integers(low, high, shape).astype(np.int64)


X = normal(0, 2, 3, 4)
IMAGE = normal(1, 2, 4, 7, 6)
SIGNAL = normal(2, 2, 4, 9)
VOLUME = normal(3, 1, 2, 5, 6, 4)
POSITIVE = np.abs(X) + 0.1
UNIT = np.clip(X, -0.99, 0.99)
BYTES = np.random.default_rng(4).integers(0, 255, (3, 5)).astype(np.uint8)
SIGNED = np.random.default_rng(5).integers(-128, 127, (5, 2)).astype(np.int8)

UNARY = [
    *(
        Case(op, 13, (X,))
        for op in "Abs Ceil Exp Floor Neg Sign Sigmoid Tanh Erf Reciprocal".split()
    ),
    *(Case(op, 13, (POSITIVE,)) for op in ("Log", "Sqrt")),
    *(Case(op, 9, (UNIT,)) for op in "Sin Cos Tan Sinh Cosh Asin Acos Atan Asinh Atanh".split()),
    Case("Acosh", 9, (POSITIVE + 1,)),
    Case("Round", 11, (f32([-2.5, -1.5, -0.5, 0.5, 1.5, 2.4]),)),
    Case("IsNaN", 13, (f32([1, np.nan, np.inf]),)),
    Case("IsInf", 10, (f32([1, np.nan, np.inf, -np.inf]),)),
    Case("IsInf", 10, (f32([1, np.inf, -np.inf]),), {"detect_negative": 0}),
    Case("IsInf", 10, (f32([1, np.inf, -np.inf]),), {"detect_positive": 0}),
    Case("Not", 13, (X > 0,)),
    Case("Abs", 13, (whole(1, 3),)),
    Case("Relu", 13, (X,)),
    Case("LeakyRelu", 9, (X,), {"alpha": 0.2}),
    Case("Elu", 9, (X,), {"alpha": 0.7}),
    Case("Selu", 9, (X,)),
    Case("Celu", 12, (X,), {"alpha": 1.7}),
    Case("ThresholdedRelu", 10, (X,), {"alpha": 0.3}),
    Case("HardSigmoid", 9, (4 * X,), {"alpha": 0.3, "beta": 0.4}),
    Case("HardSwish", 14, (4 * X,)),
    Case("Softplus", 9, (X,)),
    Case("Softsign", 9, (X,)),
    Case("Mish", 18, (X,)),
    Case("Shrink", 9, (X,), {"bias": 0.2, "lambd": 0.3}),
    Case("Gelu", 20, (X,)),
    Case("Gelu", 20, (X,), {"approximate": "tanh"}),
    Case("PRelu", 9, (X, normal(1, 3, 1))),
    Case("Softmax", 11, (X,)),
    Case("Softmax", 11, (X,), {"axis": 2}),
    Case("Softmax", 13, (X,)),
    Case("Softmax", 13, (X,), {"axis": 1}),
    Case("LogSoftmax", 11, (X,)),
    Case("LogSoftmax", 13, (X,), {"axis": 0}),
    Case("Identity", 13, (X,)),
    Case("Clip", 7, (X,), {"min": -0.5, "max": 0.4}),
    Case("Clip", 13, (X, f32(-0.5), f32(0.4))),
    Case("Clip", 13, (X, None, f32(0.4))),
    Case("Clip", 13, (X,)),
    Case("Clip", 13, (whole(3, 6), ints(-1).reshape(()), ints(2).reshape(()))),
    Case("BitwiseNot", 18, (whole(1, 3),)),
]
PAIRS = [
    *(Case(op, 13, (X, normal(7, 4))) for op in ("Add", "Sub", "Mul", "Div")),
    *(Case(op, 13, (X, X * (X > 0))) for op in ("Equal", "Less", "Greater")),
    *(Case(op, 16, (X, X * (X > 0))) for op in ("LessOrEqual", "GreaterOrEqual")),
    *(Case(op, 13, (X > 0, X > 0.5)) for op in ("And", "Or", "Xor")),
    *(Case(op, 13, (X, normal(7, 4), normal(8, 3, 1))) for op in ("Max", "Min", "Sum", "Mean")),
    Case(
        "Div", 13, (whole(1, 9), whole(2, 9, low=1) * np.sign(whole(3, 9) + 0.5).astype(np.int64))
    ),
    Case("Mod", 13, (whole(1, 9), whole(2, 9, low=1))),
    Case("Mod", 13, (X, POSITIVE), {"fmod": 1}),
    Case("Pow", 13, (POSITIVE, X)),
    Case("Pow", 13, (X, f32(2))),
    Case("Pow", 13, (X, f32(3.0).reshape(1))),
    Case("Pow", 13, (POSITIVE, f32(0.5))),
    Case("Pow", 13, (whole(1, 4), f32(2))),
    Case("Where", 16, (X > 0, X, normal(7, 4))),
    Case("BitShift", 11, (BYTES, BYTES % 4), {"direction": "LEFT"}),
    Case("BitShift", 11, (BYTES, BYTES % 4), {"direction": "RIGHT"}),
    *(Case(op, 18, (BYTES, BYTES[::-1])) for op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor")),
]
SHAPES = [
    Case("Shape", 13, (X,)),
    Case("Shape", 15, (X,), {"start": 1, "end": -1}),
    Case("Size", 13, (X,)),
    Case("Reshape", 13, (X, ints(0, -1))),
    Case("Reshape", 14, (normal(1, 0, 3), ints(0, 9)), {"allowzero": 1}),
    Case("Flatten", 13, (X,), {"axis": 2}),
    Case("Flatten", 13, (X,), {"axis": -2}),
    Case("Flatten", 13, (X,), {"axis": 0}),
    Case("Squeeze", 11, (X[:1, :, :1],), {"axes": [0, 2]}),
    Case("Squeeze", 13, (X[:1, :, :1], ints(-1))),
    Case("Squeeze", 13, (X[:1, :, :1],)),
    Case("Unsqueeze", 11, (X,), {"axes": [0, 4]}),
    Case("Unsqueeze", 13, (X, ints(-1, 1))),
    Case("Transpose", 13, (X,)),
    Case("Transpose", 13, (X,), {"perm": [1, 2, 0]}),
    Case("Concat", 13, (X, X[:, :1]), {"axis": 1}),
    Case("Concat", 13, (X, X), {"axis": -1}),
    Case("Split", 11, (X,), {"axis": 2, "split": [1, 3]}, outputs=2),
    Case("Split", 13, (X, ints(1, 2)), {"axis": 1}, outputs=2),
    Case("Split", 13, (X,), {"axis": 2}, outputs=2),
    Case("Split", 18, (X,), {"axis": 2, "num_outputs": 3}, outputs=3),
    Case("Slice", 9, (X,), {"starts": [0, 1], "ends": [2, 1000], "axes": [0, 2]}),
    Case("Slice", 9, (X,), {"starts": [-1], "ends": [2**62]}),
    Case("Slice", 13, (X, ints(-3), ints(2**62), ints(2), ints(2))),
    Case("Slice", 13, (X, ints(100), ints(-(2**62)), ints(2), ints(-1))),
    Case("Slice", 13, (X, ints(-2, 2), ints(-100, 0), ints(1, 2), ints(-1, -2))),
    Case("Slice", 13, (X, ints(1, 0, 3), ints(2, -1, 3))),
    Case("Gather", 13, (X, whole(1, 2, 2, low=-3, high=3)), {"axis": 1}),
    Case("Gather", 13, (X, ints(-1).reshape(())), {"axis": 2}),
    Case("GatherElements", 13, (X, whole(1, 2, 3, 2, low=-4, high=4)), {"axis": 2}),
    Case("GatherND", 13, (X, ints(0, 2, -1, 1).reshape(2, 2))),
    Case("GatherND", 13, (X, ints(2, 0).reshape(2, 1)), {"batch_dims": 1}),
    Case(
        "ScatterElements",
        13,
        (X, whole(1, 2, 3, 1, low=-4, high=4), normal(2, 2, 3, 1)),
        {"axis": 2},
    ),
    Case(
        "ScatterElements",
        16,
        (X, ints(*[1] * 6).reshape(2, 3, 1), normal(2, 2, 3, 1)),
        {"axis": 2, "reduction": "add"},
    ),
    Case("ScatterND", 13, (X, ints(1, 0).reshape(2, 1), normal(2, 2, 3, 4))),
    Case("ScatterND", 16, (X, ints(1, 1).reshape(2, 1), normal(2, 2, 3, 4)), {"reduction": "mul"}),
    Case("Expand", 13, (X[:, :1], ints(3, 1))),
    Case("Tile", 13, (X, ints(1, 2, 3))),
    Case("Pad", 10, (X,), {"pads": [0, 1, 2, 0, 0, 1], "value": 1.5}),
    Case("Pad", 13, (X, ints(0, 1, 2, 0, 0, 1), f32(1.5))),
    Case("Pad", 13, (X, ints(0, -1, 2, 0, 0, -1))),
    Case("Pad", 13, (X, ints(0, 1, 2, 0, 2, 1)), {"mode": "reflect"}),
    Case("Pad", 13, (X, ints(0, 1, 2, 0, 2, 1)), {"mode": "edge"}),
    Case("Pad", 18, (X, ints(1, 2), f32(0.5), ints(-1))),
    Case("Cast", 13, (X,), {"to": graphs.INT64}),
    Case("Cast", 13, (X,), {"to": graphs.TensorProto.BOOL}),
    Case("Cast", 13, (whole(1, 3),), {"to": graphs.FLOAT}),
    Case("CastLike", 15, (X, whole(1, 3))),
    Case("ConstantOfShape", 9, (ints(2, 3),)),
    Case("Range", 11, (ints(2).reshape(()), ints(11).reshape(()), ints(3).reshape(()))),
    Case("OneHot", 11, (ints(0, 2, -1), ints(3).reshape(()), f32([0.1, 0.9]))),
    Case("OneHot", 11, (ints(0, 2, 1), ints(3).reshape(()), f32([0.1, 0.9])), {"axis": 0}),
    Case("Trilu", 14, (X,)),
    Case("Trilu", 14, (X, ints(-1).reshape(())), {"upper": 0}),
    Case("EyeLike", 9, (X[0],), {"k": 1}),
    Case("DepthToSpace", 13, (IMAGE,), {"blocksize": 2}),
    Case("DepthToSpace", 13, (IMAGE,), {"blocksize": 2, "mode": "CRD"}),
    Case("SpaceToDepth", 13, (IMAGE[:, :, :6],), {"blocksize": 2}),
    Case("NonZero", 13, (X[0] > 0,)),
    Case("Dropout", 7, (X,)),
    Case("Dropout", 12, (X, f32(0.3))),
    Case("Dropout", 13, (X, f32(0.3), np.asarray(False)), outputs=2),
]
REDUCED = [
    *(
        Case(f"Reduce{name}", 11, (POSITIVE,), {"axes": [0, 2], "keepdims": keep})
        for name in "Mean Max Min Prod L1 L2 LogSum LogSumExp SumSquare Sum".split()
        for keep in (0, 1)
    ),
    *(
        Case(f"Reduce{name}", 18, (POSITIVE, ints(-1)))
        for name in ("Mean", "Max", "L2", "LogSumExp")
    ),
    Case("ReduceSum", 13, (X, ints(1)), {"keepdims": 0}),
    Case("ReduceSum", 13, (X,)),
    Case("ReduceSum", 13, (X,), {"noop_with_empty_axes": 1}),
    Case("ArgMax", 13, (X,), {"axis": 2}),
    Case("ArgMax", 13, (f32([[1, 3, 3]]),), {"axis": 1, "select_last_index": 1, "keepdims": 0}),
    Case("ArgMin", 13, (X,), {"axis": -2}),
    Case("CumSum", 11, (X, ints(1).reshape(()))),
    Case("CumSum", 11, (X, ints(-1).reshape(())), {"exclusive": 1, "reverse": 1}),
    Case("TopK", 11, (X, ints(2)), outputs=2),
    Case("TopK", 11, (X, ints(2)), {"axis": 1, "largest": 0}, outputs=2),
    Case("TopK", 11, (f32([1, 2, 2, 2]), ints(3)), outputs=2),
]
LAYERS = [
    Case("MatMul", 13, (normal(1, 2, 3, 4), normal(2, 4, 5))),
    Case("MatMul", 13, (normal(1, 4), normal(2, 2, 4, 5))),
    Case("Gemm", 13, (normal(1, 4, 3), normal(2, 5, 4)), {"transA": 1, "transB": 1}),
    Case("Gemm", 13, (normal(1, 3, 4), normal(2, 4, 5), normal(3, 5)), {"alpha": 0.5, "beta": 2.0}),
    Case("Gemm", 7, (normal(1, 3, 4), normal(2, 4, 5), normal(3, 5))),
    Case("Einsum", 12, (X, normal(2, 2, 4, 5)), {"equation": "bij, bjk -> bik"}),
    *(
        Case(
            "BatchNormalization",
            opset,
            (IMAGE, normal(1, 4), normal(2, 4), normal(3, 4), POSITIVE[0, 0]),
        )
        for opset in (7, 9, 14, 15)
    ),
    Case("LayerNormalization", 17, (X, normal(1, 4), normal(2, 4))),
    Case("LayerNormalization", 17, (X, normal(1, 3, 4)), {"axis": 1, "epsilon": 1e-3}),
    Case("InstanceNormalization", 9, (IMAGE, normal(1, 4), normal(2, 4))),
    Case("GroupNormalization", 18, (IMAGE, normal(1, 2), normal(2, 2)), {"num_groups": 2}),
    Case("GroupNormalization", 21, (IMAGE, normal(1, 4), normal(2, 4)), {"num_groups": 2}),
    Case("LRN", 13, (IMAGE,), {"size": 3, "alpha": 0.1, "beta": 0.6, "bias": 1.5}),
    Case("LRN", 13, (IMAGE,), {"size": 5}),
    Case("LpNormalization", 9, (X,), {"axis": 1, "p": 1}),
    Case("LpNormalization", 9, (X,)),
]
SAME = [{"auto_pad": auto, "strides": [2, 2]} for auto in ("SAME_UPPER", "SAME_LOWER", "VALID")]
WINDOWS = [
    Case("Conv", 11, (IMAGE, normal(2, 5, 4, 3, 3), normal(3, 5)), {"pads": [1, 0, 2, 1]}),
    Case("Conv", 11, (IMAGE, normal(2, 6, 2, 3, 2)), {"group": 2, "strides": [2, 1]}),
    Case("Conv", 11, (IMAGE, normal(2, 8, 1, 2, 2)), {"group": 4, "dilations": [2, 3]}),
    *(Case("Conv", 11, (IMAGE, normal(2, 5, 4, 3, 3)), more) for more in SAME),
    Case("Conv", 11, (SIGNAL, normal(2, 5, 4, 3)), {"pads": [1, 1]}),
    Case("Conv", 11, (VOLUME, normal(2, 3, 2, 3, 2, 1)), {"strides": [1, 2, 1]}),
    Case("ConvTranspose", 11, (IMAGE, normal(2, 4, 3, 3, 2), normal(3, 3)), {"strides": [2, 1]}),
    Case(
        "ConvTranspose",
        11,
        (IMAGE, normal(2, 4, 3, 3, 3)),
        {"strides": [2, 2], "pads": [1, 0, 1, 1], "output_padding": [1, 0], "group": 2},
    ),
    Case("ConvTranspose", 11, (IMAGE, normal(2, 4, 3, 3, 3)), {"dilations": [2, 1]}),
    Case("ConvTranspose", 11, (IMAGE, normal(2, 4, 3, 3, 3)), SAME[0]),
    Case(
        "ConvTranspose",
        11,
        (IMAGE, normal(2, 4, 3, 3, 3)),
        {"strides": [2, 2], "output_shape": [14, 13]},
    ),
    *(
        Case(op, opset, (IMAGE,), {"kernel_shape": [3, 2]} | more)
        for op, opset in (("MaxPool", 12), ("AveragePool", 11))
        for more in (
            {},
            {"strides": [2, 2], "pads": [1, 1, 0, 1]},
            {"strides": [2, 3], "ceil_mode": 1},
            {"strides": [3, 2], "pads": [1, 0, 1, 0], "ceil_mode": 1},
            *SAME,
        )
    ),
    Case("MaxPool", 12, (IMAGE,), {"kernel_shape": [2, 2], "dilations": [2, 3]}),
    Case("MaxPool", 12, (SIGNAL,), {"kernel_shape": [3], "strides": [2]}),
    Case(
        "MaxPool", 12, (BYTES.reshape(1, 1, 3, 5),), {"kernel_shape": [2, 2], "pads": [1, 1, 1, 1]}
    ),
    Case("AveragePool", 19, (IMAGE,), {"kernel_shape": [2, 2], "dilations": [2, 3]}),
    *(
        Case("AveragePool", 11, (IMAGE,), {"kernel_shape": [3, 2], "count_include_pad": 1} | more)
        for more in (
            {"pads": [1, 1, 1, 1]},
            {"pads": [1, 0, 1, 0], "strides": [3, 2]},
            {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
        )
    ),
    Case("GlobalAveragePool", 9, (IMAGE,)),
    Case("GlobalMaxPool", 9, (VOLUME,)),
]
SMALL = IMAGE[:1, :1]
RESIZED = [
    Case("Upsample", 7, (SMALL,), {"scales": [1.0, 1.0, 2.0, 3.0], "mode": "nearest"}),
    Case("Upsample", 9, (SMALL, f32([1, 1, 2, 3])), {"mode": "nearest"}),
    Case("Upsample", 9, (SMALL, f32([1, 1, 2, 3])), {"mode": "linear"}),
    Case("Resize", 10, (SMALL, f32([1, 1, 2, 0.5])), {"mode": "nearest"}),
    Case("Resize", 10, (SMALL, f32([1, 1, 2, 0.5])), {"mode": "linear"}),
    *(
        Case(
            "Resize",
            13,
            (SMALL, None, f32([1, 1, 1.7, 0.6])),
            {"mode": mode, "coordinate_transformation_mode": where},
        )
        for mode in ("linear", "cubic")
        for where in ("half_pixel", "asymmetric", "pytorch_half_pixel", "align_corners")
    ),
    *(
        Case(
            "Resize",
            13,
            (SMALL, None, None, ints(1, 1, 10, 4)),
            {"mode": "nearest", "coordinate_transformation_mode": where, "nearest_mode": near},
        )
        for where in ("half_pixel", "asymmetric", "align_corners")
        for near in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
    ),
    Case(
        "Resize", 13, (SMALL, None, f32([1, 1, 0.7, 0.6])), {"mode": "cubic", "exclude_outside": 1}
    ),
    Case("Resize", 18, (SMALL, None, f32([2, 2])), {"mode": "linear", "axes": [2, 3]}),
]
QUANTISED = [
    Case("QuantizeLinear", 13, (20 * X, f32(0.2), np.asarray(3, np.uint8))),
    Case(
        "QuantizeLinear",
        13,
        (20 * X, f32([0.2, 0.1, 0.3]), np.asarray([0, 3, -2], np.int8)),
        {"axis": 1},
    ),
    Case("DequantizeLinear", 13, (BYTES, f32(0.2), np.asarray(3, np.uint8))),
    Case("DequantizeLinear", 13, (SIGNED, f32([0.2, 0.1])), {"axis": 1}),
    Case("DynamicQuantizeLinear", 11, (X,), outputs=3),
    Case("DynamicQuantizeLinear", 11, (np.zeros((2, 2), np.float32),), outputs=3),
    Case("MatMulInteger", 10, (BYTES, SIGNED, np.asarray(7, np.uint8), np.asarray(-1, np.int8))),
    Case("MatMulInteger", 10, (BYTES, SIGNED)),
    Case(
        "ConvInteger",
        10,
        (BYTES.reshape(1, 1, 3, 5), BYTES[:2, :2].reshape(1, 1, 2, 2), np.asarray(7, np.uint8)),
    ),
]
CASES = [*UNARY, *PAIRS, *SHAPES, *REDUCED, *LAYERS, *WINDOWS, *RESIZED, *QUANTISED]
# In the table, and checked by ONNX's own cases (test_conformance.py) or by graphs of several nodes.
ELSEWHERE = {"Constant", "CumProd", "RMSNormalization", "Scatter", "Swish"}
