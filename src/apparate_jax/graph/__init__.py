"""Jaxprs: trace a model, find its cut vertices, split it into stages."""

from apparate_jax.graph.program import Program, Stage, trace

__all__ = ["Program", "Stage", "trace"]
