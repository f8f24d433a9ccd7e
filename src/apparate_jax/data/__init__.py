"""Readers of data: text with a tokenizer, arrays by name."""

from apparate_jax.data.dataset import Dataset
from apparate_jax.data.load import load_data

__all__ = ["Dataset", "load_data"]
