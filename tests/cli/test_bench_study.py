"""``apparate bench study`` on a tiny recording."""

from dataclasses import replace

import pytest

from tests.bench import tiny

SHORT = ("--requests", 200, "--accuracy", 0.9, "--seeds", 1)


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    made = tiny.recording(400)
    path = tmp_path_factory.mktemp("traces") / "stream.npz"
    replace(made, entropies=made.errors**2).save(path)
    return path


@pytest.mark.parametrize("name", ["accuracy", "guard"])
def test_a_table_a_picture_and_json(apparate, trace, tmp_path, name):
    picture, report = tmp_path / "x.png", tmp_path / "x.json"
    words = ("--plot", picture, "--json", report, "--stream", "drift")
    systems = ("--systems", "initial-only,oracle")
    done = apparate("bench", "study", name, trace, trace, *SHORT, *words, *systems)
    assert done.status == 0, done.err
    assert picture.read_bytes().startswith(b"\x89PNG") and report.is_file()
    assert "paper on stream.csv, stream.csv, drift" in " ".join(done.out.split())
    assert f"{name}: " in done.err


def test_heavier_ramps_of_the_same_rows(apparate, trace):
    words = (*SHORT, "--systems", "deebert", "--heavy", trace)
    assert apparate("bench", "study", "accuracy", trace, *words).status == 0
    done = apparate("bench", "study", "accuracy", trace, trace, *words)
    assert done.status == 1 and "of other rows" in done.error


def test_arrivals_from_files(apparate, trace, tmp_path):
    for name, step in (("even", 1.0), ("pairs", 2.0)):
        times = [step * (i // step) for i in range(800)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["t", *map(str, times)]))
    files = ("--arrivals", tmp_path / "even.csv", "--arrivals", tmp_path / "pairs.csv")
    words = (*SHORT, "--systems", "vanilla", "--json", "-")
    report = apparate("bench", "study", "arrivals", trace, *words, *files).json
    assert [row["setting"] for row in report["rows"]] == ["poisson", "even", "pairs"]
    even, pairs = (row["p50_ms"] for row in report["rows"][1:])
    assert even < pairs
    done = apparate("bench", "study", "slo", trace, *words, *files)
    assert done.status == 1 and "only the study arrivals holds several" in done.error


def test_json_alone(apparate, trace):
    words = ("--systems", "oracle", "--json", "-")
    report = apparate("bench", "study", "slo", trace, *SHORT, *words).json
    assert [row["setting"] for row in report["rows"]] == [
        "x1: batch 1",
        "x2: batch 4",
        "x4: batch 4",
    ]
    assert report["seeds"] == 1 and report["environment"]["cores"] > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("moon",), "the study is 'moon', expected one of baselines, accuracy"),
        (("slo", "--stream", "tide"), "the stream is 'tide', expected one of"),
        (("slo", "--systems", "x"), "systems ['x'] are unknown, expected some of vanilla"),
        (("slo", "--arrivals", "bursts"), "arrivals are 'bursts'"),
        (("slo", "--seeds", 0), "seeds is 0"),
        (("arrivals",), "expected others to hold against Poisson's"),
        (("arrivals", "--arrivals", "no.csv"), "'no.csv', expected poisson or fixed, or a CSV"),
        (("arrivals", "--arrivals", __file__), "expected seconds or ISO timestamps"),
    ],
)
def test_what_is_refused(apparate, trace, words, message):
    name, *more = words
    done = apparate("bench", "study", name, trace, *SHORT, *more, "--json", "-")
    assert (done.status, done.out) == (1, "")
    assert message in done.error
