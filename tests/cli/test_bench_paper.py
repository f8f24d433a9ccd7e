"""``apparate bench paper``: what is refused, and a whole run on tiny recordings."""

import json
from dataclasses import replace

import pytest

from tests.bench import tiny

SHORT = ("--quick", "--requests", 120)


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    made = tiny.recording(400, model="bert", ramp_bytes=(10, 20, 30))
    path = tmp_path_factory.mktemp("traces") / "stream.npz"
    replace(made, entropies=made.errors**2).save(path)
    return path


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("no.npz",), "no: there is no no.npz, its trace"),
        (("no.toml",), "cannot read the suite no.toml"),
        (("a.toml", "b.npz"), "2 files with a.toml among them, expected one suite file"),
        (("a.npz", "x/a.npz"), "workloads ['a'] are there twice"),
        (("a.npz", "--seeds", 0), "seeds is 0, expected at least 1"),
    ],
)
def test_what_is_refused(apparate, tmp_path, words, message):
    done = apparate("bench", "paper", *words, "--out", tmp_path / "out")
    assert done.status == 1 and message in done.error
    assert not (tmp_path / "out").exists()


def test_a_recording_that_is_none(apparate, tmp_path):
    (tmp_path / "x.npz").write_text("x")
    done = apparate("bench", "paper", tmp_path / "x.npz", "--out", tmp_path / "out")
    assert done.status == 1 and "is no recording" in done.error


@pytest.mark.slow
def test_a_whole_run_and_one_that_keeps_it(apparate, trace, tmp_path):
    out = tmp_path / "out"
    done = apparate("bench", "paper", trace, "--out", out, *SHORT)
    assert done.status == 0, done.err
    assert f"report: {out / 'report.html'}" in done.out and "beside the paper" in done.out
    assert "stream: every system done, about" in done.err and "nothing left to run" in done.err
    report = json.loads((out / "report.json").read_text())
    assert report["summary"][0]["kind"] == "text" and report["quick"]
    again = apparate("bench", "paper", trace, "--out", out, *SHORT, "--json", "-")
    assert again.json["parts"]["made"] == []
    assert sorted(again.json["parts"]["kept"]) == sorted(report["parts"]["made"])
    assert again.json["summary"] == report["summary"]
