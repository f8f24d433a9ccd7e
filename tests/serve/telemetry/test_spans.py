"""Spans: one tree for each sampled request, at the times at which things happened."""

import asyncio
import http.server
import itertools
import threading

import numpy as np
import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from apparate_jax.core import ExitPlan
from apparate_jax.errors import ConfigError, RequestError
from apparate_jax.serve.engine import Engine
from apparate_jax.serve.inference import Served, now_s
from apparate_jax.serve.protocol import InferRequest
from apparate_jax.serve.telemetry.spans import Spans, spans_to
from tests.serve import models

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CARRIER = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}


@pytest.fixture(scope="module")
def programs():
    made = models.programs(models.mlp())
    made.warm_atomic()
    made.warm_merged((0, 1))
    return made


def asked(programs, frac, carrier=None, rows=1, **inputs):
    """Spans by name of one request to a real engine whose first ramp always answers."""
    exporter = InMemorySpanExporter()
    spans = Spans(exporter, frac)
    names = tuple(site.name for site in programs.sites)
    plan = ExitPlan((0, 1), (1.0, 0.5))
    with Engine(programs, plan=plan, observer=lambda r: spans.observe(r, names)) as engine:
        served = Served(engine, name="m", spans=spans)
        given = inputs or {"x": np.zeros((rows, models.WIDTH), np.float32)}
        try:
            request = InferRequest(None, {}, given, None, False)
            asyncio.run(served.reply(request, now_s(), carrier=carrier or {}))
        except RequestError:
            pass
        assert engine.wait_idle(30)
    spans.close()
    return exporter.get_finished_spans()


def test_a_request_is_a_tree_of_what_happened_to_it(programs):
    spans = asked(programs, 1.0)
    first, second = (site.name for site in programs.sites)
    by_name = {span.name: span for span in spans}
    stages = [f"stage {first}", f"stage {second}", "stage final"]
    assert sorted(by_name) == sorted(["request", "queue", "batch", "release", *stages])
    root, batch = by_name["request"], by_name["batch"]
    assert root.attributes["apparate.model"] == "m" and root.parent is None
    assert batch.attributes["apparate.exit"] == first
    assert batch.attributes["apparate.batch_size"] == 1
    for name, span in by_name.items():
        assert span.context.trace_id == root.context.trace_id
        above = batch if name in stages else root
        assert span is root or span.parent.span_id == above.context.span_id
        assert span.start_time <= span.end_time
    order = [by_name["queue"], *(by_name[name] for name in stages)]
    for one, following in itertools.pairwise(order):
        assert abs(one.end_time - following.start_time) < 1_000_000
    assert by_name["release"].end_time <= batch.end_time, "the answer left before the batch ended"


def test_a_clients_trace_goes_on_whatever_the_share(programs):
    spans = asked(programs, 0.0, CARRIER)
    assert {f"{span.context.trace_id:032x}" for span in spans} == {TRACE}
    (root,) = (span for span in spans if span.name == "request")
    assert f"{root.parent.span_id:016x}" == "00f067aa0ba902b7"


def test_every_row_has_its_own_way(programs):
    spans = asked(programs, 1.0, rows=3)
    assert [span.name for span in spans].count("queue") == 3
    assert [span.name for span in spans].count("request") == 1


def test_what_is_not_sampled_costs_no_span(programs):
    assert asked(programs, 0.0) == ()


def test_a_refused_request_is_an_error(programs):
    (span,) = asked(programs, 1.0, wrong=np.zeros((1, 2), np.float32))
    assert span.name == "request" and span.status.status_code is StatusCode.ERROR
    assert span.status.description == "RequestError"


def test_spans_are_sent_to_a_collector():
    got = []

    class Collector(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            got.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        spans = spans_to(f"http://127.0.0.1:{server.server_port}/v1/traces", 1.0)
        with spans.request("sentiment", "3", {}, now_s()):
            pass
        spans.close()
        server.shutdown()
        thread.join()
    ((path, body),) = got
    assert path == "/v1/traces" and b"apparate-jax" in body and b"sentiment" in body


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match=r"trace_frac is 2\.0"):
        Spans(InMemorySpanExporter(), 2.0)
    with pytest.raises(ConfigError, match="otlp_endpoint is 'localhost:4318'"):
        spans_to("localhost:4318", 0.1)
