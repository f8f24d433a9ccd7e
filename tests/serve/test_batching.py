"""Forming batches."""

import pytest

from apparate_jax.errors import EngineClosedError, QueueFullError
from apparate_jax.serve.batching import Request, RequestQueue, batch_shape


@pytest.mark.parametrize(
    ("waiting", "expected"),
    [(1, (1, 1)), (2, (2, 2)), (3, (3, 4)), (5, (5, 8)), (8, (8, 8)), (50, (8, 8))],
)
def test_batch_shape_takes_all_that_fit_and_pads_to_the_next(waiting, expected):
    assert batch_shape(waiting, (1, 2, 4, 8)) == expected


def _request(at: float = 0.0) -> Request:
    return Request((), at)


def test_requests_come_in_order_and_in_batches():
    queue = RequestQueue(10)
    requests = [_request(float(i)) for i in range(5)]
    for request in requests:
        queue.put(request)
    assert queue.take((1, 2)) == (requests[:2], 2)
    assert queue.take((1, 2, 4)) == (requests[2:], 4)
    assert len(queue) == 0


def test_a_full_or_closed_queue_refuses_and_a_closed_one_empties():
    queue = RequestQueue(1)
    queue.put(_request())
    with pytest.raises(QueueFullError):
        queue.put(_request())
    queue.close()
    with pytest.raises(EngineClosedError):
        queue.put(_request())
    taken = queue.take((1,))
    assert taken is not None
    assert len(taken[0]) == 1
    assert queue.take((1,)) is None


def test_cancelled_requests_are_dropped_and_counted():
    dropped: list[int] = []
    queue = RequestQueue(10, dropped.append)
    first, second = _request(), _request()
    queue.put(first)
    queue.put(second)
    first.future.cancel()
    assert queue.take((1, 2, 4)) == ([second], 1)
    assert dropped == [1]
