"""docs/monitoring.md names every metric and every field of the status, and no other."""

import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from apparate_jax.serve.telemetry import render, server_status
from tests.serve.telemetry.lively import Hall

TEXT = (Path(__file__).parents[3] / "docs" / "monitoring.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def hall():
    return Hall("a", seconds=10)


def section(title):
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", TEXT, re.M | re.S)[1]


def test_metrics(hall):
    text, _ = render(hall.statistics)
    there = {family.name for family in text_string_to_metric_families(text.decode())}
    assert set(re.findall(r"`((?:nv|apparate)_\w+)`", section("Metrics"))) - {"nv_"} == there
    alerts = re.findall(r"\b((?:nv|apparate)_\w+?)(?:_total)?\b(?!\w)", section("Grafana"))
    assert set(alerts) <= there


def test_fields(hall):
    status = server_status(hall.statistics(), hall.now_s(), started_s=0.0, history=5)
    named = set(re.findall(r"`(\w+)`", section("Status")))
    (model,) = status["models"]
    fields = {*status["server"], *status, *model, *model["history"]}
    for part in ("accuracy", "control", "requests"):
        fields |= set(model[part])
    fields |= {key for one in (*model["exits"], *model["events"]) for key in one}
    listed = named | set(re.findall(r"\w+", TEXT.split("answers `{")[1].split("}`")[0]))
    missing = fields - listed - {"exit"}
    assert not missing
