"""Pictures of studies: they are drawn, whatever is missing."""

import pytest

from apparate_jax.bench.study_plot import plot_bars, plot_points, plot_settings, styles

ROWS = [
    {
        "setting": setting,
        "system": system,
        "disagreement": 0.001 * i,
        "p50_saved_frac": 0.1 * i - 0.2,
        "windows_below_constraint": None if i == 1 else 0.1,
    }
    for setting in (1, 2)
    for i, system in enumerate(("vanilla", "apparate", "branchynet"))
]
KEYS = (("p50_saved_frac", "saved, %"), ("windows_below_constraint", "windows, %"))


@pytest.mark.parametrize(
    "draw",
    [
        lambda path: plot_points(ROWS[:3], "points", 0.99, path),
        lambda path: plot_settings(ROWS, KEYS, "settings", path),
        lambda path: plot_bars(ROWS[:3], KEYS, "bars", path),
    ],
    ids=["points", "settings", "bars"],
)
def test_it_is_a_picture(draw, tmp_path):
    draw(tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_no_two_systems_look_the_same():
    marks = styles([f"s{i}" for i in range(20)] + ["apparate"])
    assert len(set(marks.values())) == 21
