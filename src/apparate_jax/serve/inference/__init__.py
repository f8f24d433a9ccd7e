"""What every frontend needs of a served model, whatever its protocol on the wire.

A :class:`Served` model turns parsed requests into replies: tensors and parameters, or a stream of
them. What it refuses has a :class:`Kind`, which each frontend has a status for.
"""

from apparate_jax.serve.inference.answers import Answering
from apparate_jax.serve.inference.describe import server_metadata
from apparate_jax.serve.inference.models import (
    Models,
    check_control,
    statistics_of,
)
from apparate_jax.serve.inference.refusals import Kind, Refusal, kind_of, public_text
from apparate_jax.serve.inference.served import Reply, Served, now_s

__all__ = [
    "Answering",
    "Kind",
    "Models",
    "Refusal",
    "Reply",
    "Served",
    "check_control",
    "kind_of",
    "now_s",
    "public_text",
    "server_metadata",
    "statistics_of",
]
