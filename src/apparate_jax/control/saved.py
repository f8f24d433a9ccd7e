"""A controller's state as bytes, so that a server that was killed goes on where it was.

A state is named tuples of this package, tuples, arrays, numbers, text and None: nothing else is
written, and reading makes nothing else. The bytes are an ``.npz`` without pickles: the arrays, and
the structure as JSON. They carry a checksum and a **key**, which says what the state belongs to.

Sharp edge: a state of another version of a named tuple is refused, not converted.
"""

import hashlib
import io
import json
from typing import Any

import numpy as np

from apparate_jax.control import adjust, controller, drift, guard, ladder, paper, window
from apparate_jax.errors import StateError

_CLASSES: dict[str, type[Any]] = {
    f"{one.__module__.rsplit('.', 1)[-1]}.{one.__name__}": one
    for one in (
        *(controller.State, window.Window, window.Rows, ladder.Ladder, drift.Drift),
        *(guard.Guard, adjust.Shadows, paper.State),
    )
}
_NAMES = {one: name for name, one in _CLASSES.items()}
_STRUCTURE, _DIGEST = "structure", "sha256"


def encode(state: Any, key: str) -> bytes:
    """A state as bytes.

    Args:
        state: Of a controller.
        key: What it belongs to: model, ramps and settings.

    Raises:
        TypeError: Something in it is none of the values that a state is made of.
    """
    arrays: list[np.ndarray[Any, Any]] = []
    structure = json.dumps({"key": key, "state": _plain(state, arrays)})
    named = {f"array_{i}": array for i, array in enumerate(arrays)}
    named[_STRUCTURE] = np.frombuffer(structure.encode(), np.uint8)
    named[_DIGEST] = np.frombuffer(_digest(named), np.uint8)
    file = io.BytesIO()
    np.savez(file, **named)  # type: ignore[arg-type]
    return file.getvalue()


def decode(data: bytes, key: str) -> Any:
    """The state that was written under the same key.

    Raises:
        StateError: Damaged, of another key, or of another version.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            named = dict(file)
        digest = named.pop(_DIGEST).tobytes()
        sound = digest == _digest(named)
        content = json.loads(named.pop(_STRUCTURE).tobytes()) if sound else {}
    except Exception as error:
        raise StateError(f"the saved state cannot be read: {error}") from error
    if not sound:
        raise StateError("the saved state is damaged: its checksum is another one")
    if content["key"] != key:
        raise StateError("the saved state is of another model, other ramps or other settings")
    arrays = [named[f"array_{i}"] for i in range(len(named))]
    for array in arrays:
        array.flags.writeable = False
    return _made(content["state"], arrays)


def _digest(named: dict[str, np.ndarray[Any, Any]]) -> bytes:
    """Of names, dtypes, shapes and values, in the order of names."""
    found = hashlib.sha256()
    for name in sorted(named):
        array = named[name]
        found.update(f"{name} {array.dtype} {array.shape}\n".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.digest()


def _plain(value: Any, arrays: list[np.ndarray[Any, Any]]) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray):
        arrays.append(value)
        return {"array": len(arrays) - 1}
    if type(value) in _NAMES:
        fields = {name: _plain(part, arrays) for name, part in value._asdict().items()}
        return {"is": _NAMES[type(value)], "fields": fields}
    if type(value) is tuple:
        return {"tuple": [_plain(part, arrays) for part in value]}
    if isinstance(value, np.generic):
        return _plain(value.item(), arrays)
    raise TypeError(f"a controller's state holds a {type(value).__name__}, which cannot be saved")


def _made(plain: Any, arrays: list[np.ndarray[Any, Any]]) -> Any:
    if not isinstance(plain, dict):
        return plain
    if "array" in plain:
        return arrays[plain["array"]]
    if "tuple" in plain:
        return tuple(_made(part, arrays) for part in plain["tuple"])
    one = _CLASSES.get(plain["is"])
    fields = {name: _made(part, arrays) for name, part in plain["fields"].items()}
    if one is None or set(fields) != set(one._fields):
        raise StateError(f"the saved state has another version of {plain['is']!r}: start anew")
    return one(**fields)
