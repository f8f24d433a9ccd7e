"""``apparate bench record`` and ``bench replay``: from a checkpoint to a report without engines."""

import json

import numpy as np
import pytest

from apparate_jax.bench.recording import load
from tests.cli import tiny

SHORT = ("--requests", 400, "--settle", 50)


@pytest.fixture(scope="module")
def recorded(place, trained, data, capsys_of_module):
    path = place / "stream.npz"
    words = ("bench", "record", trained, "--data", data, "-o", path, "--batch-sizes", "1,2")
    done = capsys_of_module(*words, "--ramp-budget", 100, "--json", place / "record.json")
    assert done.status == 0, done.err
    return path, done, json.loads((place / "record.json").read_text())


@pytest.fixture(scope="module")
def capsys_of_module():
    """Run a command once for the module; what it prints is captured as text."""
    import contextlib
    import io

    from apparate_cli import main
    from tests.cli.conftest import Done

    def run(*words):
        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", ["apparate", *map(str, words)])
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                with pytest.raises(SystemExit) as left:
                    main.run()
        return Done(left.value.code or 0, out.getvalue(), err.getvalue())

    return run


def test_what_is_recorded(recorded):
    path, done, facts = recorded
    made = load(path)
    assert len(made) == facts["rows"] == 240 and made.workload == "inputs.npz"
    assert made.validation is not None and len(made.ramp_bytes) == 2
    assert [shape.batch for shape in made.profile.shapes] == [1, 2]
    agreement = [ramp["agreement"] for ramp in facts["ramps"]]
    np.testing.assert_allclose(agreement, made.agrees.mean(axis=0), atol=1e-5)
    assert 0 <= facts["original_right"] <= 1
    assert "running all ramps: 240/240" in done.err
    for words in ("tiny on inputs.npz: 240 rows", "agreement", "apparate bench replay"):
        assert words in done.out


def test_a_limit(apparate, trained, data, tmp_path):
    words = ("bench", "record", trained, "--data", data, "--limit", 5, "--batch-sizes", "1")
    done = apparate(*words, "-o", tmp_path / "x.npz", "--json", "-")
    assert done.status == 0 and done.json["rows"] == 5
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.npz"]


def test_a_rate_instead_of_a_load(apparate, recorded):
    path, *_ = recorded
    done = apparate("bench", "replay", path, *SHORT, "--rate", 7, "--json", "-")
    assert done.status == 0 and done.json["rate_rps"] == 7.0
    throughput = done.json["vanilla"]["throughput_rps"]
    assert done.json["load_frac"] == pytest.approx(7.0 / throughput, abs=1e-3)
    refused = apparate("bench", "replay", path, *SHORT, "--rate", 0)
    assert refused.status == 1 and "rate_rps is 0.0" in refused.err


def test_the_report(apparate, recorded, tmp_path):
    path, *_ = recorded
    picture = tmp_path / "report.png"
    done = apparate("bench", "replay", path, *SHORT, "--plot", picture, "--json", "-")
    assert done.status == 0 and done.err == ""
    report = done.json
    assert report["model"] == "tiny" and report["load_frac"] == 0.4
    assert report["requests"] == 400 and report["oracle"]["p50_ms"] > 0
    assert report["apparate"]["answers_checked"] == 450
    assert "cpu" in report["replay"]["recorded_on"]["device"]
    assert picture.read_bytes().startswith(b"\x89PNG")
    again = apparate("bench", "replay", path, *SHORT, "--json", "-").json
    for key in ("vanilla", "apparate", "oracle", "compared", "rounds"):
        assert again[key] == report[key], "the same every time"


def test_the_tables_and_a_trace(apparate, recorded, tmp_path):
    path, *_ = recorded
    trace = tmp_path / "trace.csv"
    trace.write_text("TIMESTAMP\n" + "".join(f"{t}\n" for t in np.linspace(0, 9, 140)))
    words = ("bench", "replay", path, *SHORT, "--arrivals", trace, "--load-frac", 0.2)
    done = apparate(*words, "--policy", "fixed", "--promise", "none", "--accuracy", 0.9)
    assert done.status == 0
    for words in (
        "tiny on inputs.npz, 90 requests at 20% load",
        "p50 latency, ms",
        "where answers",
    ):
        assert words in done.out
    assert "s of traffic replayed in" in done.out


def test_batching_by_deadlines_refuses_and_says_how_many(apparate, recorded):
    path, *_ = recorded
    profile = load(path).profile
    worst_ms = max(max(s.vanilla_ms, s.total_ms) * max(s.spread) for s in profile.shapes)
    slo_ms = 2 * profile.handling_ms + 5 * worst_ms
    words = ("bench", "replay", path, *SHORT, "--load-frac", 3, "--batching", "slo")
    done = apparate(*words, "--slo-ms", slo_ms, "--json", "-")
    assert done.status == 0
    replayed = done.json["replay"]
    for name in ("vanilla", "apparate"):
        refused = replayed["refused"][name]
        assert 0 < refused["unreachable"] < 450
        assert done.json[name]["p99_ms"] <= 1.5 * slo_ms
    assert done.json["oracle"]["p50_ms"] is None
    assert "vanilla refused" in apparate(*words, "--slo-ms", slo_ms).out


def test_batching_by_a_timeout_waits(apparate, recorded):
    path, *_ = recorded
    words = ("bench", "replay", path, *SHORT, "--load-frac", 1e-3, "--batching", "timeout")
    done = apparate(*words, "--batch-timeout-ms", 40, "--json", "-")
    assert done.json["vanilla"]["p95_ms"] > 40 and not any(done.json["replay"]["refused"].values())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--batching", "fifo"), "batching is 'fifo', expected one of ['immediate', 'timeout', "),
        (("--batching", "slo"), "batching is 'slo', but within what? Give slo_ms (--slo-ms)"),
        (("--batch-timeout-ms", -1), "the batch timeout is -1.0 ms"),
        (("--arrivals", "bursts"), "arrivals are 'bursts', expected poisson or fixed, or a CSV"),
        (("--load-frac", 9), "load_frac is 9.0, expected above 0 and at most 4"),
        (("--requests", 0), "requests is 0"),
        (("--accuracy", 3), "accuracy is 3.0, expected a share, 0..1"),
        (("--policy", "magic"), "policy is 'magic', expected one of"),
        (("--promise", "moon"), "promise is 'moon', expected one of"),
        (("--method", "magic"), "method is 'magic', expected one of"),
        (("--max-in-flight", 0), "max_in_flight is 0"),
        (("--control-delay-ms", -1), "control_delay_ms is -1.0"),
        (("--seed", -1), "and seed -1, expected at least 0"),
        (("--queue-size", 3, "--load-frac", 3, "--requests", 4000), "more than 3 requests wait"),
    ],
)
def test_settings_out_of_range(apparate, recorded, words, message):
    done = apparate("bench", "replay", recorded[0], "--json", "-", *words)
    assert (done.status, done.out) == (1, "")
    assert message in done.error and done.err.count("\n") == 1


def test_files_that_are_no_recording(apparate, data, tmp_path):
    for path in (data, tmp_path / "none.npz"):
        done = apparate("bench", "replay", path)
        assert (done.status, done.out) == (1, "")
        assert "is no recording" in done.error and "apparate bench record" in done.error


def test_places_that_cannot_be_written_are_said_before_the_work(apparate, trained, data, tmp_path):
    done = apparate("bench", "record", trained, "--data", data, "-o", tmp_path)
    assert (done.status, done.out) == (1, "")
    assert done.error.startswith(f"cannot write {tmp_path}, ") and done.err.count("\n") == 1


def test_inputs_without_an_answer_leave_no_file(apparate, trained, tmp_path):
    x = np.zeros((20, tiny.WIDTH), np.float32)
    x[7] = np.nan
    np.savez(tmp_path / "d.npz", x=x)
    words = ("bench", "record", trained, "--data", tmp_path / "d.npz", "--batch-sizes", "1")
    done = apparate(*words, "-o", tmp_path / "stream.npz")
    assert (done.status, done.out) == (1, "")
    assert "not finite (1 of 20 rows: [7])" in done.error
    assert [entry.name for entry in tmp_path.iterdir()] == ["d.npz"]
