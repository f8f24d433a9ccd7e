import threading

import pytest

from apparate_jax.data.ahead import ahead


@pytest.mark.parametrize("depth", [0, 1, 3, 100])
def test_everything_in_order(depth):
    assert list(ahead(lambda x: x * x, range(20), depth)) == [x * x for x in range(20)]


def test_no_more_than_depth_is_made_before_it_is_asked_for():
    made = []
    results = ahead(lambda x: made.append(x) or x, range(50), 2)
    assert next(results) == 0
    for expected in range(1, 40):
        assert next(results) == expected
        assert len(made) <= expected + 1 + 2
    results.close()


def test_one_thread_makes_everything_and_not_the_callers():
    threads = set(ahead(lambda x: threading.get_ident(), range(30), 4))
    assert len(threads) == 1 and threading.get_ident() not in threads


def test_an_error_is_raised_when_its_item_is_due():
    def make(x):
        if x == 3:
            raise ValueError("three")
        return x

    results = ahead(make, range(10), 5)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)


def test_leaving_early_ends_the_thread():
    before = threading.active_count()
    results = ahead(lambda x: x, range(1000), 4)
    next(results)
    results.close()
    assert threading.active_count() == before
