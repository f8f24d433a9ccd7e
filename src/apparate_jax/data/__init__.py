"""Readers of data: texts, pictures, videos, arrays by name."""

from apparate_jax.data.dataset import ArrayDataset, Dataset
from apparate_jax.data.load import load_data

__all__ = ["ArrayDataset", "Dataset", "load_data"]
