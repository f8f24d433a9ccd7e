"""A recorded stream: what every ramp and the original model answered to each input, and how long.

Everything that a policy could see or do is in it: errors and predictions of *all* ramps, whatever
set is active, and the latency profile of the device. So one recording replays any plan, policy,
accuracy constraint and load (:mod:`apparate_jax.bench.replay`). Rows are in the order of the
stream; recordings that follow one another make a stream that shifts.

On disk it is one ``.npz``: arrays, and a header in JSON. Nothing in it is executed on reading.
"""

import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from apparate_jax.core import Profile
from apparate_jax.errors import DataError
from apparate_jax.ramps.answer import CRITERIA
from apparate_jax.ramps.train import Validation
from apparate_jax.serve.profile import profile_from_json

FORMAT = 1
_HEADER = "header"
_OPTIONAL = ("labels", "entropies", "final_errors")
_ARRAYS = ("errors", "predictions", "final_predictions", *_OPTIONAL)
_HELD_OUT = ("rows", "errors", "predictions", "labels")


class Part(NamedTuple):
    """A stretch of rows from one data set.

    Attributes:
        name: Of the data set.
        first: Its first row.
    """

    name: str
    first: int


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """Answers of S ramps and the original model to N inputs, and the latency profile.

    Attributes:
        model: Name of the model.
        workload: Name of the data.
        site_names: Of all sites of the model.
        depths: Of all sites, share of the cost before each, 0..1.
        ramps: Sites with a ramp, S of them, ascending.
        errors: f32[N, S], 1 - top probability, or NaN.
        predictions: i32[N, S].
        final_predictions: i32[N], the original model's.
        profile: Latencies of the ramps that were active when it was measured.
        device: Where the answers were computed.
        jax_version: With which they were computed.
        parts: The data sets that follow one another, by their first rows.
        labels: i32[N], or None.
        validation: What the ramps said about the samples that their training held out: a policy
            begins with it.
        ramp_bytes: Memory of each ramp, S of them, for policies that choose within a budget.
        entropies: f32[N, S], entropy of each ramp's probabilities over that of a guess, 0..1 or
            NaN; None in recordings without.
        final_errors: f32[N], the original model's own; None in recordings without.
    """

    model: str
    workload: str
    site_names: tuple[str, ...]
    depths: tuple[float, ...]
    ramps: tuple[int, ...]
    errors: NDArray[np.float32]
    predictions: NDArray[np.int32]
    final_predictions: NDArray[np.int32]
    profile: Profile
    device: str
    jax_version: str
    parts: tuple[Part, ...]
    labels: NDArray[np.int32] | None = None
    validation: Validation | None = None
    ramp_bytes: tuple[int, ...] = ()
    entropies: NDArray[np.float32] | None = None
    final_errors: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        problem = _problem(self)
        if problem:
            raise DataError(f"this is no sound recording: {problem}; record the stream again")

    def __len__(self) -> int:
        return len(self.final_predictions)

    @property
    def agrees(self) -> NDArray[np.bool_]:
        """bool[N, S]: whether each ramp's prediction is the original model's."""
        agrees: NDArray[np.bool_] = self.predictions == self.final_predictions[:, None]
        return agrees

    def slice(self, start: int, stop: int) -> "Recording":
        """Rows ``start`` to ``stop`` (exclusive), within the recording."""
        start, stop = max(0, start), min(stop, len(self))
        parts = tuple(
            Part(name, max(first, start) - start)
            for (name, first), end in zip(self.parts, _ends(self), strict=True)
            if end > start and first < stop
        )
        return self._rows(np.arange(start, stop), parts)

    def reorder(self, order: NDArray[np.int64]) -> "Recording":
        """Rows in another order, or some of them, or some more than once; one part.

        Args:
            order: i64[n], rows of this recording.
        """
        if len(order) and not 0 <= order.min() <= order.max() < len(self):
            raise DataError(f"rows {order.min()}..{order.max()} of a recording of {len(self)} rows")
        return self._rows(order, (Part(self.workload, 0),))

    def with_criterion(self, criterion: str) -> "Recording":
        """The same stream, leaving by another score: thresholds are compared with that.

        Args:
            criterion: One of :data:`~apparate_jax.ramps.answer.CRITERIA`. Of held-out samples only
                the errors are kept, so they are left out with ``"entropy"``.

        Raises:
            DataError: Unknown, or not recorded.
        """
        if criterion not in CRITERIA:
            raise DataError(f"the criterion is {criterion!r}, expected one of {list(CRITERIA)}")
        if criterion == "error":
            return self
        if self.entropies is None:
            raise DataError("this recording has no entropies: record the stream again")
        return replace(self, errors=self.entropies, validation=None)

    def save(self, path: Path) -> None:
        """Write it as one ``.npz`` under exactly this name."""
        kept = {*_ARRAYS, "validation"}
        header = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in kept}
        text = json.dumps({"format": FORMAT, **header, "profile": asdict(self.profile)})
        arrays: dict[str, Any] = {name: getattr(self, name) for name in _ARRAYS}
        arrays = {name: array for name, array in arrays.items() if array is not None}
        if self.validation is not None:
            arrays |= {f"validation_{name}": getattr(self.validation, name) for name in _HELD_OUT}
        arrays[_HEADER] = np.frombuffer(text.encode(), np.uint8)
        with path.open("wb") as file:
            np.savez_compressed(file, **arrays)

    def _rows(self, rows: NDArray[np.int64], parts: tuple[Part, ...]) -> "Recording":
        if len(rows) == 0:
            raise DataError(f"no rows are left of a recording of {len(self)}: take some of them")
        optional: dict[str, Any] = {
            name: None if array is None else array[rows] for name, array in _optional(self).items()
        }
        return replace(
            self,
            errors=self.errors[rows],
            predictions=self.predictions[rows],
            final_predictions=self.final_predictions[rows],
            parts=parts,
            **optional,
        )


def load(path: Path) -> Recording:
    """Read a recording that :meth:`Recording.save` wrote.

    Raises:
        DataError: If the file is missing, damaged, or something else.
    """
    try:
        # Opened here: NumPy leaves a file open that turns out to be no archive.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        header = json.loads(arrays.pop(_HEADER).tobytes().decode())
        if header.pop("format") != FORMAT:
            raise ValueError(f"it is of another format than {FORMAT}")
        return _from_header(header, arrays)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError) as error:
        raise _unreadable(path, error) from error
    except (zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> DataError:
    what = f"it has no {error}" if isinstance(error, KeyError) else str(error)
    return DataError(
        f"{path} is no recording ({what}): make one with apparate bench record CKPT --data D"
    )


def _from_header(header: Mapping[str, Any], arrays: dict[str, NDArray[Any]]) -> Recording:
    names = ("site_names", "depths", "ramps", "ramp_bytes")
    listed: dict[str, Any] = {name: tuple(header[name]) for name in names}
    held_out = {n: arrays.pop(f"validation_{n}", None) for n in _HELD_OUT}
    if held_out["rows"] is not None:
        listed["validation"] = Validation(sites=listed["ramps"], **held_out)  # type: ignore[arg-type]
    return Recording(
        **{
            **header,
            **listed,
            **arrays,
            "parts": tuple(Part(name, first) for name, first in header["parts"]),
            "profile": profile_from_json(header["profile"]),
        }
    )


def concatenate(recordings: Sequence[Recording]) -> Recording:
    """One stream of several, one after the other: the workload shifts where they meet.

    The profile, and everything else about the device and the ramps, is the first one's.

    Raises:
        DataError: There are none, or they are of other models, sites or ramps.
    """
    if not recordings:
        raise DataError("no recordings were given, expected at least one")
    first = recordings[0]
    for other in recordings[1:]:
        for name in ("model", "site_names", "ramps"):
            if getattr(other, name) != getattr(first, name):
                raise DataError(
                    f"{other.workload} has {name} {getattr(other, name)}, but {first.workload} "
                    f"{getattr(first, name)}: record both with the same checkpoint"
                )
    starts = np.cumsum([0, *map(len, recordings)])[:-1].tolist()
    optional: dict[str, Any] = {
        name: _joined([getattr(r, name) for r in recordings]) for name in _OPTIONAL
    }
    return replace(
        first,
        workload=", ".join(r.workload for r in recordings),
        errors=np.concatenate([r.errors for r in recordings]),
        predictions=np.concatenate([r.predictions for r in recordings]),
        final_predictions=np.concatenate([r.final_predictions for r in recordings]),
        **optional,
        parts=tuple(
            Part(part.name, start + part.first)
            for r, start in zip(recordings, starts, strict=True)
            for part in r.parts
        ),
    )


def _optional(recording: Recording) -> dict[str, Any]:
    """The arrays that a recording may lack, by name."""
    return {name: getattr(recording, name) for name in _OPTIONAL}


def _joined(arrays: list[NDArray[Any] | None]) -> NDArray[Any] | None:
    """One after the other; None if one is missing."""
    there = [array for array in arrays if array is not None]
    return np.concatenate(there) if len(there) == len(arrays) else None


def _ends(recording: Recording) -> list[int]:
    """Where each part ends."""
    return [*(part.first for part in recording.parts[1:]), len(recording)]


def _problem(r: Recording) -> str | None:
    """What is wrong with a recording, if anything."""
    count, sites = len(r.final_predictions), len(r.site_names)
    wanted = {
        "errors": (np.float32, (count, len(r.ramps))),
        "predictions": (np.int32, (count, len(r.ramps))),
        "final_predictions": (np.int32, (count,)),
        "labels": (np.int32, (count,)),
        "entropies": (np.float32, (count, len(r.ramps))),
        "final_errors": (np.float32, (count,)),
    }
    wanted = {name: w for name, w in wanted.items() if getattr(r, name) is not None}
    for name, (dtype, shape) in wanted.items():
        array = getattr(r, name)
        if array.dtype != dtype or array.shape != shape:
            return f"{name} is {array.dtype}{list(array.shape)}, expected {dtype.__name__}{shape}"
    starts = [part.first for part in r.parts]
    inside = all(0 <= s < sites for s in (*r.ramps, *r.profile.sites))
    checks = {
        "it has no rows": count > 0,
        "its depths are not one per site": len(r.depths) == sites,
        "its ramps are not ascending sites": list(r.ramps) == sorted(set(r.ramps)) and inside,
        "its profile's active ramps are not among its ramps": {*r.profile.sites} <= {*r.ramps},
        "its held-out samples are not of its ramps": _of_these(r.validation, r.ramps),
        "its ramps' sizes are not one per ramp": len(r.ramp_bytes) in (0, len(r.ramps)),
        "its profile has no batch shapes": len(r.profile.shapes) > 0,
        "its parts do not begin with row 0 and ascend": starts[:1] == [0]
        and starts == sorted(set(starts))
        and starts[-1] < count,
        "its errors are not shares, 0..1": not ((r.errors < 0) | (r.errors > 1)).any(),
    }
    return next((what for what, sound in checks.items() if not sound), None)


def _of_these(held_out: Validation | None, ramps: tuple[int, ...]) -> bool:
    """Whether held-out samples, if there are any, are what these ramps said."""
    if held_out is None:
        return True
    shape = (len(held_out.labels), len(ramps))
    return held_out.sites == ramps and held_out.errors.shape == held_out.predictions.shape == shape
