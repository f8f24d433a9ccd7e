"""Serving: compiled programs, the engine, its profile and feedback, and the protocol."""

from apparate_jax.serve.engine import Engine, EngineConfig
from apparate_jax.serve.service import Service, ServiceConfig, prepare

__all__ = ["Engine", "EngineConfig", "Service", "ServiceConfig", "prepare"]
