"""The Grafana dashboard asks for metrics and labels that a scrape has."""

import json
import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from apparate_jax.serve.telemetry import render
from tests.serve.telemetry.lively import Hall

FILE = Path(__file__).parents[3] / "docs" / "grafana-dashboard.json"
DASHBOARD = json.loads(FILE.read_text(encoding="utf-8"))
TARGETS = [
    pytest.param(target, id=f"{panel['title']}-{target['refId']}")
    for panel in DASHBOARD["panels"]
    for target in panel["targets"]
]
METRIC = re.compile(r"\b((?:apparate|nv)_\w+)\b(?:\{(.*?)\})?")
LABEL = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")
BY = re.compile(r"\bby \((.*?)\)")


@pytest.fixture(scope="module")
def samples():
    """Label names by the name of the sample."""
    hall = Hall("a", seconds=60)
    (model,) = hall.models.values()
    model.statistics.begun()
    model.statistics.failed("rejected", 0.1)
    text, _ = render(hall.statistics)
    return {
        sample.name: set(sample.labels)
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


@pytest.mark.parametrize("target", TARGETS)
def test_expressions_ask_for_what_there_is(target, samples):
    found = METRIC.findall(target["expr"])
    assert found, target["expr"]
    for name, labels in found:
        assert name in samples
        assert {"model", "version"} <= set(LABEL.findall(labels)) <= samples[name], name
    for labels in BY.findall(target["expr"]):
        assert set(labels.split(", ")) <= set.intersection(*(samples[n] for n, _ in found))


@pytest.mark.parametrize("target", TARGETS)
def test_legends_name_labels_that_are_left(target, samples):
    named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
    grouped = BY.findall(target["expr"])
    left = set(grouped[0].split(", ")) if grouped else samples[METRIC.findall(target["expr"])[0][0]]
    assert named <= left


def test_variables_ask_for_what_there_is_and_panels_use_them(samples):
    variables = {one["name"]: one for one in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    for name in ("model", "version"):
        metric, label = re.fullmatch(
            r"label_values\((\w+)(?:\{.*\})?, (\w+)\)", variables[name]["definition"]
        ).groups()
        assert label == name and label in samples[metric]
    for panel in DASHBOARD["panels"]:
        for one in (panel, *panel["targets"]):
            assert one["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_panels_have_places_and_names_of_their_own():
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({panel["title"] for panel in panels}) == len(panels)
    taken = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (place["x"] + i, place["y"] + j) for i in range(place["w"]) for j in range(place["h"])
        }
        assert not cells & taken and place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells
