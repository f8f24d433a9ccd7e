"""The pictures of the documents are drawn from the result files."""

import sys

import pytest

from tests.docs.figures import ROOT

LARGEST_BYTES = 150_000


@pytest.fixture(scope="module")
def pictures():
    """The script, which finds its neighbours as scripts do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        import pictures as script

        yield script
    for name in ("pictures", "_common"):
        sys.modules.pop(name, None)


def test_stages_follow_one_another_to_the_end(pictures):
    report = pictures.read("demo")["report"]
    (shape,) = (s for s in report["profile"] if s["batch"] == pictures.BATCH)
    bars = pictures.stages(report)
    assert [start for start, *_ in bars] == [0, *(end for _, end, _ in bars[:-1])]
    assert bars[-1][1] == shape["total_ms"]
    names = [*report["profiled_sites"], "final"]
    assert [label.splitlines()[1] for *_, label in bars] == names
    shares = pictures.left_by(report, names)
    assert sum(shares) == pytest.approx(sum(report["apparate"]["exit_rates"].values()))


def test_all_are_drawn(pictures, tmp_path):
    report = pictures.read("demo")["report"]
    pictures.timeline(report, tmp_path / "a.png")
    pictures.latency(report, pictures.read("load_live"), tmp_path / "b.png")
    pictures.evaluation(pictures.read("paper"), tmp_path / "c.png")
    for path in tmp_path.iterdir():
        assert path.read_bytes().startswith(b"\x89PNG")


def test_pictures_of_the_documents_are_small():
    pictures = [*(ROOT / "docs").glob("*.png"), *(ROOT / "docs").glob("*.svg")]
    assert pictures
    assert all(path.stat().st_size < LARGEST_BYTES for path in pictures)
