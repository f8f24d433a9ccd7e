"""The state dict in a file that ``torch.save`` wrote, read without PyTorch.

Both formats: the zip archive that it writes today, and the row of pickles of before version 1.6.
Nothing in the file is executed (:mod:`apparate_jax.models.torch_pickle`), and nothing is believed:
every size is compared with the bytes that are there before anything is made of it.
"""

import io
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apparate_jax.errors import WeightsError
from apparate_jax.models import torch_pickle
from apparate_jax.models.torch_pickle import StorageRef, TensorRef

REMEDY = (
    "give a file of tensors only, torch.save(model.state_dict(), path), or save it as safetensors"
)

_ZIP = b"PK\x03\x04"
_MAGIC = 0x1950A86A20F9469CFC6C
"""First pickle of the older format."""

_NESTED = ("state_dict", "model_state_dict", "model")
"""Where training scripts put the state dict in what they save."""

_DEPTH = 3
"""How deep it is looked for there."""

# What zipfile raises on damaged archives, whatever is damaged.
_DAMAGED = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
    zipfile.BadZipFile,
    struct.error,
)

Stored = tuple[dict[str, TensorRef], dict[str, bytes]]
"""The tensors by name, and the bytes of storages by key."""


def read_torch(path: Path) -> dict[str, NDArray[Any]]:
    """The tensors of a file, by name.

    Args:
        path: A file of a state dict, or of a dictionary with one under ``state_dict``,
            ``model_state_dict`` or ``model`` and plain values beside it.

    Returns:
        Arrays of the file's dtypes, bfloat16 included; those that shared memory still do.

    Raises:
        WeightsError: No such file, damaged or truncated, or anything in it but tensors and plain
            values: says what was found.
    """
    if not path.is_file():
        raise WeightsError(f"no weights at {path}: expected a file that torch.save wrote")
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            is_zip = file.read(len(_ZIP)) == _ZIP
        tensors, data = _read_zip(path, size) if is_zip else _read_legacy(path)
        return {name: _array(name, tensor, data) for name, tensor in tensors.items()}
    except WeightsError as error:
        raise WeightsError(f"cannot read {path}: {error}. Nothing loaded: {REMEDY}") from error
    except _DAMAGED as error:
        raise WeightsError(
            f"{path} is damaged or truncated ({size} bytes: {error!r}): copy or download it again"
        ) from error


def _read_zip(path: Path, size: int) -> Stored:
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        root = next((n.removesuffix("data.pkl") for n in entries if n.endswith("/data.pkl")), None)
        if root is None:
            raise WeightsError("a zip archive without data.pkl is not of torch.save")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
            raise WeightsError("its entries are compressed, which torch.save never does")
        if sum(entry.file_size for entry in entries.values()) > size:
            raise WeightsError("its entries declare more bytes than the file has")
        if f"{root}byteorder" in entries and archive.read(f"{root}byteorder") != b"little":
            raise WeightsError("its numbers are big-endian")
        value, _ = torch_pickle.load(io.BytesIO(archive.read(f"{root}data.pkl")))
        tensors = _state_dict(value)
        data: dict[str, bytes] = {}
        for storage in {tensor.storage for tensor in tensors.values()}:
            entry = entries.get(f"{root}data/{storage.key}")
            if entry is None:
                raise WeightsError(f"storage {storage.key!r} is missing")
            _check_size(storage, entry.file_size)
            data[storage.key] = archive.read(entry)
    return tensors, data


def _read_legacy(path: Path) -> Stored:
    file = io.BytesIO(path.read_bytes())
    if torch_pickle.load(file)[0] != _MAGIC:
        raise WeightsError("it is no file of torch.save")
    torch_pickle.load(file)  # the format's version, 1001 ever since
    system, _ = torch_pickle.load(file)
    if not isinstance(system, Mapping) or system.get("little_endian") is not True:
        raise WeightsError("its numbers are big-endian")
    value, storages = torch_pickle.load(file)
    tensors = _state_dict(value)
    keys, _ = torch_pickle.load(file)
    if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(storages):
        raise WeightsError("its list of storages is not that of its tensors")
    data: dict[str, bytes] = {}
    for key in keys:
        count = int.from_bytes(file.read(8), "little")
        if count != storages[key].numel:
            raise WeightsError(
                f"storage {key!r} has {count} numbers, {storages[key].numel} are declared"
            )
        data[key] = file.read(count * storages[key].dtype.itemsize)
        _check_size(storages[key], len(data[key]))
    if file.read(1):
        raise WeightsError("bytes are left over behind the last storage that is declared")
    return tensors, data


def _check_size(storage: StorageRef, num_bytes: int) -> None:
    expected = storage.numel * storage.dtype.itemsize
    if num_bytes != expected:
        raise WeightsError(
            f"storage {storage.key!r} has {num_bytes} bytes, {expected} are declared: it is "
            "truncated or damaged"
        )


def _state_dict(value: Any) -> dict[str, TensorRef]:
    """The tensors by name, from where they are in what was saved."""
    inner = value
    for _ in range(_DEPTH):
        if isinstance(inner, dict):
            inner = next((inner[k] for k in _NESTED if isinstance(inner.get(k), dict)), inner)
    if not isinstance(inner, dict):
        raise WeightsError(f"it holds a {type(inner).__name__}, expected tensors by name")
    tensors = {
        name: tensor
        for name, tensor in inner.items()
        if isinstance(name, str) and isinstance(tensor, TensorRef)
    }
    if not tensors:
        raise WeightsError(f"no tensors by name, but a dictionary with {list(inner)[:8]}"[:300])
    return tensors


def _array(name: str, tensor: TensorRef, data: Mapping[str, bytes]) -> NDArray[Any]:
    """The window that a tensor is on its storage, whose bounds are checked already."""
    dtype = tensor.storage.dtype
    numbers = np.frombuffer(data[tensor.storage.key], dtype)[tensor.offset :]
    strides = [step * dtype.itemsize for step in tensor.strides]
    try:
        return np.lib.stride_tricks.as_strided(numbers, tensor.shape, strides, writeable=False)
    except (ValueError, OverflowError) as error:
        raise WeightsError(f"{name} has an impossible shape: {error}"[:300]) from error
