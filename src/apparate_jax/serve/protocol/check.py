"""Whether a request's inputs are those that the model takes.

Integer inputs are converted to the model's integer dtype when every value fits: real clients send
INT64 token ids to a model of int32. Floating-point inputs are never converted. ``NaN`` and infinity
pass: what they mean is the model's business.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from apparate_jax.core import InputSpec
from apparate_jax.errors import RequestError
from apparate_jax.serve.protocol.datatypes import DTYPES, datatype_of, fit_integers


def check_against(
    specs: Sequence[InputSpec], inputs: Mapping[str, NDArray[Any]], max_rows: int
) -> dict[str, NDArray[Any]]:
    """Hold a request's inputs against those of the model.

    Args:
        specs: The model's inputs, at least one; shapes without the batch axis.
        inputs: What was sent, by name.
        max_rows: Most examples that one request may hold.

    Returns:
        Arrays ``[n, *spec.shape]`` of the model's dtypes, by name, in the order of ``specs``.

    Raises:
        RequestError: If names, datatypes, shapes or the number of examples do not fit.
    """
    if inputs.keys() != {spec.name for spec in specs}:
        raise RequestError(_wrong_names(inputs, [spec.name for spec in specs]))
    checked = {spec.name: _checked(spec, inputs[spec.name]) for spec in specs}
    rows = {name: len(array) for name, array in checked.items()}
    if len(set(rows.values())) != 1:
        raise RequestError(f"inputs differ in their number of examples (first axis): {rows}")
    count = next(iter(rows.values()))
    if count > max_rows:
        raise RequestError(
            f"the request holds {count} examples, expected at most {max_rows}: split it up"
        )
    return checked


def _wrong_names(inputs: Mapping[str, Any], expected: list[str]) -> str:
    unknown = [name for name in inputs if name not in expected]
    missing = [name for name in expected if name not in inputs]
    problems = [f"input {name!r} is unknown" for name in unknown[:4]]
    problems += [f"input {name!r} is missing" for name in missing]
    return f"{', '.join(problems)}: expected {expected}, got {list(inputs)[:16]}"


def _checked(spec: InputSpec, array: NDArray[Any]) -> NDArray[Any]:
    if array.ndim == 0 or array.shape[1:] != spec.shape:
        expected = ", ".join(["n", *map(str, spec.shape)])
        raise RequestError(
            f"input {spec.name!r} has shape {list(array.shape)}, expected [{expected}] for n "
            "examples"
        )
    wanted = datatype_of(spec.dtype)
    dtype = DTYPES[wanted]
    if array.dtype == dtype:
        return array
    if array.dtype.kind in "biu" and dtype.kind in "biu":
        try:
            return fit_integers(array, dtype)
        except RequestError as error:
            raise RequestError(f"input {spec.name!r}: {error}") from None
    raise RequestError(
        f"input {spec.name!r} has datatype {datatype_of(array.dtype)}, expected {wanted}"
    )
