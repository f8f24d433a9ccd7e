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
from apparate_jax.serve.telemetry.counts import Duration, Histogram
from apparate_jax.serve.telemetry.statistics import SPAN, Statistics
from apparate_jax.serve.telemetry.status import utilities_ms

_LABELS = ("model", "version")


class Watched(NamedTuple):
    """A served model as metrics see it.

    Attributes:
        statistics: Its counts.
        waiting: How many requests wait for a batch, now.
        ready: Whether it takes requests, now.
    """

    statistics: Statistics
    waiting: Callable[[], int]
    ready: Callable[[], bool]


Models = Callable[[], Mapping[tuple[str, str], Watched]]
"""The models that are served now, by name and version."""


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
        models = {key: (one, _Now(one)) for key, one in self._models().items()}
        for family in _FAMILIES:
            metric = family.make()
            for key, (_, now) in models.items():
                for labels, value in family.values(now):
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


class _Now:
    """Counts at the moment of a scrape."""

    def __init__(self, one: Watched) -> None:
        self.statistics = one.statistics
        self.waiting = one.waiting()
        self.ready = one.ready()

    def name(self, site: int) -> str:
        return FINAL if site < 0 else self.statistics.site_names[site]


class _Family(NamedTuple):
    """A metric: what it is called, and its values for one model."""

    name: str
    what: str
    kind: type[Metric]
    read: Callable[[_Now], Values]
    labels: tuple[str, ...] = ()

    def make(self) -> Metric:
        return self.kind(self.name, self.what, labels=(*_LABELS, *self.labels))  # type: ignore[call-arg]

    def values(self, now: _Now) -> Values:
        with now.statistics.lock:
            return list(self.read(now))


def _add(metric: Metric, labels: tuple[str, ...], value: Value) -> None:
    if isinstance(value, Histogram):
        assert isinstance(metric, HistogramMetricFamily)
        metric.add_metric(labels, value.cumulative(), value.total_s)
    else:
        assert isinstance(metric, CounterMetricFamily | GaugeMetricFamily)
        metric.add_metric(labels, value)


def _one(read: Callable[[Statistics], Value]) -> Callable[[_Now], Values]:
    return lambda now: [((), read(now.statistics))]


def _micros(read: Callable[[Statistics], Duration]) -> Callable[[_Now], Values]:
    return _one(lambda s: read(s).total_s * 1e6)


def _exits(now: _Now) -> Values:
    sites = {-1, *now.statistics.plan.sites, *now.statistics.exits}
    return [((now.name(site),), float(now.statistics.exits[site])) for site in sorted(sites)]


def _thresholds(now: _Now) -> Values:
    plan = now.statistics.plan
    return [((now.name(s),), t) for s, t in zip(plan.sites, plan.thresholds, strict=True)]


def _active(now: _Now) -> Values:
    names = enumerate(now.statistics.site_names)
    return [((name,), float(site in now.statistics.plan.sites)) for site, name in names]


def _utilities(now: _Now) -> Values:
    return [((now.name(site),), ms) for site, ms in utilities_ms(now.statistics).items()]


def _stopped(now: _Now) -> Values:
    return [((now.name(site),), float(n)) for site, n in sorted(now.statistics.stopped.items())]


def _failures(now: _Now) -> Values:
    return [((reason,), float(n)) for reason, n in sorted(now.statistics.failures.items())]


def _batches(now: _Now) -> Values:
    shapes = sorted(now.statistics.batches.items())
    return [((str(shape),), float(one.infer.count)) for shape, one in shapes]


def _batch_seconds(now: _Now) -> Values:
    shapes = sorted(now.statistics.batches.items())
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
    _Family("apparate_ready", "Whether requests are taken", _G, lambda now: [((), now.ready)]),
    _Family("apparate_queue_size", "Inputs that wait for a batch", _G,
            lambda now: [((), now.waiting)]),
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
    _Family("apparate_bare_batches", "Batches that ran none, by load", _C,
            _one(lambda s: s.bare_batches)),
)  # fmt: skip
