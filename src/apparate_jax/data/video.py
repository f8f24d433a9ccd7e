"""Videos: one example per frame, decoded when it is asked for.

A first pass over the file reads packets without decoding them. It gives the times of all frames
and of the key frames (16 bytes per frame), and finds files that end too early. A row is a moment:
at the video's own rate the time of a frame, at a given rate ``k / fps`` after the first one; its
picture is the frame on screen then.

Rows in order decode every frame once. The last few prepared rows are kept, so a batch may begin
where another ended; further back, and over a long way forward, the reader goes to the key frame
before. At most two decoded frames and :data:`LOOK_BACK` prepared ones are held, however long the
video is (and the few that the codec itself needs).
"""

import bisect
import contextlib
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from apparate_jax.core import Model
from apparate_jax.data.dataset import Rows, named
from apparate_jax.data.image import ImageEncoder, Pixels
from apparate_jax.errors import DataError

SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v")

LOOK_BACK = 16
"""Prepared rows that are kept."""

_THREADS = 2
# What a header may promise beyond what is there: rounding, a frame that was dropped in recording.
_SLACK_S = 1.0
_SLACK_FRAC = 0.01


class Index(NamedTuple):
    """When the frames of a video are shown.

    Attributes:
        times: i64[frames], ascending, in units of ``unit_s``.
        keys: i64[key frames], ascending, among ``times``.
        unit_s: Seconds per unit.
        rate: Frames per second, as the file says or on average.
    """

    times: NDArray[np.int64]
    keys: NDArray[np.int64]
    unit_s: float
    rate: float


def read_index(path: Path) -> Index:
    """The times of a video's frames, from its packets; nothing is decoded.

    Raises:
        DataError: No video, or one that is damaged or ends before its header says.
    """
    import av

    times: list[int] = []
    keys: list[int] = []
    end_s = 0.0
    with _explained(path.name), av.open(str(path)) as container:
        stream = _stream(path, container)
        for packet in container.demux():
            at = packet.dts if packet.pts is None else packet.pts
            if at is None or packet.size == 0:
                continue
            end_s = max(end_s, float((at + (packet.duration or 0)) * packet.time_base))
            if packet.stream.index == stream.index and not packet.is_discard:
                times.append(at)
                if packet.is_keyframe:
                    keys.append(at)
        promised_s = container.duration / av.time_base if container.duration else 0.0
        start_s = (container.start_time or 0) / av.time_base
        _check_whole(path, len(times), stream.frames, end_s - start_s, promised_s)
        unit_s, rate = float(stream.time_base), float(stream.average_rate or 0)
    ordered = np.sort(np.asarray(times, np.int64))
    span_s = (ordered[-1] - ordered[0]) * unit_s
    return Index(ordered, np.sort(np.asarray(keys, np.int64)), unit_s, rate or len(times) / span_s)


def _stream(path: Path, container: Any) -> Any:
    """The video stream, ready to decode.

    Raises:
        DataError: There is none, or nothing is known of it (decoding would crash).
    """
    streams = container.streams.video
    if not streams or streams[0].codec_context is None:
        raise DataError(f"{path.name} has no video that can be decoded")
    stream = streams[0]
    stream.thread_type = "AUTO"
    stream.codec_context.thread_count = _THREADS
    return stream


def _check_whole(path: Path, found: int, promised: int, end_s: float, promised_s: float) -> None:
    lacks = promised - found > max(1, promised * _SLACK_FRAC)
    short = promised_s - end_s > max(_SLACK_S, promised_s * _SLACK_FRAC)
    if not found or lacks or short:
        frames = f" of {promised}" if promised else ""
        raise DataError(
            f"{path.name} is truncated or damaged: it ends after row {found - 1}, {found}{frames} "
            f"frames and {end_s:.1f} of {promised_s:.1f} s are there: copy it again"
        )


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turns what PyAV raises into a DataError that names the file."""
    import av

    try:
        yield
    except DataError:
        raise
    except (av.error.FFmpegError, OSError, EOFError) as error:
        raise DataError(f"{what} cannot be decoded: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error)


class FrameReader:
    """Decodes frames in the order of time; can go back.

    Attributes:
        decoded: How many frames were decoded so far.
        opened: How often it had to begin anew at a key frame or at the start.
    """

    def __init__(self, path: Path, index: Index) -> None:
        """Name the file; it is opened when the first frame is asked for.

        Args:
            path: The video.
            index: Of that file.
        """
        self.decoded = 0
        self.opened = 0
        self._path = path
        self._index = index
        self._frames: Iterator[Any] = iter(())
        self._container: Any = None
        self._current: Any = None
        self._next: Any = None
        self._failure = ""

    def at(self, time: int) -> Pixels:
        """The frame on screen at a time: u8[height, width, 3], RGB.

        Raises:
            DataError: The video cannot be decoded that far.
        """
        if self._current is None or time < _time(self._current) or self._far(time):
            self._go(time)
        while self._next is not None and _time(self._next) <= time:
            self._advance()
        if self._next is None and time > _time(self._current):
            raise DataError(self._failure or "the video ends before that frame")
        pixels: Pixels = self._current.to_ndarray(format="rgb24")
        return pixels

    def _far(self, time: int) -> bool:
        """Whether a key frame lies between the position and a time, beyond the next frame."""
        key = self._key(time)
        return key is not None and self._next is not None and key > _time(self._next)

    def _key(self, time: int) -> int | None:
        position = bisect.bisect_right(self._index.keys, time) - 1
        return int(self._index.keys[position]) if position >= 0 else None

    def _go(self, time: int) -> None:
        """Stand at or before a time: at the key frame before it, at the start if that fails."""
        key = self._key(time)
        if key is not None and key > self._index.times[0]:
            self._open(key)
            if self._current is not None and _time(self._current) <= time:
                return
        self._open(None)
        if self._current is None:
            raise DataError(self._failure or "no frame can be decoded")

    def _open(self, key: int | None) -> None:
        import av

        self.close()
        self.opened += 1
        self._container = av.open(str(self._path))
        stream = _stream(self._path, self._container)
        if key is not None:
            self._container.seek(key, stream=stream)
        self._frames = self._container.decode(stream)
        self._current = self._read()
        self._next = self._read() if self._current is not None else None

    def _advance(self) -> None:
        self._current, self._next = self._next, self._read()

    def _read(self) -> Any:
        """The next frame, None at the end. A failure is kept: the frame before it is whole."""
        import av

        try:
            frame = next(self._frames, None)
        except av.error.FFmpegError as error:
            self._failure = f"it cannot be decoded ({_reason(error)})"
            return None
        self.decoded += frame is not None
        return frame

    def close(self) -> None:
        """Let go of the file."""
        self._current = self._next = None
        self._frames = iter(())
        self._failure = ""
        if self._container is not None:
            self._container.close()
            self._container = None


def _time(frame: Any) -> int:
    return int(frame.dts if frame.pts is None else frame.pts)


class VideoDataset:
    """The frames of a video, at its own rate or at a given one."""

    def __init__(
        self, path: Path, model: Model, *, fps: float | None = None, limit: int | None = None
    ) -> None:
        """Read the times of the frames, and decode the first.

        Args:
            path: The video.
            model: How it takes pictures.
            fps: Rows per second of video; each frame is a row unless given.
            limit: Use at most this many rows.

        Raises:
            DataError: No video, a damaged one, a model that takes no pictures, or an ``fps`` that
                is not above 0.
        """
        if fps is not None and not fps > 0:
            raise DataError(f"fps is {fps}, expected above 0")
        self.name = path.name
        self.labels: NDArray[np.int64] | None = None
        self._encoder = ImageEncoder(model)
        index = read_index(path)
        self.reader = FrameReader(path, index)
        self._moments = moments(index, fps)[:limit]
        self._kept: OrderedDict[int, NDArray[Any]] = OrderedDict()
        self.rows(0, 1)

    def __len__(self) -> int:
        return len(self._moments)

    @property
    def held(self) -> int:
        """Prepared rows that are kept now."""
        return len(self._kept)

    def rows(self, start: int, stop: int) -> Rows:
        """Frames ``start`` to ``stop``.

        Raises:
            DataError: One cannot be decoded; names the file and the row.
        """
        stop = min(stop, len(self))
        return (self._encoder.stack([self._row(row) for row in range(start, stop)]),)

    def _row(self, row: int) -> NDArray[Any]:
        if row in self._kept:
            return self._kept[row]
        before = self._kept.get(row - 1)
        if before is not None and self._moments[row] == self._moments[row - 1]:
            prepared = before  # asked for more often than there are frames
        else:
            with _explained(f"{self.name}, row {row}"):
                prepared = self._encoder.encode(self._frame(row))
        self._kept[row] = prepared
        if len(self._kept) > LOOK_BACK:
            self._kept.popitem(last=False)
        return prepared

    def _frame(self, row: int) -> Pixels:
        try:
            return self.reader.at(int(self._moments[row]))
        except DataError as error:
            raise DataError(f"{self.name}, row {row}: {error}") from error

    def example(self, row: int, model: Model) -> dict[str, NDArray[Any]]:
        """One example by input name, without the batch axis."""
        return named(model, tuple(values[0] for values in self.rows(row, row + 1)))


def moments(index: Index, fps: float | None) -> NDArray[np.int64]:
    """When the frame of each row begins to be shown: i64[rows].

    Args:
        index: Of the video.
        fps: Rows per second; each frame is a row without it.
    """
    times = index.times
    if fps is None:
        return times
    span_s = float(times[-1] - times[0]) * index.unit_s + 1.0 / index.rate
    count = max(1, round(span_s * fps))
    # A moment that falls on a frame must not be rounded to just before it.
    wanted = times[0] + (np.arange(count) / fps + 1e-6) / index.unit_s
    shown: NDArray[np.int64] = times[np.searchsorted(times, wanted, side="right") - 1]
    return shown
