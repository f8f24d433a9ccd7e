"""The models of a server: brought up, found by name and version, replaced and taken away."""

from apparate_jax.serve.repository.deployment import Deployment, ModelConfig, bring_up
from apparate_jax.serve.repository.loading import Abandoned
from apparate_jax.serve.repository.repository import Repository

__all__ = ["Abandoned", "Deployment", "ModelConfig", "Repository", "bring_up"]
