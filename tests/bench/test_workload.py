"""Arrival times: seeded, at the stated rate, or those of a trace."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from apparate_jax.bench.workload import (
    ARRIVALS,
    arrivals,
    at_rate,
    from_counts,
    read_trace,
    stretch,
)
from apparate_jax.errors import ConfigError, DataError


def test_fixed_gaps():
    np.testing.assert_allclose(arrivals("fixed", 4.0, 5), [0, 0.25, 0.5, 0.75, 1.0])


def test_poisson_gaps_are_exponential_and_seeded():
    times = arrivals("poisson", 50.0, 20_000, seed=3)
    gaps = np.diff(times, prepend=0.0)
    assert (gaps > 0).all()
    assert gaps.mean() == pytest.approx(1 / 50, rel=0.03)
    assert gaps.std() == pytest.approx(1 / 50, rel=0.03)
    # Without memory: a gap says nothing of the next one.
    assert abs(np.corrcoef(gaps[1:], gaps[:-1])[0, 1]) < 0.03
    np.testing.assert_array_equal(times, arrivals("poisson", 50.0, 20_000, seed=3))
    assert (times != arrivals("poisson", 50.0, 20_000, seed=4)).all()


@pytest.mark.parametrize("kind", ARRIVALS)
@pytest.mark.parametrize(("rate", "count"), [(0.0, 5), (-1.0, 5), (5.0, 0)])
def test_nothing_to_draw(kind, rate, count):
    with pytest.raises(ConfigError, match="expected both above 0"):
        arrivals(kind, rate, count)


def test_an_unknown_kind():
    with pytest.raises(ConfigError, match="arrivals are 'bursts', expected 'poisson', 'fixed'"):
        arrivals("bursts", 1.0, 5)


@pytest.fixture
def trace(tmp_path):
    def write(text):
        path = tmp_path / "trace.csv"
        path.write_text(text)
        return path

    return write


def test_seconds_in_any_order_start_at_zero(trace):
    path = trace("at,tokens\n7.5,3\n5,1\n6.25,9\n\n")
    np.testing.assert_array_equal(read_trace(path), [0, 1.25, 2.5])
    np.testing.assert_array_equal(read_trace(path, "tokens"), [0, 2, 8])


def test_timestamps(trace):
    path = trace(
        "TIMESTAMP,n\n"
        "2023-11-16 18:17:03.9799600,1\n"  # seven digits, as some traces have
        "2023-11-16 18:17:04.0319600,2\n"
        "2023-11-16 18:18:03.97996,3\n"
    )
    np.testing.assert_allclose(read_trace(path), [0, 0.052, 60.0], atol=1e-6)


def test_timestamps_of_several_zones(trace):
    path = trace("at\n2024-03-01T10:00:00Z\n2024-03-01T12:00:01+02:00\n2024-03-01T10:00:03\n")
    np.testing.assert_allclose(read_trace(path), [0, 1, 3], atol=1e-6)


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("", None, "has no rows"),
        ("at\n", None, "has no rows"),
        ("at\nsoon\n", None, "starts with 'soon', expected seconds or ISO timestamps"),
        ("at\n1\nlater\n", None, "expected seconds or ISO timestamps"),
        ("at\n1\ninf\n", None, "times that are not finite"),
        ("at\n1\nnan\n", None, "times that are not finite"),
        ("at\n2023-11-16\nNaT\n", None, "expected seconds or ISO timestamps"),
        ("at,n\n1,2\n", "when", r"has columns \['at', 'n'\], expected 'when' among them"),
        ("at,n\n1,2\n3\n", "n", "one without a value for 'n'"),
        ("at\n\n\n", None, "has no rows"),
    ],
)
def test_traces_that_are_none(trace, text, column, message):
    with pytest.raises(DataError, match=message):
        read_trace(trace(text), column)


def test_a_trace_that_cannot_be_read(tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name in ("absent.csv", "binary", "."):
        with pytest.raises(DataError, match="cannot read the trace"):
            read_trace(tmp_path / name)


@settings(deadline=None)
@given(st.lists(st.integers(0, 10**6), min_size=2, max_size=50).map(sorted), st.floats(0.01, 1e4))
def test_a_trace_at_another_rate_keeps_its_shape(millis, rate):
    times = (np.asarray(millis) - millis[0]) / 1e3
    assume(times[-1] > 0)
    scaled = at_rate(times, rate)
    assert (len(times) - 1) / scaled[-1] == pytest.approx(rate)
    np.testing.assert_allclose(scaled / scaled[-1], times / times[-1], atol=1e-9)


def test_times_from_counts():
    """Each interval has its number of arrivals, and other seeds other times within it."""
    counts = [2, 0, 5, 1]
    times = from_counts(counts, 60.0, seed=3)
    assert times[0] == 0 and (np.diff(times) >= 0).all()
    first = np.random.default_rng(3).random(8)[:2].min() * 60.0
    np.testing.assert_array_equal(np.histogram(times + first, np.arange(5) * 60.0)[0], counts)
    assert not np.array_equal(times, from_counts(counts, 60.0, seed=4))
    for wrong in ([], [0, 0], [3, -1]):
        with pytest.raises(DataError, match="expected none below 0 and some above"):
            from_counts(wrong, 60.0)


def test_a_stretch_goes_on_where_the_one_before_ended():
    """Around its end a trace begins again, one mean gap later; gaps are the trace's own."""
    times = np.array([0.0, 1.0, 1.5, 4.5])
    np.testing.assert_allclose(stretch(times, 0, 2), [0.0, 1.0])
    np.testing.assert_allclose(stretch(times, 2, 4), [0.0, 3.0, 4.5, 5.5])
    whole = stretch(times, 0, 12)
    assert (np.diff(whole) > 0).all() and whole[8] == pytest.approx(2 * (4.5 + 1.5))
    np.testing.assert_allclose(stretch(times, 5, 7), whole[5:] - whole[5])


def test_a_trace_of_one_time_has_no_rate():
    for times in (np.zeros(1), np.zeros(5)):
        with pytest.raises(DataError, match="at least two different times"):
            at_rate(times, 3.0)


def test_the_trace_of_a_real_service(request):
    path = request.config.rootpath.parent / "shared" / "data" / "traces" / "azure_llm_conv.csv"
    if not path.is_file():
        pytest.skip("the trace is not there")
    times = read_trace(path)
    assert len(times) > 1000 and times[0] == 0 and (np.diff(times) >= 0).all()
    assert 60 < times[-1] < 86_400
