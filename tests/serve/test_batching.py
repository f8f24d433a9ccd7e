"""The queue of the engine: order, bounds, deadlines, withdrawal."""

import math

import pytest

from apparate_jax.errors import (
    DeadlinePassedError,
    DeadlineUnreachableError,
    EngineClosedError,
    QueueFullError,
)
from apparate_jax.serve.batching import Request, RequestQueue, batch_shape
from apparate_jax.serve.policies import Device, Timing, immediate, slo, timeout, untimed

SIZES = (1, 2, 4)


@pytest.mark.parametrize(
    ("waiting", "expected"),
    [(1, (1, 1)), (2, (2, 2)), (3, (3, 4)), (5, (5, 8)), (8, (8, 8)), (50, (8, 8))],
)
def test_batch_shape_takes_all_that_fit_and_pads_to_the_next(waiting, expected):
    assert batch_shape(waiting, (1, 2, 4, 8)) == expected


def request(at: float = 0.0, **named) -> Request:
    return Request((), at, **named)


def make(limit=10, policy=immediate, sizes=SIZES, timing=None, device=None, **named):
    """A queue, and the clock that it reads: a list whose last entry is the time."""
    now = [0.0]
    looked = device or Device(), timing or untimed(sizes)
    queue = RequestQueue(limit, lambda _: looked, policy, clock=lambda: now[-1], **named)
    return queue, now


def test_requests_come_in_order_and_in_batches():
    queue, _ = make()
    requests = [request(float(i)) for i in range(6)]
    for one in requests:
        queue.put(one)
    assert queue.take() == (requests[:4], 4)
    assert queue.take() == (requests[4:], 2)
    assert len(queue) == 0


def test_a_full_or_closed_queue_refuses_and_a_closed_one_empties():
    queue, _ = make(1)
    queue.put(request())
    with pytest.raises(QueueFullError):
        queue.put(request())
    queue.close()
    with pytest.raises(EngineClosedError):
        queue.put(request())
    taken = queue.take()
    assert taken is not None
    assert len(taken[0]) == 1
    assert queue.take() is None


def test_cancelled_requests_are_dropped_and_counted():
    dropped: list[int] = []
    queue, _ = make(on_drop=dropped.append)
    first, second = request(), request()
    queue.put(first)
    queue.put(second)
    first.future.cancel()
    assert queue.take() == ([second], 1)
    assert dropped == [1]


def test_higher_levels_go_first_and_inside_a_level_the_first_that_came():
    queue, _ = make(levels=3)
    low, high, high_too, middle = (request(priority=level) for level in (3, 1, 1, 2))
    for one in (low, high, high_too, middle):
        queue.put(one)
    assert queue.take() == ([high, high_too, middle, low], 4)


def test_a_request_whose_deadline_passed_takes_no_place_and_is_told():
    dropped: list[int] = []
    queue, now = make(on_drop=dropped.append)
    late, exactly, later = (request(deadline_s=at) for at in (0.9, 1.0, 2.0))
    for one in (late, exactly, later):
        queue.put(one)
    now.append(1.0)
    assert queue.take() == ([exactly, later], 2)
    with pytest.raises(DeadlinePassedError, match=r"passed 100\.0 ms ago, after 1000\.0 ms of wai"):
        late.future.result(0)
    assert dropped == [1]


def test_a_batch_of_nobody_is_none():
    queue, now = make()
    late, fresh = request(deadline_s=0.5), request(deadline_s=5.0)
    queue.put(late)
    assert queue.poll(1.0) == math.inf, "nobody is left"
    assert isinstance(late.future.exception(0), DeadlinePassedError)
    queue.put(fresh)
    now.append(1.0)
    assert queue.take() == ([fresh], 1)


def test_those_whose_deadline_passed_keep_nobody_out_of_a_full_queue():
    queue, now = make(2, sizes=(1,))
    first, late, fresh = request(), request(deadline_s=0.5), request()
    queue.put(first)
    queue.put(late)
    with pytest.raises(QueueFullError):
        queue.put(fresh)
    now.append(1.0)
    queue.put(fresh)
    assert isinstance(late.future.exception(0), DeadlinePassedError)
    assert queue.take() == ([first], 1)
    assert queue.take() == ([fresh], 1)


def test_a_timeout_holds_until_the_oldest_waited_or_the_batch_is_full():
    queue, now = make(policy=timeout(0.010))
    first, second = request(0.0), request(0.004)
    queue.put(first)
    assert queue.poll(0.0) == pytest.approx(0.010)
    queue.put(second)
    assert queue.poll(0.004) == pytest.approx(0.010), "the oldest decides"
    assert queue.poll(0.010) == ([first, second], 2)
    four = [request(0.011) for _ in range(4)]
    for one in four:
        queue.put(one)
    now.append(0.011)
    assert queue.take() == (four, 4)


def test_a_closed_queue_holds_nothing_back():
    queue, _ = make(policy=timeout(60.0))
    one = request(deadline_s=30.0)
    queue.put(one)
    queue.close()
    assert queue.take() == ([one], 1)
    assert queue.take() is None


TEN = Timing((1, 1, 2), (0.010, 0.010, 0.016))
"""One request takes 10 ms, two take 16."""


def test_slo_refuses_at_submission_what_the_line_ahead_makes_late():
    busy = Device((0.010, 0.020), -math.inf, 2)
    queue, _ = make(policy=slo, timing=TEN, device=busy)
    first, hopeless, lazy = (request(deadline_s=at) for at in (0.031, 0.0299, 0.060))
    queue.put(first)
    with pytest.raises(
        DeadlineUnreachableError, match=r"29\.9 ms can not be had .* 1 requests wai"
    ):
        queue.put(hopeless)
    with pytest.raises(DeadlineUnreachableError):
        queue.put(request(deadline_s=0.035))  # alone it could be met, behind the first it cannot
    queue.put(lazy)
    assert queue.poll(0.010) == ([first], 1), "both together would take 36 ms"


def test_slo_rejects_what_became_late_when_the_batch_is_formed():
    queue, _ = make(policy=slo, timing=TEN)
    late, unreachable, fine = (request(deadline_s=at) for at in (0.012, 0.025, 0.050))
    for one in (fine, unreachable, late):
        queue.put(one)
    assert queue.poll(0.018) == ([fine], 1)
    assert isinstance(late.future.exception(0), DeadlinePassedError)
    assert isinstance(unreachable.future.exception(0), DeadlineUnreachableError)
