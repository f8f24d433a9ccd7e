"""Whether anything is in view of a fixed camera, without people who label: classical methods.

Frames are compared with a running median of the empty scene; the share of pixels that differ is
the evidence, hysteresis turns it into a state, and a majority over a window of time removes short
flips. Frames are small and grey here: 96x54 pixels are plenty to see a person.

Cameras change their exposure with what is in view, and a few frames late: frames are brought to the
background's grey levels first, by the median of the ratios, which anything that covers less than
half of the view leaves alone.

Sharp edge: a person who stands still is no background, so the median learns from empty frames only.
It has to start with one: nothing may be in view at the start of the video.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 96, 54
Grey = NDArray[np.uint8]
"""u8[frames, height, width]."""
States = NDArray[np.bool_]
"""bool[frames]: whether something is in view."""


class MotionConfig(NamedTuple):
    """When something is in view.

    Attributes:
        empty_frames: With nothing in view, at the start; the first background is their median.
        difference: Of grey levels (0..255), above which a pixel is foreground.
        low: Share of foreground below which the view is empty again.
        high: Share of foreground above which something is in view.
        window: Frames over which the majority counts.
    """

    empty_frames: int = 20
    difference: float = 25.0
    low: float = 0.015
    high: float = 0.03
    window: int = 9


def read_grey(path: Path) -> Grey:
    """All frames of a video, small and grey."""
    import av

    with av.open(str(path)) as container:
        frames = container.decode(video=0)
        return np.stack([f.reformat(WIDTH, HEIGHT, "gray").to_ndarray() for f in frames])


def foreground_share(grey: Grey, config: MotionConfig) -> NDArray[np.float64]:
    """Share of pixels that differ from a running median of the empty scene: f64[frames].

    The median is followed by steps of one grey level towards each empty frame, which settle where
    half of the frames lie above and half below (McFarlane and Schofield, 1995).
    """
    background = np.median(grey[: config.empty_frames], axis=0)
    shares = np.empty(len(grey))
    for i, frame in enumerate(grey.astype(np.float64)):
        exposure = np.median((frame + 1.0) / (background + 1.0))
        shares[i] = np.mean(np.abs(frame / exposure - background) > config.difference)
        if shares[i] < config.low:
            background += np.clip(frame - background, -1.0, 1.0)
    return shares


def hysteresis(values: NDArray[np.float64], low: float, high: float) -> States:
    """A state that goes on above ``high`` and off below ``low``; it starts off."""
    states = np.empty(len(values), bool)
    on = False
    for i, value in enumerate(values):
        on = value > (low if on else high)
        states[i] = on
    return states


def majority(states: States, window: int) -> States:
    """What most frames of a centred window say; at the ends, of what is there of it.

    Args:
        states: bool[frames].
        window: Frames, odd.
    """
    if window < 1 or window % 2 == 0:
        raise ValueError(f"window is {window}, expected an odd number of frames")
    ones = np.ones(window)
    votes = np.convolve(states.astype(np.float64), ones)
    voters = np.convolve(np.ones(len(states)), ones)
    middle = slice(window // 2, window // 2 + len(states))
    smoothed: States = votes[middle] * 2 > voters[middle]
    return smoothed


def in_view(grey: Grey, config: MotionConfig | None = None) -> States:
    """Whether something is in view, per frame."""
    config = config or MotionConfig()
    shares = foreground_share(grey, config)
    return majority(hysteresis(shares, config.low, config.high), config.window)


def flips(states: States) -> int:
    """How often the state changes from one frame to the next."""
    return int((states[1:] != states[:-1]).sum())
