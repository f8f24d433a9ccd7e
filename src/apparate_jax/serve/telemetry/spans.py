"""OpenTelemetry spans of requests: queue, batch, each stage, release.

A request's span begins with its first byte and joins its client's trace (W3C ``traceparent``). What
happened to it in the engine is known once its batch has run to its end; the spans of that are made
then, with the times at which it happened. A share of requests is sampled, and those whose client
says so; the others cost nothing.
"""

import contextlib
import time
from collections.abc import Iterator, Mapping
from importlib.metadata import version

from opentelemetry import propagate
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context

from apparate_jax.core import FINAL, BatchRecord
from apparate_jax.errors import ConfigError

SERVICE = "apparate-jax"


class Spans:
    """Makes spans and sends them. Close it at the end: what was not sent yet is sent then."""

    def __init__(self, exporter: SpanExporter, frac: float) -> None:
        """Nothing is sent before a request.

        Args:
            exporter: Where to.
            frac: Share of requests that are sampled, of those whose client says nothing of it.

        Raises:
            ConfigError: The share is none.
        """
        if not 0.0 <= frac <= 1.0:
            raise ConfigError(f"trace_frac is {frac}, expected a share, 0..1")
        resource = Resource.create({"service.name": SERVICE, "service.version": version(SERVICE)})
        self._provider = TracerProvider(sampler=ParentBasedTraceIdRatio(frac), resource=resource)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer(SERVICE, version(SERVICE))

    @contextlib.contextmanager
    def request(
        self, model: str, model_version: str, carrier: Mapping[str, str], arrived_s: float
    ) -> Iterator[Span | None]:
        """The span of a request, which ends with this; None if it is not sampled.

        Args:
            model: Name of the model.
            model_version: Its version.
            carrier: Headers that may name the client's span.
            arrived_s: When it came, seconds of the monotonic clock.
        """
        span = self._tracer.start_span(
            "request",
            context=propagate.extract(dict(carrier)),
            kind=SpanKind.SERVER,
            attributes={"apparate.model": model, "apparate.version": model_version},
            start_time=_epoch_ns(arrived_s),
        )
        try:
            yield span if span.is_recording() else None
        except BaseException as error:
            span.set_status(Status(StatusCode.ERROR, type(error).__name__))
            raise
        finally:
            span.end()

    def observe(self, record: BatchRecord, site_names: tuple[str, ...]) -> None:
        """Tell what happened to a batch's requests, those of them that are sampled.

        Args:
            record: Of the batch.
            site_names: Of all sites of the model.
        """
        for row, parent in enumerate(record.traces):
            if isinstance(parent, Span):
                self._told(record, site_names, row, parent)

    def close(self) -> None:
        """Send what was not sent yet, and end."""
        self._provider.shutdown()

    def _told(
        self, record: BatchRecord, site_names: tuple[str, ...], row: int, parent: Span
    ) -> None:
        begun, ended = record.dispatched_s, record.finished_s
        left = int(record.exits[row])
        names = [*(site_names[site] for site in record.sites), FINAL]
        self._span("queue", parent, float(record.arrived_s[row]), begun)
        batch = self._span(
            "batch",
            parent,
            begun,
            ended,
            {
                "apparate.batch_size": len(record.exits),
                "apparate.batch_shape": record.shape,
                "apparate.exit": names[left],
            },
        )
        times = [begun, *record.ready_s, ended]
        for name, start, end in zip(names, times[:-1], times[1:], strict=True):
            self._span(f"stage {name}", batch, float(start), float(end))
        self._span("release", parent, float(times[left + 1]), float(record.released_s[row]))

    def _span(
        self,
        name: str,
        parent: Span,
        start_s: float,
        end_s: float,
        attributes: Mapping[str, str | int] | None = None,
    ) -> Span:
        span = self._tracer.start_span(
            name,
            context=set_span_in_context(parent),
            attributes=attributes,
            start_time=_epoch_ns(start_s),
        )
        span.end(_epoch_ns(end_s))
        return span


def spans_to(endpoint: str, frac: float) -> Spans:
    """Spans for a collector that speaks OTLP over HTTP.

    Args:
        endpoint: URL of its traces, as in ``http://localhost:4318/v1/traces``.
        frac: Share of requests that are sampled.

    Raises:
        ConfigError: The share is none, or the endpoint is no URL.
    """
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    if not endpoint.startswith(("http://", "https://")):
        raise ConfigError(
            f"otlp_endpoint is {endpoint!r}, expected a URL as http://localhost:4318/v1/traces"
        )
    return Spans(OTLPSpanExporter(endpoint=endpoint), frac)


def _epoch_ns(monotonic_s: float) -> int:
    """A moment of the monotonic clock, as nanoseconds since the epoch."""
    return time.time_ns() + round((monotonic_s - time.monotonic()) * 1e9)
