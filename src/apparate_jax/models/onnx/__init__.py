"""ONNX files as JAX functions: a reader, op tables, an importer, and classifiers made of them."""

from apparate_jax.models.onnx.classifier import from_onnx, load_graph, rebuild_onnx
from apparate_jax.models.onnx.importer import OPS, Imported, import_graph

__all__ = ["OPS", "Imported", "from_onnx", "import_graph", "load_graph", "rebuild_onnx"]
