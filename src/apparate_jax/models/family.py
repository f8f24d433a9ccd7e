"""What a family of models is to the rest: a configuration, a builder, and where its weights stand.

A family (BERT, ResNet, ...) is one module with its network and one :class:`Family` value. Reading a
Hugging Face directory, a PyTorch state dict or a name of the zoo is the same for all of them and
written once, over these values.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from apparate_jax.core import Model
from apparate_jax.errors import ModelError, WeightsError
from apparate_jax.models import safetensors

Tensors = Mapping[str, Any]
"""Arrays by their published names."""

Settings = Mapping[str, Any]
"""Fields of a family's configuration."""


class Tensor(NamedTuple):
    """Where one of our parameters stands in a published file.

    Attributes:
        name: Its name there.
        layout: ``"same"``, ``"dense"`` (stored ``[out, in]``, ours ``[in, out]``) or ``"conv"``
            (stored ``[out, in, height, width]``, ours ``[height, width, in, out]``).
    """

    name: str
    layout: Literal["same", "dense", "conv"] = "same"

    def ours(self, stored: Any) -> Any:
        """A stored array in our layout."""
        return stored.transpose(_OURS[self.layout]) if self.layout != "same" else stored

    def stored_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape in the file of a parameter that is ``shape`` here."""
        if self.layout == "same":
            return shape
        order = _OURS[self.layout]
        return tuple(shape[order.index(axis)] for axis in range(len(shape)))


_OURS = {"dense": (1, 0), "conv": (2, 3, 1, 0)}


def _unchanged(tensors: Tensors) -> dict[str, Any]:
    return dict(tensors)


def _nothing(raw: Settings) -> dict[str, Any]:
    raise ModelError(f"a model_type of {raw.get('model_type')!r} has no configuration file")


@dataclass(frozen=True, slots=True)
class Family:
    """One family of models.

    Attributes:
        kind: Its name in :attr:`apparate_jax.core.Model.source`.
        config: Frozen dataclass of JSON values with ``num_labels`` and ``dtype`` among its fields.
        build: ``build(config, seed)``: a model with random weights, or, for seed None, one whose
            parameters are shapes only. Parameters are a dictionary from path to array.
        tensors: Path of each parameter to where it stands in a published file.
        head: Published name of the classifier's weight, whose rows are the classes.
        canonical: Tensors of a file under the names that ``tensors`` uses (older names, other
            libraries' names, a missing prefix).
        read_config: Settings from a Hugging Face ``config.json``.
        model_types: Values of ``model_type`` that are of this family.
        ignored: Endings of published names that may be there without being wanted.
        zoo: Settings by the names that people type.
    """

    kind: str
    config: type[Any]
    build: Callable[[Any, int | None], Model]
    tensors: Callable[[Any], Mapping[str, Tensor]]
    head: str
    canonical: Callable[[Tensors], dict[str, Any]] = _unchanged
    read_config: Callable[[Settings], dict[str, Any]] = _nothing
    model_types: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    zoo: Mapping[str, Settings] = field(default_factory=dict)

    def configure(self, settings: Settings) -> Any:
        """The configuration with these settings.

        Raises:
            ModelError: Unknown settings (lists the known ones), or values that do not fit.
        """
        known = {f.name: f.default for f in fields(self.config)}
        unknown = sorted(set(settings) - set(known))
        if unknown:
            raise ModelError(f"unknown settings {unknown}, expected some of {sorted(known)}")
        return self.config(**{k: _setting(k, v, known[k]) for k, v in settings.items()})

    @property
    def takes_images(self) -> bool:
        """Whether its input is a picture."""
        return "image_size" in {f.name for f in fields(self.config)}

    def make(self, config: Any, seed: int | None = None, **facts: Any) -> Model:
        """A model that knows how it was made.

        Args:
            config: Of :attr:`config`.
            seed: Of random weights; without one the parameters are shapes only.
            **facts: Further JSON values for its source.
        """
        described = {f.name: getattr(config, f.name) for f in fields(config)}
        source = {"kind": self.kind, "config": described, **facts}
        return replace(self.build(config, seed), source=source)

    def with_classes(self, settings: Settings, tensors: Tensors, where: Path) -> dict[str, Any]:
        """Settings with the number of classes that the weights have.

        Raises:
            WeightsError: The weights hold no classifier.
            ModelError: The settings name another number of classes.
        """
        if self.head not in tensors:
            raise WeightsError(
                f"{where} holds a backbone without {self.head}: give a model that was fine-tuned "
                "for classification, or an adapter directory on top of this one"
            )
        rows = int(tensors[self.head].shape[0])
        asked = settings.get("num_labels", rows)
        if asked != rows:
            raise ModelError(
                f"{asked} labels were asked for or configured, but {self.head} in {where} has "
                f"{rows} rows: set num_labels (--classes) or id2label to match"
            )
        return {**settings, "num_labels": rows}

    def stored_shapes(self, config: Any, model: Model) -> dict[str, tuple[int, ...]]:
        """Names and shapes that the model's parameters have in a published file."""
        return {
            tensor.name: tensor.stored_shape(model.params[path].shape)
            for path, tensor in self.tensors(config).items()
        }

    def load(self, config: Any, tensors: Tensors, where: Path) -> Model:
        """A model with published weights.

        Args:
            config: Of :attr:`config`.
            tensors: Arrays under their canonical names.
            where: Where they come from, for messages.

        Raises:
            WeightsError: Lists what is missing, unexpected or of another shape.
        """
        model = self.make(config)
        names = self.tensors(config)
        safetensors.check(self.stored_shapes(config, model), tensors, where, self.ignored)
        # NumPy's transposes are views; JAX's would be a compilation per shape.
        params: dict[str, jax.Array] = {
            path: jnp.asarray(
                tensor.ours(np.asarray(tensors[tensor.name])), model.params[path].dtype
            )
            for path, tensor in names.items()
        }
        return replace(model, params=params)


def _setting(name: str, value: Any, default: Any) -> Any:
    """A value as the configuration has it, from JSON or from what was typed."""
    if isinstance(value, list):
        return tuple(value)
    if type(default) is int and type(value) is not int:
        if isinstance(value, str) and value.isdecimal():
            return int(value)
        raise ModelError(f"{name} is {value!r}, expected a whole number")
    return value


def dense(ours: str, theirs: str, *, bias: bool = True) -> dict[str, Tensor]:
    """A dense layer: ``nnx.Linear`` here, ``Linear`` in PyTorch."""
    return _layer(ours, theirs, "dense", bias)


def conv(ours: str, theirs: str, *, bias: bool = True) -> dict[str, Tensor]:
    """A convolution (depthwise ones too): ``nnx.Conv`` here, ``Conv2d`` in PyTorch."""
    return _layer(ours, theirs, "conv", bias)


def _layer(
    ours: str, theirs: str, layout: Literal["dense", "conv"], bias: bool
) -> dict[str, Tensor]:
    names = {f"{ours}/kernel": Tensor(f"{theirs}.weight", layout)}
    return names | ({f"{ours}/bias": Tensor(f"{theirs}.bias")} if bias else {})


def norm(ours: str, theirs: str) -> dict[str, Tensor]:
    """A layer norm: ``nnx.LayerNorm`` here, ``LayerNorm`` in PyTorch."""
    return {f"{ours}/scale": Tensor(f"{theirs}.weight"), f"{ours}/bias": Tensor(f"{theirs}.bias")}


def batch_norm(ours: str, theirs: str) -> dict[str, Tensor]:
    """A batch norm with its running statistics: ``nnx.BatchNorm`` here, ``BatchNorm2d`` there."""
    return norm(ours, theirs) | {
        f"{ours}/mean": Tensor(f"{theirs}.running_mean"),
        f"{ours}/var": Tensor(f"{theirs}.running_var"),
    }
