"""Make things ready before they are needed, on one thread, a bounded number ahead."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


def ahead(make: Callable[[Item], Made], items: Iterable[Item], depth: int) -> Iterator[Made]:
    """``make`` of every item, in order, at most ``depth`` of them before they are asked for.

    One thread makes all of them, so ``make`` may keep its place (a video decoder does). What it
    raises is raised here, when its item is due.

    >>> list(ahead(str, [1, 2, 3], depth=2))
    ['1', '2', '3']
    """
    waiting: deque[Future[Made]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="apparate-ahead") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(make, item))
                if len(waiting) > depth:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
