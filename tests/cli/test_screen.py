"""The screen: everything is on it, at every width, in colour or not."""

import io
import re

import pytest
from rich.console import Console

from apparate_cli.screen import screen
from apparate_jax.serve.telemetry import server_status
from tests.serve.telemetry.lively import Hall, Lively

GONE = {"name": "old", "version": "", "state": "UNAVAILABLE", "reason": "no checkpoint at /models"}


@pytest.fixture(scope="module")
def hall():
    return Hall("sentiment", "spam[1]", seconds=200)


def status_of(hall, *names, history=120, index=()):
    models = {key: s for key, s in hall.statistics().items() if not names or key[0] in names}
    return server_status(models, hall.now_s(), started_s=0.0, history=history, index=index)


def printed(status, width=120, **options):
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(screen(status, width=width, **options))
    return console.file.getvalue()


def test_everything_is_there(hall):
    text = printed(status_of(hall, "sentiment"), source="http://here:8000")
    assert "apparate-jax" in text and "http://here:8000" in text and "up 3 min" in text
    assert "sentiment version 1, ready" in text
    for words in ("p25", "p99", "with early answers", "without (vanilla)", "saved", "answers/s",
                  "queue", "of 4: 100 %", "agreement", "holds", "last 512", "long-run",
                  "layer_0/feed_forward",
                  "final", "stopped", "last 2 min", "ramp layer_2/attention off: utility -0.4 ms",
                  "changes of ramps 1"):  # fmt: skip
        assert words in text, words


@pytest.mark.parametrize("width", [60, 72, 80, 99, 100, 120, 140, 200])
def test_nothing_is_cut_and_nothing_sticks_out(hall, width):
    text = printed(status_of(hall, index=[GONE]), width)
    lines = text.splitlines()
    assert "…" not in text
    assert max(map(len, lines)) <= width
    framed = [line for line in lines if line.startswith("│ ")]
    assert framed and {len(line) for line in framed} == {width}


def test_a_narrow_one_keeps_what_matters(hall):
    text = printed(status_of(hall, "sentiment"), 60)
    assert "long-run" in text and "threshold" in text and "last 2 min" not in text


def test_ascii_where_there_is_nothing_else(hall):
    assert printed(status_of(hall), ascii_only=True).isascii()


def test_several_models_and_one_in_full(hall):
    both = printed(status_of(hall))
    assert both.count("with early answers") == 2 and "spam[1] 1" in both
    assert "spam[1] version 1, ready" in both
    one = printed(status_of(hall), model="spam[1]")
    assert one.count("with early answers") == 1 and "sentiment 1" in one
    assert "no model 'x' here: there are sentiment, spam[1]" in printed(
        status_of(hall, "sentiment", "spam[1]"), model="x"
    ).replace("\n", " ")


def test_models_that_are_not_served():
    text = printed(server_status({}, 9.0, started_s=0.0, index=[GONE]))
    assert "old is not served: UNAVAILABLE no checkpoint at /models" in text
    assert "no model is served" in printed(server_status({}, 9.0, started_s=0.0))


def test_before_the_first_answer_and_without_history():
    fresh = Lively()
    fresh.engine.ready = False
    models = {("new", "1"): fresh.statistics}
    for history in (0, 120):
        text = printed(server_status(models, 0.0, started_s=0.0, history=history))
        assert "NOT READY" in text and "nan" not in text.lower()


def test_what_is_wrong_is_said_in_words(hall):
    status = status_of(hall, "sentiment")
    (model,) = status["models"]
    model["requests"]["failed"] = {"queue full": 12}
    model["accuracy"] |= {"disagreed": 900, "window_disagreed": 9}
    text = printed(status)
    assert "queue full 12" in text and "BROKEN" in text
    assert re.search(r"last 512 .* below", text), "nothing is promised of the window"
    model["accuracy"]["promise"] = "window"
    assert printed(status).count("BROKEN") == 2
