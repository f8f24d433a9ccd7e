"""Models: published weights, the zoo, and wrappers of modules that users bring."""

from apparate_jax.models.hf import from_hf
from apparate_jax.models.load import from_factory, load_model, rebuild
from apparate_jax.models.onnx import from_onnx
from apparate_jax.models.wrap import from_equinox, from_function, from_linen, from_nnx
from apparate_jax.models.zoo import from_zoo, zoo_names

__all__ = [
    "from_equinox",
    "from_factory",
    "from_function",
    "from_hf",
    "from_linen",
    "from_nnx",
    "from_onnx",
    "from_zoo",
    "load_model",
    "rebuild",
    "zoo_names",
]
