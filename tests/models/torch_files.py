"""Files of ``torch.save`` in both of its formats, put together by hand from pickle's opcodes."""

import io
import pickle
import zipfile
from typing import Any

import jax.numpy as jnp
import numpy as np

STORAGES = {
    np.dtype(np.float32): "FloatStorage",
    np.dtype(np.float64): "DoubleStorage",
    np.dtype(np.float16): "HalfStorage",
    np.dtype(jnp.bfloat16): "BFloat16Storage",
    np.dtype(np.int64): "LongStorage",
    np.dtype(np.int32): "IntStorage",
    np.dtype(np.int16): "ShortStorage",
    np.dtype(np.int8): "CharStorage",
    np.dtype(np.uint8): "ByteStorage",
    np.dtype(np.bool_): "BoolStorage",
}
MAGIC = 0x1950A86A20F9469CFC6C
NEW, OLD = "new", "old"
FORMATS = (NEW, OLD)


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def text(value: str) -> bytes:
    encoded = value.encode()
    return b"X" + len(encoded).to_bytes(4, "little") + encoded


def integer(value: int) -> bytes:
    return f"I{value}\n".encode()


def tuple_of(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def integers(values: Any) -> bytes:
    return tuple_of(*map(integer, values))


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + tuple_of(*arguments) + b"R"


def dictionary(entries: dict[str, bytes]) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in entries.items()) + b"u"


def ordered(entries: dict[str, bytes]) -> bytes:
    """A state dict with the attribute that PyTorch gives it."""
    pairs = b"".join(text(key) + value for key, value in entries.items())
    made = call(name("collections", "OrderedDict")) + b"(" + pairs + b"u"
    return made + dictionary({"_metadata": dictionary({})}) + b"b"


def storage(key: str, kind: str, count: int) -> bytes:
    pid = (text("storage"), name("torch", kind), text(key), text("cpu"), integer(count))
    return tuple_of(*pid) + b"Q"


def tensor(stored: bytes, shape: Any, strides: Any, offset: int = 0) -> bytes:
    rest = (integer(offset), integers(shape), integers(strides), b"\x89")
    hooks = call(name("collections", "OrderedDict"))
    return call(name("torch._utils", "_rebuild_tensor_v2"), stored, *rest, hooks)


def program(value: bytes) -> bytes:
    return b"\x80\x02" + value + b"."


def pack(value: bytes, data: dict[str, tuple[int, bytes]], form: str) -> bytes:
    """A file of this pickled value; ``data`` are (count, bytes) of storages by key."""
    if form == NEW:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("archive/data.pkl", program(value))
            archive.writestr("archive/byteorder", "little")
            for key, (_, content) in data.items():
                archive.writestr(f"archive/data/{key}", content)
            archive.writestr("archive/version", "3\n")
        return file.getvalue()
    start = [pickle.dumps(v, 2) for v in (MAGIC, 1001, {"little_endian": True})]
    contents = [count.to_bytes(8, "little") + content for count, content in data.values()]
    keys = pickle.dumps(list(data), 2)
    return b"".join([*start, program(value), keys, *contents])


def pickled(arrays: dict[str, Any]) -> tuple[dict[str, bytes], dict[str, tuple[int, bytes]]]:
    """Tensors and storages of arrays, one storage each."""
    tensors, data = {}, {}
    for i, (key, array) in enumerate(arrays.items()):
        array = np.asarray(array)
        steps = [s // array.itemsize for s in np.empty(array.shape, array.dtype).strides]
        stored = storage(str(i), STORAGES[array.dtype], array.size)
        tensors[key] = tensor(stored, array.shape, steps)
        data[str(i)] = array.size, array.tobytes()
    return tensors, data


def state_dict(arrays: dict[str, Any], form: str = NEW) -> bytes:
    """A file of a state dict."""
    tensors, data = pickled(arrays)
    return pack(ordered(tensors), data, form)
