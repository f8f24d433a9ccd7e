"""The page in a real browser. Skipped where there is none: see docs/monitoring.md."""

import contextlib
import json
import time

import pytest
from starlette.responses import JSONResponse

from tests.serve.http.browser import browsing, find_chromium
from tests.serve.http.watched import watched
from tests.serve.telemetry.lively import RAMPS, SITES, Hall

CHARTS = ("latency", "exits", "disagreement", "thresholds", "rate", "waiting")
READY = "[...document.querySelectorAll('figure')].filter(f => f.dataset.points > 100).length === 6"
COLOURS = """(id => {
    const canvas = document.querySelector(`#${id} canvas`);
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    const seen = new Set();
    for (let n = 0; n < data.length; n += 4)
        if (data[n + 3] === 255) seen.add(data[n] + "," + data[n + 1] + "," + data[n + 2]);
    return [...seen];
})"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_chromium() is None,
        reason="no Chromium: install one (apt-get install chromium), or name one in "
        "APPARATE_CHROMIUM",
    ),
]


@pytest.fixture(scope="module")
def browser():
    with browsing(find_chromium()) as browser:
        yield browser


@pytest.fixture(scope="module")
def hall():
    return Hall("sentiment", "spam", seconds=400, started_s=time.time() - 400)


@pytest.fixture
def page(browser, hall):
    """The page, with data, and the browser without complaints at the end."""
    with watched(hall.statistics, hall.now_s) as url:
        browser.complaints.clear()
        browser.see()
        browser.open(url)
        browser.wait(READY)
        yield browser
        browser.open("about:blank")
    assert browser.complaints == []


def text(browser, selector):
    return browser.js(f"document.querySelector({json.dumps(selector)}).innerText")


def test_numbers_charts_and_tables_are_there(page):
    assert text(page, "#server").startswith("apparate-jax")
    assert "ms" in text(page, "#p50") and "saved" in text(page, "#p50-more")
    assert text(page, "#agreement").startswith("99.") and "as promised" in text(
        page, "#agreement-more"
    )
    rows = page.js("[...document.querySelectorAll('#ramps tr')].map(row => row.innerText)")
    assert [row.split()[0] for row in rows] == [*(SITES[ramp] for ramp in RAMPS), "final"]
    assert "stopped" in rows[2]
    assert "ramp layer_2/attention off: utility -0.4 ms" in text(page, "#events")
    assert "sentiment" in page.js("document.title")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_charts_show_their_lines(page, scheme):
    page.see(scheme=scheme)
    accent = {"light": "33,89,214", "dark": "125,176,255"}[scheme]
    for chart in CHARTS:
        label = page.js(f"document.querySelector('#{chart} [role=img]').ariaLabel")
        assert any(c.isdigit() for c in label), label
        if chart not in ("exits", "thresholds"):
            page.wait(f"{COLOURS}('{chart}').includes('{accent}')")
        else:  # a colour for each ramp
            page.wait(f"{COLOURS}('{chart}').length > 3")


def test_another_model_and_its_address(page):
    page.js(
        "(select => { select.value = 'spam/1'; select.dispatchEvent(new Event('change')); })"
        "(document.getElementById('model'))"
    )
    page.wait("document.title.startsWith('spam')")
    assert page.js("location.hash") == "#spam%2F1"
    page.js("location.reload()")
    page.wait(f"document.title.startsWith('spam') && {READY}")


@pytest.mark.parametrize("width", [400, 768, 1280])
def test_nothing_sticks_out(page, width):
    page.see(width=width)
    page.wait(f"innerWidth === {width}")
    page.wait("document.documentElement.scrollWidth <= innerWidth")
    page.wait(
        "[...document.querySelectorAll('figure')].every(one => "
        "one.querySelector('canvas').getBoundingClientRect().right "
        "<= one.getBoundingClientRect().right)"
    )


def test_everything_that_takes_input_has_a_name(page):
    unnamed = page.js(
        "[...document.querySelectorAll('select, input')].filter(one => !one.labels.length).length"
    )
    assert unnamed == 0
    assert page.js("document.documentElement.lang") == "en"


def test_a_server_that_goes_and_comes_back(browser, hall):
    with watched(hall.statistics, hall.now_s) as url:
        browser.complaints.clear()
        browser.open(url)
        browser.wait(READY)
        assert browser.js("document.getElementById('gone').hidden")
    browser.wait("!document.getElementById('gone').hidden")
    assert "has not answered since" in text(browser, "#gone")
    assert browser.js("document.getElementById('main').classList.contains('stale')")
    port = int(url.rpartition(":")[2])
    with watched(hall.statistics, hall.now_s, port=port):
        browser.wait("document.getElementById('gone').hidden")
        assert not browser.js("document.getElementById('main').classList.contains('stale')")
        browser.open("about:blank")
    # the browser itself says of each request that the connection was refused
    assert all("ERR_" in one for one in browser.complaints), browser.complaints


def test_no_model_and_one_that_is_not_served(browser):
    gone = {"name": "old", "version": "", "state": "UNAVAILABLE", "reason": "no <b>checkpoint</b>"}
    for index, expected in ((), "No model is served."), ((gone,), "no <b>checkpoint</b>"):
        with watched(dict, lambda: 0.0, index=lambda index=index: index) as url:
            browser.complaints.clear()
            browser.open(url)
            browser.wait(f"document.body.innerText.includes({json.dumps(expected)})")
            assert browser.complaints == []
            browser.open("about:blank")


def guarded(app):
    """The same behind an API key, as a server may have it."""

    async def answer(scope, receive, send):
        key = dict(scope["headers"]).get(b"x-api-key")
        if scope["path"] == "/apparate/status" and key != b"secret":
            await JSONResponse({"error": "no key"}, 401)(scope, receive, send)
        else:
            await app(scope, receive, send)

    return answer


def test_a_server_with_api_keys(browser, hall):
    with watched(hall.statistics, hall.now_s, middleware=[guarded]) as url:
        browser.open(url)
        browser.wait("!document.getElementById('access').hidden")
        for given, then in (("wrong", "does not know"), ("secret", "")):
            browser.js(
                f"document.getElementById('key').value = '{given}';"
                "document.getElementById('access').requestSubmit()"
            )
            browser.wait(f"document.getElementById('denied').innerText.includes('{then}')")
        browser.wait(f"document.getElementById('access').hidden && {READY}")
        with contextlib.suppress(AssertionError):
            browser.js("sessionStorage.clear()")
        browser.open("about:blank")
