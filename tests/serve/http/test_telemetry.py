"""Metrics, status and the page over HTTP, and what their responses allow."""

import re
from html.parser import HTMLParser
from importlib.resources import files

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.testclient import TestClient

from apparate_jax.serve.http.telemetry import FILES, PAGE, telemetry_routes
from tests.serve.telemetry.lively import Hall

GONE = {"name": "old", "version": "", "state": "UNAVAILABLE", "reason": "no checkpoint"}


@pytest.fixture(scope="module")
def hall():
    return Hall("a", "b", seconds=60)


@pytest.fixture
def client(hall):
    ready = {"version": "1", "state": "READY", "reason": ""}
    index = [{"name": "a", **ready}, {"name": "uncounted", **ready}, GONE]
    routes = telemetry_routes(hall.statistics, clock=hall.now_s, index=lambda: index)
    with TestClient(Starlette(routes=routes)) as client:
        yield client


def test_metrics_are_prometheus_text(client):
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    assert response.headers["cache-control"] == "no-store"
    names = {family.name for family in text_string_to_metric_families(response.text)}
    assert {"nv_inference_request_success", "apparate_exits"} <= names
    wanted = {"accept": "application/openmetrics-text; version=1.0.0"}
    assert client.get("/metrics", headers=wanted).text.endswith("# EOF\n")


def test_the_status_of_all_models(client):
    response = client.get("/apparate/status")
    assert response.headers["cache-control"] == "no-store"
    found = response.json()
    assert found["server"]["name"] == "apparate-jax" and found["server"]["version"]
    assert [one["name"] for one in found["models"]] == ["a", "b"]
    assert "history" not in found["models"][0]
    assert found["unavailable"] == [GONE]


@pytest.mark.parametrize(("asked", "given"), [("5", 5), ("0", None), ("999999", 60)])
def test_history_on_demand(client, asked, given):
    (one, _) = client.get(f"/apparate/status?history={asked}").json()["models"]
    if given is None:
        assert "history" not in one
    else:
        assert given - 1 <= len(one["history"]["at_s"]) <= given
        assert {len(c) for c in one["history"]["exits"].values()} == {len(one["history"]["p50_ms"])}


@pytest.mark.parametrize("asked", ["-1", "all", "1.5", "9" * 10, ""])
def test_history_that_is_no_number(client, asked):
    response = client.get(f"/apparate/status?history={asked}")
    assert response.status_code == 400 and "0 to 900" in response.json()["error"]


def test_models_come_and_go():
    models = {}
    with TestClient(Starlette(routes=telemetry_routes(lambda: models))) as client:
        assert client.get("/apparate/status").json()["models"] == []
        models.update(Hall("late", seconds=2).statistics())
        assert [one["name"] for one in client.get("/apparate/status").json()["models"]] == ["late"]


class Links(HTMLParser):
    """What a page loads, and what of it is inline."""

    def __init__(self, text):
        super().__init__()
        self.loads, self.inline = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag == "script" and "src" not in given:
            self.inline.append(tag)
        if tag == "style":
            self.inline.append(tag)
        self.inline += [f"{tag} {name}" for name in given if name == "style" or name[:2] == "on"]
        if tag in ("script", "img", "link"):
            self.loads.append(given.get("src") or given.get("href"))


def test_the_page_loads_what_is_served_and_nothing_is_inline(client):
    response = client.get("/")
    found = Links(response.text)
    assert found.inline == []
    assert len(found.loads) >= 5
    for path in found.loads:
        assert client.get(f"/{path}").status_code == 200, path
    for name in ("page.js", "charts.js"):
        for module in re.findall(r'from "\./(.+?)"', client.get(f"/page/{name}").text):
            assert module in FILES


@pytest.mark.parametrize("path", ["/", *(f"/page/{name}" for name in FILES if name[0] != "i")])
def test_static_files_and_their_headers(client, path):
    response = client.get(path)
    assert response.status_code == 200 and response.content
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["cache-control"] == "no-cache"
    again = client.get(path, headers={"if-none-match": response.headers["etag"]})
    assert again.status_code == 304 and not again.content
    assert client.get(path, headers={"if-none-match": '"x"'}).status_code == 200


def test_no_other_file_of_the_package_is_served(client):
    for path in ("/page/__init__.py", "/page/../telemetry.py", "/page/index.html", "/page/"):
        assert client.get(path).status_code == 404, path
    assert client.post("/").status_code == 405


def test_the_files_are_in_the_package_and_all_are_listed():
    def names(place, before=""):
        for one in place.iterdir():
            if one.is_dir() and one.name != "__pycache__":
                yield from names(one, f"{before}{one.name}/")
            elif one.is_file() and not one.name.endswith((".py", ".pyc")):
                yield before + one.name

    assert set(names(files(PAGE))) == set(FILES)
    assert "MIT" in files(PAGE).joinpath("uplot/LICENSE").read_text("utf-8")


def test_without_the_page(hall):
    with TestClient(Starlette(routes=telemetry_routes(hall.statistics, page=False))) as client:
        assert client.get("/").status_code == 404
        assert client.get("/metrics").status_code == 200
