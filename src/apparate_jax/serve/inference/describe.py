"""What clients can learn of the server and its model, as the JSON objects of the protocol.

References:
    Open Inference Protocol v2, "Server Metadata" and "Model Metadata"; Triton's extensions "model
    configuration" and "model repository".
"""

from importlib.metadata import version as version_of
from typing import Any

from apparate_jax.core import Model
from apparate_jax.serve.inference.outputs import SCORES
from apparate_jax.serve.protocol import BYTES, datatype_of

SERVER_NAME = "apparate-jax"
PLATFORM = "jax_jaxpr"
BACKEND = "apparate"
EXTENSIONS = ("binary_tensor_data", "classification", "model_configuration", "parameters")

Description = dict[str, Any]
"""A JSON object."""


def server_metadata() -> Description:
    """Name, version and extensions of this server."""
    return {
        "name": SERVER_NAME,
        "version": version_of(SERVER_NAME),
        "extensions": list(EXTENSIONS),
    }


def model_metadata(name: str, version: str, model: Model, num_classes: int) -> Description:
    """Names, datatypes and shapes of a model's inputs and outputs; -1 is the number of examples.

    Raises:
        ConfigError: If an input has a dtype that the protocol does not know.
    """

    def tensor(name: str, datatype: str, *shape: int) -> Description:
        return {"name": name, "datatype": datatype, "shape": [-1, *shape]}

    return {
        "name": name,
        "versions": [version],
        "platform": PLATFORM,
        "inputs": [
            tensor(spec.name, datatype_of(spec.dtype), *spec.shape) for spec in model.inputs
        ],
        "outputs": [tensor(SCORES, "FP32", num_classes), tensor("label", "INT64")],
    }


def model_config(metadata: Description, max_rows: int) -> Description:
    """The configuration that Triton's clients ask for: shapes of one example, and how many.

    Args:
        metadata: From :func:`model_metadata`.
        max_rows: Most examples in one request.
    """

    def tensor(entry: Description) -> Description:
        datatype = "STRING" if entry["datatype"] == BYTES else entry["datatype"]
        return {
            "name": entry["name"],
            "data_type": f"TYPE_{datatype}",
            # A single number has no axis in this format: one of length 1 stands for it.
            "dims": entry["shape"][1:] or [1],
            **({} if entry["shape"][1:] else {"reshape": {"shape": []}}),
        }

    return {
        "name": metadata["name"],
        "platform": metadata["platform"],
        "backend": BACKEND,
        "max_batch_size": max_rows,
        "input": [tensor(entry) for entry in metadata["inputs"]],
        "output": [tensor(entry) for entry in metadata["outputs"]],
    }
