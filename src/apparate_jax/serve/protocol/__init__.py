"""The Open Inference Protocol v2 as pure functions between bytes and arrays.

The path of a request: :func:`parse_infer_request` reads the body, :func:`check_against` holds it
against the model's inputs, :func:`encode_infer_response` writes the answer. What is wrong is said
in one :class:`~apparate_jax.errors.RequestError`. No sockets, no engine.
"""

from apparate_jax.serve.protocol.check import check_against
from apparate_jax.serve.protocol.datatypes import BYTES, DTYPES, datatype_of
from apparate_jax.serve.protocol.request import InferRequest, RequestedOutput, parse_infer_request
from apparate_jax.serve.protocol.response import OutputTensor, Scalar, encode_infer_response

__all__ = [
    "BYTES",
    "DTYPES",
    "InferRequest",
    "OutputTensor",
    "RequestedOutput",
    "Scalar",
    "check_against",
    "datatype_of",
    "encode_infer_response",
    "parse_infer_request",
]
