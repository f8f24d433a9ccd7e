"""Parts of a video as videos: cut without encoding again, or longer in other light and frame."""

import itertools
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""u8[height, width, 3], RGB."""

KEPT = 0.9
"""Share of height and width that is left when the framing moves."""
GAIN = (0.6, 1.4)
"""Range of brightness, 1 as it was."""


class Change(NamedTuple):
    """Another light and framing.

    Attributes:
        gain: Factor of all grey levels.
        down: Where the part that is kept begins, 0 at the top, 1 as low as can be.
        right: The same from the left.
    """

    gain: float = 1.0
    down: float = 0.5
    right: float = 0.5


def random_change(rng: np.random.Generator) -> Change:
    """Any light and framing."""
    return Change(rng.uniform(*GAIN), rng.random(), rng.random())


def changes(count: int, seed: int) -> list[Change]:
    """No change, then random ones: ``count`` in all."""
    rng = np.random.default_rng(seed)
    return [Change(), *(random_change(rng) for _ in range(count - 1))]


def changed(pixels: Pixels, change: Change) -> Pixels:
    """A frame in another light and framing; the part that is kept has even height and width."""
    height, width = (kept(size) for size in pixels.shape[:2])
    top = round(change.down * (pixels.shape[0] - height))
    left = round(change.right * (pixels.shape[1] - width))
    levels = np.rint(np.arange(256) * change.gain).clip(0, 255).astype(np.uint8)
    lit: Pixels = levels[pixels[top : top + height, left : left + width]]
    return lit


def kept(size: int) -> int:
    """How much is left of a height or width: an even number."""
    return int(size * KEPT + 1e-6) // 2 * 2


def taller(height: int) -> int:
    """Of what this even height is left."""
    return math.ceil(height / KEPT - 1e-6)


def frames(
    video: Path, first: int = 0, height: int | None = None, end: int | None = None
) -> Iterator[Pixels]:
    """Frames ``first`` to ``end`` of a video, so large that ``height`` is left of a changed one."""
    with av.open(str(video)) as source:
        for frame in itertools.islice(source.decode(video=0), first, end):
            if height is None:
                yield frame.to_ndarray(format="rgb24")
            else:
                tall = taller(height)
                wide = round(frame.width * tall / frame.height)
                yield frame.reformat(wide, tall, "rgb24", interpolation="AREA").to_ndarray()


def rate_of(video: Path) -> Any:
    """Frames per second, as a fraction."""
    with av.open(str(video)) as source:
        return source.streams.video[0].average_rate


def cut(video: Path, first: int, path: Path) -> int:
    """Write a video from its first key frame at or after a frame; nothing is encoded again.

    Args:
        video: The video, without frames that are shown in another order than they are stored.
        first: Frame number.
        path: The video to write.

    Returns:
        Number of the frame that it begins with.
    """
    begin: int | None = None
    with av.open(str(video)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        offset = 0
        packets = (p for p in source.demux(video=0) if p.size)
        for number, packet in enumerate(packets):
            if begin is None and number >= first and packet.is_keyframe:
                begin, offset = number, packet.dts
            if begin is not None:
                packet.stream = stream
                packet.pts, packet.dts = packet.pts - offset, packet.dts - offset
                target.mux(packet)
    if begin is None:
        raise ValueError(f"{video.name} has no key frame at or after frame {first}")
    return begin


def write(path: Path, rate: Any, pictures: Iterable[Pixels]) -> int:
    """Write a video of pictures of one even size.

    Args:
        path: The video to write.
        rate: Frames per second.
        pictures: Its frames.

    Returns:
        How many frames were written.

    Raises:
        ValueError: There is no picture.
    """
    written = 0
    with av.open(str(path), "w") as target:
        options = {"crf": "18", "preset": "veryfast"}
        stream = target.add_stream("libx264", rate=rate, options=options)
        stream.pix_fmt = "yuv420p"
        for pixels in pictures:
            if not written:
                stream.height, stream.width = pixels.shape[:2]
            target.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            written += 1
        if not written:
            raise ValueError(f"there is no picture for {path.name}")
        target.mux(stream.encode())
    return written


def loop(
    video: Path,
    first: int,
    path: Path,
    loops: list[Change],
    height: int | None = None,
    end: int | None = None,
) -> int:
    """Write a video of the frames ``first`` to ``end``, again and again, each time changed.

    Args:
        video: The video.
        first: Frame number.
        path: The video to write, encoded again.
        loops: One change per time.
        height: Of the frames that are written, even; what is kept of the video's own unless given.
        end: Number of the frame behind the last; all that there are unless given.

    Returns:
        How many frames were written.
    """
    pictures = (
        changed(frame, change) for change in loops for frame in frames(video, first, height, end)
    )
    return write(path, rate_of(video), pictures)
