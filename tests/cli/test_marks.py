"""Numbers, bars and lines as text."""

import pytest

from apparate_cli.marks import bar, ms, number, percent, span, spark


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (0.421, "0.42"), (42.04, "42.0"), (1234.5, "1,234")]
)
def test_milliseconds(value, text):
    assert ms(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (7, "7"), (7.25, "7.25"), (42.06, "42.1"), (1234.5, "1,234"), (0, "0")],
)
def test_numbers(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("share", "digits", "text"),
    [
        (None, 1, "-"),
        (0.5, 0, "50 %"),
        (0.99996, 2, "99.99 %"),
        (1.0, 2, "100.00 %"),
        (-0.001, 0, "0 %"),
    ],
)
def test_a_share_is_all_only_if_it_is(share, digits, text):
    assert percent(share, digits) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59, "59 s"), (120, "2 min"), (3725, "1 h 2 min"), (90000, "1 d 1 h")],
)
def test_how_long(seconds, text):
    assert span(seconds) == text


@pytest.mark.parametrize(
    ("share", "drawn"), [(0.0, "    "), (0.5, "██  "), (0.53, "██▏ "), (1.0, "████"), (2.0, "████")]
)
def test_bars_fill_their_columns(share, drawn):
    assert bar(share, 4) == drawn
    assert len(bar(share, 4, ascii_only=True)) == 4


def test_lines_go_from_nothing_to_the_largest():
    assert spark([0.0, 1.0, 2.0, None, 4.0], 10) == "▁▃▅ █"
    assert spark([0.0, 0.0], 10) == "▁▁" and spark([], 10) == "" and spark([None], 3) == " "
    assert spark([1.0, 1.0], 2, most=2.0) == "▅▅"
    assert spark([3.0], 2, most=2.0) == "█"
    assert spark([0.0, 4.0], 2, ascii_only=True).isascii()


def test_more_values_than_columns_are_pooled():
    assert spark([0.0, 2.0, None, 2.0, None, None], 3, most=2.0) == "▅█ "
