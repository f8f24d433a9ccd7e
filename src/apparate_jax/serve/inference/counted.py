"""Counts as the protocol's statistics, and requests that are counted.

References:
    Triton's protocol extension "statistics".
"""

import asyncio
import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

from apparate_jax.serve.inference.describe import Description
from apparate_jax.serve.inference.refusals import kind_of
from apparate_jax.serve.telemetry import Statistics
from apparate_jax.serve.telemetry.counts import Duration

CANCELLED = "cancelled"


class Counting:
    """The times of one request, as they become known.

    Attributes:
        input_s: For reading and checking it.
        output_s: For making its response.
    """

    def __init__(self) -> None:
        self.input_s = 0.0
        self.output_s = 0.0

    @contextlib.contextmanager
    def output(self) -> Iterator[None]:
        """What is done here makes the response."""
        begun = time.monotonic()
        yield
        self.output_s += time.monotonic() - begun


@contextlib.contextmanager
def counted(statistics: Statistics | None, arrived_s: float) -> Iterator[Counting]:
    """Count a request: answered if this ends well, failed if not.

    Args:
        statistics: Where to; nowhere if None.
        arrived_s: When it came, seconds of the monotonic clock.
    """
    times = Counting()
    if statistics is None:
        yield times
        return
    statistics.begun()
    try:
        yield times
    except BaseException as error:
        gone = isinstance(error, asyncio.CancelledError | GeneratorExit)
        reason = kind_of(error).name.lower() if isinstance(error, Exception) else CANCELLED
        statistics.failed(CANCELLED if gone else reason, time.monotonic() - arrived_s)
        raise
    statistics.answered(time.monotonic() - arrived_s, times.input_s, times.output_s)


def model_statistics(counts: Mapping[tuple[str, str], Statistics]) -> Description:
    """The statistics of models, as the protocol has them. Durations are nanoseconds."""
    return {"model_stats": [_one(*key, statistics) for key, statistics in counts.items()]}


def _one(name: str, version: str, s: Statistics) -> Description:
    with s.lock:
        return {
            "name": name,
            "version": version,
            "last_inference": round(s.last_answer_s * 1e3),
            "inference_count": s.queue.count,
            "execution_count": sum(one.infer.count for one in s.batches.values()),
            "inference_stats": {
                "success": _duration(s.success),
                "fail": _duration(s.failure),
                "queue": _duration(s.queue),
                "compute_input": _duration(s.input),
                "compute_infer": _duration(s.infer),
                "compute_output": _duration(s.output),
                "cache_hit": _duration(Duration()),
                "cache_miss": _duration(Duration()),
            },
            "batch_stats": [
                {
                    "batch_size": shape,
                    "compute_input": _duration(Duration()),
                    "compute_infer": _duration(one.infer),
                    "compute_output": _duration(Duration()),
                }
                for shape, one in sorted(s.batches.items())
            ],
            "memory_usage": [],
        }


def _duration(duration: Duration) -> dict[str, Any]:
    return {"count": duration.count, "ns": round(duration.total_s * 1e9)}
