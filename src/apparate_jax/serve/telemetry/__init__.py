"""What a server tells of itself: counts and times, for Prometheus, dashboards and the protocol."""

from apparate_jax.serve.telemetry.metrics import MetricsCollector, Models, render
from apparate_jax.serve.telemetry.statistics import Statistics
from apparate_jax.serve.telemetry.status import server_status, status_of

__all__ = ["MetricsCollector", "Models", "Statistics", "render", "server_status", "status_of"]
