"""What a server tells of itself: counts and times, for Prometheus, dashboards and the protocol."""

from apparate_jax.serve.telemetry.metrics import MetricsCollector, render
from apparate_jax.serve.telemetry.statistics import Statistics
from apparate_jax.serve.telemetry.status import status_of

__all__ = ["MetricsCollector", "Statistics", "render", "status_of"]
