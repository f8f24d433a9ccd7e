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
RAW_INPUT = "raw_input"
"""Parameter of the configuration: the name of the input that stands for all others."""
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


def model_config(metadata: Description, max_rows: int, raw: str | None = None) -> Description:
    """The configuration that Triton's clients ask for: shapes of one example, and how many.

    The metadata has no word for an input that need not be given, and clients send all that it
    names; the configuration has one.

    Args:
        metadata: From :func:`model_metadata`.
        max_rows: Most examples in one request.
        raw: The BYTES input that may be given in place of all others, if there is one.
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

    inputs = [tensor(entry) for entry in metadata["inputs"]]
    if raw is not None:
        inputs.append({"name": raw, "data_type": "TYPE_STRING", "dims": [1], "optional": True})
    return {
        "name": metadata["name"],
        "platform": metadata["platform"],
        "backend": BACKEND,
        "max_batch_size": max_rows,
        "input": inputs,
        "output": [tensor(entry) for entry in metadata["outputs"]],
        **({} if raw is None else {"parameters": {RAW_INPUT: {"string_value": raw}}}),
    }
