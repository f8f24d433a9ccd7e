"""Models from a PyTorch state dict: the architecture is found by its tensors' names and shapes.

A file of ``torch.save`` (``.pth``, ``.pt``, ``.bin``; :mod:`apparate_jax.models.torch_file`) or one
of safetensors says nothing of the model but its tensors. Every architecture of the zoo is compared
with them: the one that wants exactly these names and shapes is it. The number of classes is that of
the classifier's rows.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from apparate_jax.core import Model
from apparate_jax.errors import ModelError, WeightsError
from apparate_jax.models import safetensors
from apparate_jax.models.families import FAMILIES
from apparate_jax.models.family import Family, Settings
from apparate_jax.models.torch_file import read_torch
from apparate_jax.models.zoo import unknown_model, zoo_names

SUFFIXES = (".pth", ".pt", ".bin", ".safetensors")
"""Endings of the files that this module reads."""

_WRAPPERS = ("module.", "_orig_mod.")
"""What ``DataParallel`` and ``torch.compile`` put before every name."""


class Candidate(NamedTuple):
    """An architecture of the zoo beside the tensors of a file.

    Attributes:
        name: In the zoo.
        family: Its family.
        settings: Its settings, those that were asked for included.
        tensors: The file's, under the family's names.
        differences: Share of the names of both that only one of them has.
    """

    name: str
    family: Family
    settings: Settings
    tensors: Mapping[str, Any]
    differences: float


def from_state_dict(
    path: str | Path,
    *,
    architecture: str | None = None,
    classes: int | None = None,
    **changes: Any,
) -> Model:
    """A classifier with the weights of a state dict.

    Args:
        path: A ``.pth``, ``.pt``, ``.bin`` or ``.safetensors`` file.
        architecture: Name of the zoo; found by the tensors unless given.
        classes: How many classes it must have; as many as its weights have unless given.
        **changes: Fields of the configuration, e.g. ``image_size=160`` or ``dtype="bfloat16"``.

    Raises:
        ModelError: An unknown architecture or setting, or another number of classes.
        WeightsError: A file that cannot be read, or that fits no architecture: says which one is
            closest and what differs.
    """
    where = Path(path)
    read = safetensors.read_tensors if where.suffix == ".safetensors" else read_torch
    tensors = _unwrapped(read(where))
    if architecture is not None and architecture not in zoo_names():
        raise unknown_model(architecture)
    asked = changes if classes is None else {**changes, "num_labels": classes}
    chosen = _closest(list(_candidates(tensors, architecture, asked)))
    if not chosen:
        raise ModelError(f"no architecture of the zoo has the settings {sorted(asked)}")
    return _load(chosen, where, named=architecture is not None)


def _load(chosen: list[Candidate], where: Path, *, named: bool) -> Model:
    """The model of the candidate that fits.

    Raises:
        ModelError: None does: what differs from the one that is closest.
    """
    failures: list[tuple[int, str, ModelError]] = []
    for candidate in chosen:
        family, settings, tensors = candidate.family, candidate.settings, candidate.tensors
        try:
            if family.head in tensors:
                settings = family.with_classes(settings, tensors, where)
            model = family.load(family.configure(settings), tensors, where)
            return replace(model, name=where.stem)
        except ModelError as error:
            failures.append((_wrong_shapes(candidate), candidate.name, error))
    _, name, closest = min(failures, key=lambda failure: failure[0])
    if named or not isinstance(closest, WeightsError):
        raise closest
    raise WeightsError(
        f"no architecture of the zoo fits; the closest is {name!r}: {closest}. Name another one "
        f"with architecture (--architecture), one of {', '.join(zoo_names())}"
    ) from closest


def _wrong_shapes(candidate: Candidate) -> int:
    config = candidate.family.configure(candidate.settings)
    wanted = candidate.family.stored_shapes(config, candidate.family.make(config))
    return len(safetensors.differences(wanted, candidate.tensors, candidate.family.ignored))


def _unwrapped(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Tensors without what every name starts with when a model was wrapped."""
    found = dict(tensors)
    for _ in _WRAPPERS:
        for wrapper in _WRAPPERS:
            if all(name.startswith(wrapper) for name in found):
                found = {name.removeprefix(wrapper): value for name, value in found.items()}
    return found


def _candidates(
    tensors: Mapping[str, Any], architecture: str | None, asked: Settings
) -> Iterator[Candidate]:
    for family in FAMILIES.values():
        for name, sizes in family.zoo.items():
            if architecture not in (None, name):
                continue
            settings = {k: v for k, v in sizes.items() if k != "num_labels"} | dict(asked)
            try:
                config = family.configure(settings)
                found = family.canonical(tensors)
            except ModelError:
                if architecture is not None:
                    raise
                continue  # settings of other families
            wanted = {tensor.name for tensor in family.tensors(config).values()}
            here = {n for n in found if n in wanted or not n.endswith(family.ignored)}
            differences = len(wanted ^ here) / len(wanted | here)
            yield Candidate(name, family, settings, found, differences)


def _closest(candidates: list[Candidate]) -> list[Candidate]:
    """Those whose names differ the least."""
    least = min((c.differences for c in candidates), default=0.0)
    return [c for c in candidates if c.differences == least]
