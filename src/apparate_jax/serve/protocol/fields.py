"""Parts of a request that every encoding of it has: names, datatypes, shapes, what is asked for.

They come from JSON or from protobuf and are held to the same rules, with the same words.
"""

from collections.abc import Mapping
from reprlib import repr as short
from typing import Any

from apparate_jax.errors import RequestError
from apparate_jax.serve.protocol.datatypes import DTYPES

MAX_RANK = 32
MAX_NAME_LENGTH = 256
_SHARED_MEMORY = "shared_memory_region"


def checked_name(name: Any, where: str) -> str:
    """The name of a tensor.

    Raises:
        RequestError: If it is none.
    """
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME_LENGTH:
        raise RequestError(
            f"the name of {where} is {short(name)}, expected 1..{MAX_NAME_LENGTH} characters"
        )
    return name


def checked_datatype(datatype: Any, name: str) -> str:
    """The datatype of an input.

    Raises:
        RequestError: If the protocol has no such datatype.
    """
    if not isinstance(datatype, str) or datatype not in DTYPES:
        raise RequestError(
            f"datatype of input {name!r} is {short(datatype)}, expected one of {', '.join(DTYPES)}"
        )
    return datatype


def checked_shape(shape: Any, name: str) -> tuple[int, ...]:
    """The shape of an input, the batch axis included.

    Raises:
        RequestError: If it is no list of positive whole numbers, or has too many axes.
    """
    if (
        not isinstance(shape, list)
        or len(shape) > MAX_RANK
        or any(type(length) is not int or length < 1 for length in shape)
    ):
        raise RequestError(
            f"shape of input {name!r} is {short(shape)}, expected at most {MAX_RANK} whole "
            "numbers of at least 1"
        )
    return tuple(shape)


def check_supported(parameters: Mapping[str, Any], where: str) -> None:
    """Refuse parameters of a tensor that would change its form and are not supported.

    Raises:
        RequestError: If shared memory is asked for.
    """
    if _SHARED_MEMORY in parameters:
        raise RequestError(
            f"{where} has parameter {_SHARED_MEMORY!r}, which this server does not support"
        )


def classes_asked(parameters: Mapping[str, Any], where: str) -> int:
    """How many classes an output's parameters ask for; 0 for its values.

    Raises:
        RequestError: If ``classification`` is not a number of classes.
    """
    classes = parameters.get("classification", 0)
    if "classification" in parameters and (type(classes) is not int or classes < 1):
        raise RequestError(
            f"classification of {where} is {short(classes)}, expected a number of classes"
        )
    return int(classes)
