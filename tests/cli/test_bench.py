"""``apparate bench live``: the report in all its forms, or one line before the work begins."""

import json

import numpy as np
import pytest

from tests.cli import tiny

SHORT = (
    *("--rounds", 2, "--round-seconds", 0.3, "--saturation-seconds", 0.1, "--load-frac", 0.02),
    *("--batch-sizes", "1,2", "--ramp-budget", 100),
)


def test_the_report(apparate, trained, data, tmp_path):
    picture = tmp_path / "pictures" / "report.png"
    words = ("bench", "live", trained, "--data", data, *SHORT)
    done = apparate(*words, "--plot", picture, "--json", "-")
    assert done.status == 0
    report = done.json
    assert report["model"] == "tiny" and report["workload"] == "inputs.npz"
    assert report["load_frac"] == 0.02 and len(report["rounds"]) == 2
    assert report["oracle"]["p50_ms"] > 0
    assert [shape["batch"] for shape in report["profile"]] == [1, 2]
    assert list(report["apparate"]["exit_rates"])[-1] == "final"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert [entry.name for entry in picture.parent.iterdir()] == ["report.png"]
    kept = apparate("inspect", trained, "--json", "-").json["profile"]
    assert [shape["batch"] for shape in kept["shapes"]] == [1, 2] and "cpu" in kept["device"]
    assert "measured on cpu" in apparate("inspect", trained).out
    for line in ("throughput: 2/2", "round 1 of 2, vanilla: ", "round 2 of 2, apparate: "):
        assert line in done.err


def test_a_trace_a_file_and_no_oracle(apparate, trained, data, tmp_path):
    trace = tmp_path / "trace.csv"
    trace.write_text("TIMESTAMP\n" + "".join(f"{t}\n" for t in np.linspace(0, 9, 40)))
    path = tmp_path / "report.json"
    words = ("bench", "live", trained, "--data", data, *SHORT, "--rounds", 1)
    done = apparate(
        *words, "--arrivals", trace, "--no-oracle", "--json", path, "--method", "greedy"
    )
    assert done.status == 0
    report = json.loads(path.read_text())
    assert report["oracle"] == {"p50_ms": None} and report["requests"] >= 8
    for words in ("tiny on inputs.npz", "p50 latency, ms", "throughput", "where answers left"):
        assert words in done.out


@pytest.mark.parametrize("system", ["branchynet", "paper", "deebert+"])
def test_another_system_live(apparate, trained, data, tmp_path, system):
    trace = tmp_path / "stream.npz"
    budget = ("--batch-sizes", "1,2", "--ramp-budget", 100)
    assert apparate("bench", "record", trained, "--data", data, *budget, "-o", trace).status == 0
    words = ("bench", "live", trained, "--data", data, *SHORT, "--rounds", 1, "--no-oracle")
    done = apparate(*words, "--system", system, "--trace", trace, "--json", "-")
    assert done.status == 0
    assert done.json["system"] == system and 0 <= done.json["apparate"]["agreement"] <= 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--batch-sizes", "1,x"), "batch sizes are '1,x', expected numbers like 1,2,4,8"),
        (("--batch-sizes", ""), "batch sizes are '', expected numbers"),
        (("--batch-sizes", "0,1"), "expected distinct numbers of at least 1"),
        (("--batch-sizes", "2,2"), "batch sizes are '2,2', expected distinct"),
        (("--batch-sizes", "1.5"), "batch sizes are '1.5'"),
        (("--arrivals", "bursts"), "arrivals are 'bursts', expected poisson or fixed, or a CSV"),
        (("--method", "magic"), "method is 'magic', expected one of ['exact'"),
        (("--accuracy", 3), "accuracy is 3.0, expected a share, 0..1"),
        (("--load-frac", 9), "load_frac is 9.0, expected above 0 and at most 4"),
        (("--rounds", 0), "rounds 0, outstanding 32"),
        (("--round-seconds", 0), "round_s 0.0"),
        (("--ramp-budget", -1), "ramp_budget is -1.0"),
        (("--seed", -1), "seed is -1, expected at least 0"),
        (("--limit", 0), "limit is 0, expected at least 1"),
        (("--batching", "slo"), "batching by 'slo' refuses some: take immediate or timeout"),
        (("--batching", "fifo"), "batching is 'fifo'"),
        (("--queue-size", 0), "queue_size 0"),
        (("--system", "magic"), "system is 'magic', expected one of ['apparate', 'vanilla'"),
        (("--system", "branchynet"), "make one with apparate bench record"),
    ],
)
def test_settings_out_of_range(apparate, trained, data, words, message):
    done = apparate("bench", "live", trained, "--data", data, "--json", "-", *words)
    assert (done.status, done.out) == (1, "")
    assert message in done.error and done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no rows: expected a header and a time per row"),
        (b"t\n", "has no rows"),
        (b"t\nsoon\n", "starts with 'soon', expected seconds or ISO timestamps"),
        (b"t\nnan\n1\n", "has times that are not finite"),
        (b"\x89PNG\xff\n\x00", "cannot read the trace"),
    ],
)
def test_traces_that_cannot_be_read(apparate, trained, data, tmp_path, content, message):
    (tmp_path / "trace.csv").write_bytes(content)
    done = apparate("bench", "live", trained, "--data", data, "--arrivals", tmp_path / "trace.csv")
    assert (done.status, done.out) == (1, "")
    assert message in done.error and done.err.count("\n") == 1


@pytest.mark.parametrize("option", ["--json", "--plot"])
def test_places_that_cannot_be_written_are_said_before_the_work(
    apparate, trained, data, tmp_path, option
):
    (tmp_path / "file").write_text("kept")
    for where in (tmp_path, tmp_path / "file" / "below"):
        done = apparate("bench", "live", trained, "--data", data, option, where)
        assert (done.status, done.out) == (1, "")
        assert done.error.startswith(f"cannot write {where}, ") and done.err.count("\n") == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("oracle", ["--oracle", "--no-oracle"])
def test_inputs_without_an_answer_end_it(apparate, trained, tmp_path, oracle):
    x = np.zeros((60, tiny.WIDTH), np.float32)
    x[30] = np.nan
    np.savez(tmp_path / "d.npz", x=x)
    words = ("bench", "live", trained, "--data", tmp_path / "d.npz", *SHORT, oracle)
    done = apparate(*words, "--json", tmp_path / "r.json")
    assert (done.status, done.out) == (1, "")
    assert "the model's logits for this input are not finite" in done.error
    assert [entry.name for entry in tmp_path.iterdir()] == ["d.npz"]
