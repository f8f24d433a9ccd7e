"""Read an ``.onnx`` file: protobuf to :class:`~apparate_jax.models.onnx.graph.Graph`.

The file is not trusted. What is damaged, cyclic, of an opset that nobody checked or incomplete is
one line of :class:`~apparate_jax.errors.WeightsError`, and nothing is loaded. Tensors in external
files are read from the model's own directory only: an absolute path, ``..`` or a link that leads
out of it is an error.

Sharp edges: the whole file is read into memory; a protobuf holds at most 2 GiB, larger models keep
their tensors in external files.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from apparate_jax.errors import ModelError, WeightsError
from apparate_jax.models.onnx.graph import Graph, Node, Value, reads

OLDEST_OPSET, NEWEST_OPSET = 7, 28
"""Versions of ONNX's own operators that the op tables were written and tested for."""

KEPT_ELSEWHERE = "apparate-params"
"""Location of a tensor whose data is among the parameters of a checkpoint."""

Proto = Any
DEFAULT_DOMAINS = ("", "ai.onnx")


def _onnx() -> Any:
    try:
        import onnx
        import onnx.inliner
    except ImportError as error:
        raise ModelError(
            "reading .onnx files needs the onnx package: pip install 'apparate-jax[onnx]'"
        ) from error
    return onnx


def read_model(path: Path) -> Proto:
    """The model of a file, with external tensors read in.

    Raises:
        WeightsError: No such file, no ONNX, truncated, or external data that is missing or lies
            outside of the file's directory.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"cannot read the model {path}: {error.strerror or error}") from error
    model = parse_model(content, str(path))
    for tensor in _tensor_protos(model.graph):
        if tensor.data_location == tensor.EXTERNAL:
            _read_external(tensor, path)
    return model


def parse_model(content: bytes, where: str) -> Proto:
    """The model in these bytes, its functions inlined; external tensors stay unread.

    Args:
        content: A serialised ``ModelProto``.
        where: For messages.

    Raises:
        WeightsError: No ONNX, truncated, or of an opset that is not supported.
    """
    onnx = _onnx()
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's own error has no stable class
        raise WeightsError(
            f"{where} is no ONNX model, or a truncated one ({error}): download or export it again"
        ) from error
    if not model.HasField("graph") or not model.graph.node or not model.opset_import:
        raise WeightsError(
            f"{where} is no ONNX model, or a truncated one (no graph, nodes or opset in "
            f"{len(content)} bytes): download or export it again"
        )
    _check_opset(model, where)
    if not model.functions:
        return model
    functions = {(f.domain, f.name): f for f in model.functions}
    for nodes in (model.graph.node, *(f.node for f in model.functions)):
        for node in nodes:
            if (node.domain, node.op_type) in functions:
                _fill_in(node, functions[node.domain, node.op_type].attribute_proto)
    return onnx.inliner.inline_local_functions(model)


def _fill_in(node: Proto, defaults: Iterable[Proto]) -> None:
    """Give a node the attributes that it leaves out: the inliner forgets their defaults."""
    given = {attribute.name for attribute in node.attribute}
    node.attribute.extend(default for default in defaults if default.name not in given)


def expand_functions(model: Proto, known: Collection[str]) -> Proto:
    """The model with operators that are not known replaced by what ONNX defines them as.

    Operators like ``Attention`` or ``RotaryEmbedding`` are functions of simpler ones in the
    standard. Where the definition cannot be used, the operator stays.

    Args:
        model: Its other operators get the defaults of their attributes.
        known: Operators that need no replacing.
    """
    onnx = _onnx()
    others = [
        node
        for node in model.graph.node
        if node.domain in DEFAULT_DOMAINS and node.op_type not in known
    ]
    if not others:
        return model
    keep = [("", op) for op in known]
    try:
        for node in others:
            schema = onnx.defs.get_schema(node.op_type, _opsets(model).get("", 1))
            defaults = (attribute.default_value for attribute in schema.attributes.values())
            _fill_in(node, [default for default in defaults if default.name])
        return onnx.inliner.inline_selected_functions(
            model, keep, exclude=True, inline_schema_functions=True
        )
    except Exception:  # none of ONNX's, or one that its library cannot expand: reported as missing
        return model


def _check_opset(model: Proto, where: str) -> None:
    found = _opsets(model).get("")
    if found is not None and not OLDEST_OPSET <= found <= NEWEST_OPSET:
        raise WeightsError(
            f"{where} is of opset {found}, expected {OLDEST_OPSET} to {NEWEST_OPSET}: export it "
            "with opset_version=17, or convert it with onnx.version_converter"
        )


def _opsets(model: Proto) -> dict[str, int]:
    return {
        "" if entry.domain in DEFAULT_DOMAINS else entry.domain: entry.version
        for entry in model.opset_import
    }


def _tensor_protos(graph: Proto) -> Iterator[Proto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            if attribute.HasField("g"):
                yield from _tensor_protos(attribute.g)


def _read_external(tensor: Proto, path: Path) -> None:
    """Fill a tensor from its external file, which lies in the model's directory."""
    facts = {entry.key: entry.value for entry in tensor.external_data}
    location = facts.get("location", "")
    root = path.absolute().parent.resolve()
    file = (root / location).resolve()
    what = f"tensor {tensor.name!r} of {path}"
    if not location or Path(location).is_absolute() or not file.is_relative_to(root):
        raise WeightsError(
            f"{what} is kept in {location!r}: external data is read from the model's directory "
            "only, put the file there and name it by a relative path"
        )
    try:
        offset = int(facts.get("offset", 0))
        length = int(facts["length"]) if "length" in facts else _num_bytes(tensor)
        with file.open("rb") as stream:
            stream.seek(offset)
            data = stream.read(length)
    except (OSError, ValueError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise WeightsError(
            f"{what} is kept in {location!r}, which cannot be read ({reason}): put the external "
            "data beside the model"
        ) from error
    if len(data) != length:
        raise WeightsError(
            f"{what} needs {length} bytes at {offset} of {location!r}, which ends before: the "
            "external data is truncated or of another model"
        )
    tensor.raw_data = data
    tensor.data_location = tensor.DEFAULT
    del tensor.external_data[:]


def _num_bytes(tensor: Proto) -> int:
    return int(np.prod(tensor.dims, dtype=np.int64)) * _dtype(tensor.data_type).itemsize


def _dtype(code: int) -> np.dtype[Any]:
    """NumPy dtype of an element type.

    Raises:
        ValueError: Texts, or a type without NumPy counterpart.
    """
    try:
        dtype: np.dtype[Any] = np.dtype(_onnx().helper.tensor_dtype_to_np_dtype(code))
    except KeyError as error:
        raise ValueError(f"elements of unknown type {code}") from error
    if dtype.kind in "OSU":
        raise ValueError("elements that are texts")
    return dtype


def to_graph(model: Proto, where: str) -> Graph:
    """The graph of a model.

    Args:
        model: As :func:`read_model` or :func:`parse_model` gave it.
        where: For messages.

    Raises:
        WeightsError: Damaged tensors, values that nothing computes (a cycle, a missing input), or
            names that are used twice.
    """
    graph = _graph(model.graph, _opsets(model), where)
    _check_order(graph, where, frozenset())
    return graph


def _graph(proto: Proto, opsets: Mapping[str, int], where: str) -> Graph:
    tensors = {tensor.name: _array(tensor, where) for tensor in proto.initializer}
    if proto.sparse_initializer:
        raise WeightsError(f"{where} has sparse initialisers: export it with dense ones")
    return Graph(
        nodes=tuple(_node(node, opsets, where) for node in proto.node),
        inputs=tuple(_value(v) for v in proto.input if v.name not in tensors),
        outputs=tuple(map(_value, proto.output)),
        tensors=tensors,
    )


def _array(tensor: Proto, where: str) -> np.ndarray[Any, Any] | jax.ShapeDtypeStruct:
    try:
        dtype = _dtype(tensor.data_type)
        if tensor.data_location == tensor.EXTERNAL:
            facts = {entry.key: entry.value for entry in tensor.external_data}
            if facts.get("location") != KEPT_ELSEWHERE:
                raise ValueError("its external data was not read")
            return jax.ShapeDtypeStruct(tuple(tensor.dims), jax.dtypes.canonicalize_dtype(dtype))
        return np.asarray(_onnx().numpy_helper.to_array(tensor))
    except (ValueError, TypeError, KeyError) as error:
        raise WeightsError(
            f"tensor {tensor.name!r} of {where} cannot be read ({error}): download or export the "
            "model again"
        ) from error


def _node(proto: Proto, opsets: Mapping[str, int], where: str) -> Node:
    domain = "" if proto.domain in DEFAULT_DOMAINS else proto.domain
    outputs = tuple(proto.output)
    return Node(
        name=proto.name or next(filter(None, outputs), proto.op_type),
        op=proto.op_type,
        domain=domain,
        opset=opsets.get(domain, 1),
        inputs=tuple(proto.input),
        outputs=outputs,
        attributes={a.name: _attribute(a, opsets, where) for a in proto.attribute},
    )


def _attribute(proto: Proto, opsets: Mapping[str, int], where: str) -> Any:
    readers: dict[int, Callable[[], Any]] = {
        proto.FLOAT: lambda: float(proto.f),
        proto.INT: lambda: int(proto.i),
        proto.STRING: lambda: proto.s.decode("utf-8", "replace"),
        proto.TENSOR: lambda: _array(proto.t, where),
        proto.GRAPH: lambda: _graph(proto.g, opsets, where),
        proto.FLOATS: lambda: tuple(map(float, proto.floats)),
        proto.INTS: lambda: tuple(map(int, proto.ints)),
        proto.STRINGS: lambda: tuple(s.decode("utf-8", "replace") for s in proto.strings),
    }
    return readers.get(proto.type, lambda: None)()


def _value(proto: Proto) -> Value:
    if not proto.type.HasField("tensor_type"):
        return Value(proto.name, None, None)
    kind = proto.type.tensor_type
    try:
        dtype = _dtype(kind.elem_type)
    except ValueError:
        dtype = None
    if not kind.HasField("shape"):
        return Value(proto.name, None, dtype)
    sizes = tuple(int(d.dim_value) if d.dim_value > 0 else None for d in kind.shape.dim)
    return Value(proto.name, sizes, dtype)


def _check_order(graph: Graph, where: str, around: frozenset[str]) -> None:
    known = set(around) | set(graph.tensors) | {value.name for value in graph.inputs}
    for node in graph.nodes:
        unknown = sorted(reads(node) - known)
        if unknown:
            raise WeightsError(
                f"{node} of {where} reads {unknown[0]!r}, which neither an input, a tensor nor an "
                "earlier node gives: the graph has a cycle, or a piece is missing"
            )
        for sub in node.subgraphs:
            _check_order(sub, where, frozenset(known))
        twice = sorted((known - around) & set(filter(None, node.outputs)))
        if twice:
            raise WeightsError(f"{node} of {where} makes {twice[0]!r}, which is there already")
        known |= set(node.outputs)
    lost = [value.name for value in graph.outputs if value.name not in known]
    if lost:
        raise WeightsError(f"nothing in {where} computes the output {lost[0]!r}")


def without_data(model: Proto, keep: Collection[str]) -> bytes:
    """Take the data of all tensors but some out of a model and serialise what is left.

    Initialisers that are not named keep their shapes only. Constants that became parameters stand
    among the initialisers then.

    Args:
        model: Is changed, so that its data is not in memory twice.
        keep: Names of values whose data stays.
    """
    nodes = list(model.graph.node)
    del model.graph.node[:]
    for node in nodes:
        value = next((a.t for a in node.attribute if a.name == "value" and a.HasField("t")), None)
        if node.op_type != "Constant" or value is None or node.output[0] in keep:
            model.graph.node.append(node)
            continue
        tensor = model.graph.initializer.add()
        tensor.CopyFrom(value)
        tensor.name = node.output[0]
    for tensor in model.graph.initializer:
        if tensor.name not in keep:
            _drop_data(tensor)
    return bytes(model.SerializeToString())


def _drop_data(tensor: Proto) -> None:
    dims, code, name = tuple(tensor.dims), tensor.data_type, tensor.name
    tensor.Clear()
    tensor.name, tensor.data_type = name, code
    tensor.dims.extend(dims)
    tensor.data_location = tensor.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", KEPT_ELSEWHERE
