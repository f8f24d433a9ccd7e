"""Metrics for Prometheus: Triton's names where Triton has them, else ``apparate_*``.

Families are made from the counts when they are scraped, so that counting costs nothing more.
https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/user_guide/metrics.html
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from apparate_jax.core import FINAL
from apparate_jax.serve.telemetry.counts import SPAN, Duration, Histogram
from apparate_jax.serve.telemetry.statistics import Statistics
from apparate_jax.serve.telemetry.status import utilities_ms

_LABELS = ("model", "version")


Models = Callable[[], Mapping[tuple[str, str], Statistics]]
"""The counts of the models that are served now, by name and version."""


class MetricsCollector(Collector):
    """Everything that is counted of all models, as metric families."""

    def __init__(self, models: Models) -> None:
        """Nothing is read before a scrape.

        Args:
            models: Asked at each scrape.
        """
        self._models = models

    def collect(self) -> Iterator[Metric]:
        """The families of a scrape."""
        models = self._models()
        for family in _FAMILIES:
            metric = family.make()
            for key, counts in models.items():
                for labels, value in family.values(counts):
                    _add(metric, (*key, *labels), value)
            yield metric


def render(models: Models, accept: str = "") -> tuple[bytes, str]:
    """The text of a scrape and its content type, as the client accepts it."""
    registry = CollectorRegistry()
    registry.register(MetricsCollector(models))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


Value = float | Histogram
Values = Iterable[tuple[tuple[str, ...], Value]]


def _name(s: Statistics, site: int) -> str:
    return FINAL if site < 0 else s.site_names[site]


class _Family(NamedTuple):
    """A metric: what it is called, and its values for one model."""

    name: str
    what: str
    kind: type[Metric]
    read: Callable[[Statistics], Values]
    labels: tuple[str, ...] = ()

    def make(self) -> Metric:
        return self.kind(self.name, self.what, labels=(*_LABELS, *self.labels))  # type: ignore[call-arg]

    def values(self, counts: Statistics) -> Values:
        with counts.lock:
            return list(self.read(counts))


def _add(metric: Metric, labels: tuple[str, ...], value: Value) -> None:
    if isinstance(value, Histogram):
        assert isinstance(metric, HistogramMetricFamily)
        metric.add_metric(labels, value.cumulative(), value.total_s)
    else:
        assert isinstance(metric, CounterMetricFamily | GaugeMetricFamily)
        metric.add_metric(labels, value)


def _one(read: Callable[[Statistics], Value]) -> Callable[[Statistics], Values]:
    return lambda s: [((), read(s))]


def _micros(read: Callable[[Statistics], Duration]) -> Callable[[Statistics], Values]:
    return _one(lambda s: read(s).total_s * 1e6)


def _exits(s: Statistics) -> Values:
    sites = {-1, *s.plan.sites, *s.exits}
    return [((_name(s, site),), float(s.exits[site])) for site in sorted(sites)]


def _thresholds(s: Statistics) -> Values:
    plan = s.plan
    return [((_name(s, r),), t) for r, t in zip(plan.sites, plan.thresholds, strict=True)]


def _active(s: Statistics) -> Values:
    names = enumerate(s.site_names)
    return [((name,), float(site in s.plan.sites)) for site, name in names]


def _utilities(s: Statistics) -> Values:
    return [((_name(s, site),), ms) for site, ms in utilities_ms(s).items()]


def _stopped(s: Statistics) -> Values:
    return [((_name(s, site),), float(n)) for site, n in sorted(s.stopped.items())]


def _failures(s: Statistics) -> Values:
    return [((reason,), float(n)) for reason, n in sorted(s.failures.items())]


def _batches(s: Statistics) -> Values:
    shapes = sorted(s.batches.items())
    return [((str(shape),), float(one.infer.count)) for shape, one in shapes]


def _batch_seconds(s: Statistics) -> Values:
    shapes = sorted(s.batches.items())
    return [((str(shape),), one.infer.total_s) for shape, one in shapes]


def _window_wrong(s: Statistics) -> float:
    return float(s.recent.wrong[s.recent.rows(SPAN)].sum())


def _agreement(s: Statistics) -> float:
    return 1.0 - s.wrong / s.checked if s.checked else 1.0


_C, _G, _H = CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
_FAMILIES = (
    _Family("nv_inference_request_success", "Requests that were answered", _C,
            _one(lambda s: s.success.count)),
    _Family("nv_inference_request_failure", "Requests that were not", _C, _failures, ("reason",)),
    _Family("nv_inference_count", "Inputs that were answered", _C, _one(lambda s: s.queue.count)),
    _Family("nv_inference_exec_count", "Batches", _C,
            _one(lambda s: sum(b.infer.count for b in s.batches.values()))),
    _Family("nv_inference_request_duration_us", "Of answered requests, together", _C,
            _micros(lambda s: s.success)),
    _Family("nv_inference_queue_duration_us", "Waiting for a batch, of inputs", _C,
            _micros(lambda s: s.queue)),
    _Family("nv_inference_compute_input_duration_us", "Reading requests", _C,
            _micros(lambda s: s.input)),
    _Family("nv_inference_compute_infer_duration_us", "Dispatch to answer, of inputs", _C,
            _micros(lambda s: s.infer)),
    _Family("nv_inference_compute_output_duration_us", "Writing responses", _C,
            _micros(lambda s: s.output)),
    _Family("nv_inference_pending_request_count", "Requests under way", _G,
            _one(lambda s: s.pending)),
    _Family("apparate_ready", "Whether requests are taken", _G, _one(lambda s: s.ready)),
    _Family("apparate_queue_size", "Inputs that wait for a batch", _G,
            _one(lambda s: s.waiting)),
    _Family("apparate_exits", "Answers by where they left", _C, _exits, ("exit",)),
    _Family("apparate_threshold", "Error below which an answer leaves", _G, _thresholds, ("ramp",)),
    _Family("apparate_ramp_active", "Whether a ramp runs", _G, _active, ("ramp",)),
    _Family("apparate_utility_milliseconds", "What a ramp saves per input, its cost taken off", _G,
            _utilities, ("ramp",)),
    _Family("apparate_answers_checked", "Answers compared with the original's", _C,
            _one(lambda s: s.checked)),
    _Family("apparate_answers_disagreed", "Those that were another", _C, _one(lambda s: s.wrong)),
    _Family("apparate_agreement", "Share of answers that equal the original's", _G,
            _one(_agreement)),
    _Family("apparate_window_disagreed", f"Wrong ones among the last {SPAN} answers", _G,
            _one(_window_wrong)),
    _Family("apparate_max_disagreement", "The constraint, as a share", _G,
            _one(lambda s: s.max_disagreement)),
    _Family("apparate_exit_cap", "Answers that may have left early since the start", _G,
            _one(lambda s: float("inf") if s.plan.exit_cap is None else s.plan.exit_cap)),
    _Family("apparate_latency_seconds", "Arrival to answer, of inputs", _H,
            _one(lambda s: s.latency)),
    _Family("apparate_full_latency_seconds", "Arrival to the original model's answer", _H,
            _one(lambda s: s.full_latency)),
    _Family("apparate_queue_seconds", "Arrival to dispatch", _H, _one(lambda s: s.queue_times)),
    _Family("apparate_tuning_seconds", "Tunings of thresholds", _H, _one(lambda s: s.tunings)),
    _Family("apparate_set_changes", "Changes of the active ramps", _C,
            _one(lambda s: s.set_changes)),
    _Family("apparate_ramp_stops", "Ramps stopped because of wrong answers", _C, _stopped,
            ("ramp",)),
    _Family("apparate_batches", "Batches by padded size", _C, _batches, ("size",)),
    _Family("apparate_batch_seconds", "Their time on the device", _C, _batch_seconds, ("size",)),
    _Family("apparate_shadow_batches", "Batches that ran every ramp", _C,
            _one(lambda s: s.shadow_batches)),
    _Family("apparate_deferred_batches", "Batches whose rest ran after others, all answered", _C,
            _one(lambda s: s.deferred_batches)),
    _Family("apparate_bare_batches", "Batches that ran none, by load", _C,
            _one(lambda s: s.bare_batches)),
)  # fmt: skip
