"""The rule of verdicts, and their sentences."""

import pytest

from apparate_jax.bench.paper.published import PUBLISHED, Published, published
from apparate_jax.bench.paper.verdicts import WORDS, Ours, compare, judge, number, ours_of

UP = Published("k", "median saved", 10.0, 20.0)
DOWN = UP._replace(better="lower")
NEITHER = UP._replace(better="neither")


def one(value, spread=0.0):
    return Ours(value, value - spread, value + spread, 3)


@pytest.mark.parametrize(
    ("value", "spread", "up", "down", "neither"),
    [
        (9.0, 0.0, "worse", "better", "lower"),
        (10.0, 0.0, "equal", "equal", "as published"),
        (15.0, 0.0, "equal", "equal", "as published"),
        (20.0, 0.0, "equal", "equal", "as published"),
        (20.1, 0.0, "better", "worse", "higher"),
        (21.0, 1.0, "equal", "equal", "as published"),
        (21.1, 1.0, "better", "worse", "higher"),
        (9.1, 1.0, "equal", "equal", "as published"),
        (8.9, 1.0, "worse", "better", "lower"),
    ],
)
def test_the_rule(value, spread, up, down, neither):
    ours = one(value, spread)
    assert [judge(ours, figure) for figure in (UP, DOWN, NEITHER)] == [up, down, neither]
    assert {up, down, neither} <= set(WORDS)


def test_a_tolerance_that_was_measured_replaces_the_runs_own():
    assert judge(one(22.0, 5.0), UP) == "equal"
    assert judge(one(22.0, 5.0), UP, tolerance=1.0) == "better"
    assert judge(one(22.0), UP, tolerance=2.5) == "equal"


def test_what_is_less_than_rounding_or_than_reading_off_is_no_difference():
    assert judge(one(20.04), UP) == "equal" and judge(one(20.06), UP) == "better"
    read = UP._replace(read_off=True)
    assert judge(one(20.9), read) == "equal" and judge(one(21.1), read) == "better"


def test_figures_of_runs():
    assert ours_of([0.1, 0.3, 0.2], 100) == pytest.approx((20.0, 10.0, 30.0, 3))
    assert ours_of([]) is None and ours_of([0.1, None]) is None
    assert ours_of([0.1, 0.3]).tolerance == pytest.approx(0.1)


def test_sentences_have_both_figures():
    found = compare("imdb", UP, Ours(25.0, 24.0, 26.0, 3), remark="by chance")
    assert found.sentence == (
        "imdb: median saved is 25.0 % (24.0 to 26.0 in 3 runs), the paper's 10 to 20 %: better "
        "(by chance)."
    )
    alone = compare("imdb", UP, Ours(5.0, 5.0, 5.0, 1))
    assert alone.sentence == "imdb: median saved is 5.0 %, the paper's 10 to 20 %: worse."
    none = compare("imdb", UP, None, missing="nobody looked")
    assert none.verdict == "not comparable"
    assert none.sentence == (
        "imdb: median saved is not comparable with the paper's 10 to 20 %: nobody looked."
    )
    assert none.as_json()["ours"] is None and found.as_json()["ours"]["runs"] == 3


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (1.234, "ms", "1.23 ms"),
        (12.34, "%", "12.3 %"),
        (0.9996, "x", "x 1.00"),
        (-0.0001, "%", "0.0 %"),
        (0.003, "%", "0.003 %"),
    ],
)
def test_numbers_for_people(value, unit, text):
    assert number(value, unit) == text


def test_the_papers_figures_are_ranges_of_known_kinds():
    assert len({(one.key, one.kind) for one in PUBLISHED}) == len(PUBLISHED)
    for one in PUBLISHED:
        assert one.low <= one.high and one.unit in ("%", "ms", "x") and one.where
        assert one.better in ("higher", "lower", "neither")
        assert one.kind in (None, "text", "images")


def test_a_figure_by_kind():
    assert published("p50 saved", "text").shown == "10 to 24.2 %"
    assert published("p50 saved", "images").shown == "40.5 to 91.5 %"
    assert published("p50 saved", None) is None
    assert published("search", None).shown == "11.9 ms"
    assert published("slo x1", "text").shown == "10.7 % (BERT-base, read off a figure)"
    with pytest.raises(KeyError, match="no figure 'moon'"):
        published("moon", "text")
