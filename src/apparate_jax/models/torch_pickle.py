"""An unpickler for state dicts that can execute nothing.

A pickle is a program: it may import and call anything. Here every name that it can refer to is in a
closed table (:data:`_NAMES`) of inert stand-ins, which note what a tensor is and import, call and
change nothing; everything else is refused with the name that was found. Before that the opcodes
themselves are checked: those that state dicts never need are refused, and so is a memo index that
would make the interpreter allocate gigabytes.

References: Python's documentation of ``pickle``, "Restricting Globals".
"""

import io
import pickle
import pickletools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from apparate_jax.errors import WeightsError


class StorageRef(NamedTuple):
    """A run of numbers that tensors share, to be found in the file under its key."""

    key: str
    dtype: np.dtype[Any]
    numel: int


class TensorRef(NamedTuple):
    """A tensor: a window on a storage. Element ``i, j`` stands at ``offset + i s0 + j s1``."""

    storage: StorageRef
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Name:
    """What a pickled name becomes: callable at most, and unchangeable by the pickle."""

    __slots__ = ("_call", "dtype")

    def __init__(
        self, call: Callable[..., Any] | None = None, dtype: np.dtype[Any] | None = None
    ) -> None:
        self._call = call
        self.dtype = dtype

    def __call__(self, *args: Any) -> Any:
        if self._call is None:
            raise WeightsError("a type of storage is called")
        return self._call(*args)

    def __setstate__(self, state: Any) -> None:
        raise WeightsError("a name is given a state")


class _Dict(dict[Any, Any]):
    """A dictionary that drops the attributes that PyTorch pickles with it."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        del state


def _dictionary(*args: Any) -> _Dict:
    return _Dict(*args)


def _integers(values: Any) -> tuple[int, ...]:
    if not isinstance(values, tuple) or not all(type(v) is int and v >= 0 for v in values):
        raise WeightsError(f"a tensor's shape or strides are {values!r}"[:200])
    return values


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> TensorRef:
    del rest
    if not isinstance(storage, StorageRef):
        raise WeightsError(f"a tensor on a {type(storage).__name__} instead of a storage")
    (start,) = _integers((offset,))
    tensor = TensorRef(storage, start, _integers(shape), _integers(strides))
    if len(tensor.shape) != len(tensor.strides):
        raise WeightsError(f"a tensor of shape {list(shape)} with strides {list(strides)}"[:200])
    count = 1
    for length in tensor.shape:
        count *= length
    last = start + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.strides, strict=True))
    if count and (count > storage.numel or last >= storage.numel):
        raise WeightsError(
            f"a tensor of shape {list(shape)}, strides {list(strides)} and offset {start} on a "
            f"storage of {storage.numel} numbers"[:300]
        )
    return tensor


def _parameter(data: Any, *rest: Any) -> Any:
    del rest
    return data


def _size(*args: Any) -> tuple[Any, ...]:
    return tuple(*args)


_DTYPES: Mapping[str, Any] = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "BFloat16Storage": jnp.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}

_NAMES: Mapping[tuple[str, str], _Name] = {
    ("collections", "OrderedDict"): _Name(_dictionary),
    ("torch", "Size"): _Name(_size),
    ("torch._utils", "_rebuild_tensor"): _Name(_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): _Name(_tensor),
    ("torch._utils", "_rebuild_parameter"): _Name(_parameter),
    **{("torch", name): _Name(dtype=np.dtype(dtype)) for name, dtype in _DTYPES.items()},
}

_REFUSED = {"INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4", "PERSID", "NEXT_BUFFER"}
"""Opcodes that make instances, or refer to what is not in the file."""


def _known(module: str, name: str) -> _Name:
    found = _NAMES.get((module, name))
    if found is None:
        what = f"{module}.{name}"[:200]
        raise WeightsError(f"it refers to {what}, which a state dict does not need")
    return found


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.storages: dict[str, StorageRef] = {}

    def find_class(self, module: str, name: str) -> _Name:
        """The stand-in of a name of the table."""
        return _known(module, name)

    def persistent_load(self, pid: Any) -> StorageRef:
        """A storage: ``("storage", type, key, device, count)``, and no view of another one."""
        if not isinstance(pid, tuple) or len(pid) not in (5, 6) or pid[0] != "storage":
            raise WeightsError(f"it refers to {pid!r} outside of itself"[:200])
        kind, key, count = pid[1], pid[2], pid[4]
        if not isinstance(kind, _Name) or kind.dtype is None or type(key) is not str:
            raise WeightsError(f"a storage of unknown type, {key!r}"[:200])
        if len(pid) == 6 and pid[5] is not None:
            raise WeightsError("a storage that is a view of another one, of a very old PyTorch")
        storage = StorageRef(key, kind.dtype, *_integers((count,)))
        if self.storages.setdefault(key, storage) != storage:
            raise WeightsError(f"storage {key!r} is declared twice, differently"[:200])
        return storage


def load(file: io.BytesIO) -> tuple[Any, dict[str, StorageRef]]:
    """The next pickle of a file, and the storages that it refers to, by key.

    Args:
        file: Left behind the pickle.

    Returns:
        Plain values with a :class:`TensorRef` for each tensor, and the storages.

    Raises:
        WeightsError: Says what was found that is no part of a state dict, or that it is damaged.
    """
    try:
        _check_opcodes(file)
        unpickler = _Unpickler(file)
        return unpickler.load(), unpickler.storages
    except WeightsError:
        raise
    except Exception as error:  # whatever a damaged or malicious pickle makes the machine do
        raise WeightsError(f"its pickle is damaged ({type(error).__name__}: {error})") from error


def _check_opcodes(file: io.BytesIO) -> None:
    start = file.tell()
    for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if opcode.name in ("GLOBAL", "INST"):  # here, so that the message has the name
            _known(*str(argument).split(" ", 1))
        if opcode.name in _REFUSED:
            raise WeightsError(f"its pickle uses {opcode.name}, which a state dict does not need")
        if opcode.name.endswith("PUT") and (argument is None or argument > count):
            raise WeightsError(f"its pickle numbers object {argument} after {count} steps")
    file.seek(start)
