"""``apparate bench compare`` on a tiny recording."""

from dataclasses import replace

import numpy as np
import pytest

from apparate_jax.bench.baselines import DEFAULT
from tests.bench import tiny

SHORT = ("--requests", 300, "--accuracy", 0.9)


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    made = tiny.recording(400)
    path = tmp_path_factory.mktemp("traces") / "stream.npz"
    replace(made, entropies=made.errors**2, final_errors=made.errors[:, 2]).save(path)
    return path


def test_every_system(apparate, trace, tmp_path):
    picture = tmp_path / "points.png"
    done = apparate("bench", "compare", trace, *SHORT, "--plot", picture, "--json", "-")
    assert done.status == 0
    report = done.json
    assert [row["system"] for row in report["systems"]] == list(DEFAULT)
    assert report["accuracy_constraint"] == 0.9 and report["requests"] == 812
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_some_systems_with_other_recordings(apparate, trace, tmp_path):
    arrivals = tmp_path / "times.csv"
    arrivals.write_text("TIMESTAMP\n" + "".join(f"{t}\n" for t in np.linspace(0, 9, 140)))
    words = ("--systems", "two-layer,deebert", "--heavy", trace, "--small", trace)
    done = apparate("bench", "compare", trace, *SHORT, *words, "--arrivals", arrivals)
    assert done.status == 0
    for word in ("two-layer", "deebert", "paper on stream.csv, 140 requests at 40% load"):
        assert word in done.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--systems", "branchy"), "systems ['branchy'] are unknown, expected some of vanilla"),
        (("--systems", ""), "expected some of vanilla, branchynet"),
        (("--systems", "two-layer"), "two-layer needs a small model"),
        (("--arrivals", "bursts"), "arrivals are 'bursts'"),
        (("--load-frac", 9), "load_frac is 9.0"),
        (("--heavy", "none.npz"), "none.npz is no recording"),
    ],
)
def test_what_is_refused(apparate, trace, words, message):
    done = apparate("bench", "compare", trace, *SHORT, *words, "--json", "-")
    assert (done.status, done.out) == (1, "")
    assert message in done.error
