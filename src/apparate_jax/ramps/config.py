"""Settings of ramp training: the only place of their defaults."""

from dataclasses import dataclass
from typing import Literal

from apparate_jax.errors import ConfigError
from apparate_jax.ramps.heads import HEAD_KINDS, HEAD_STYLES

AUTO = "auto"


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Settings of ramp training.

    Attributes:
        data_frac: Share of the data, from its start, that ramps are trained and validated on.
        validation_frac: Share of that part that is held out.
        split: Hold out samples at ``"random"``, or the ``"last"`` ones (streams).
        kind: Head kind of every ramp, or ``"auto"`` to follow the model's own pooling.
        style: Head style: ``"linear"``, or a small network, see
            :data:`apparate_jax.ramps.heads.HEAD_STYLES`.
        soft_targets: Train towards the original's probabilities instead of its label.
        learning_rate: Of AdamW.
        weight_decay: Of AdamW, on kernels.
        minibatch: Samples per step at most; an eighth of the training samples if that is less.
        max_epochs: Passes over the training samples at most.
        patience: Epochs in which no ramp improves before training ends.
        batch_size: Samples per pass of the frozen model.
        min_samples: Fewer samples than this are refused.
        max_cache_bytes: Memory for pooled features at most.
        cache_dir: Keep pooled features in a file below this directory instead of in memory.
        seed: Of the split and the order of samples.
    """

    data_frac: float = 0.1
    validation_frac: float = 0.2
    split: Literal["random", "last"] = "random"
    kind: str = AUTO
    style: str = "linear"
    soft_targets: bool = True
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    minibatch: int = 128
    max_epochs: int = 100
    patience: int = 8
    batch_size: int = 8
    min_samples: int = 50
    max_cache_bytes: int = 4 * 2**30
    cache_dir: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0.0 < self.data_frac <= 1.0:
            raise ConfigError(f"data_frac is {self.data_frac}, expected above 0 and at most 1")
        if not 0.0 < self.validation_frac < 1.0:
            raise ConfigError(f"validation_frac is {self.validation_frac}, expected within 0..1")
        if self.split not in ("random", "last"):
            raise ConfigError(f"split is {self.split!r}, expected 'random' or 'last'")
        if self.kind != AUTO and self.kind not in HEAD_KINDS:
            raise ConfigError(
                f"kind is {self.kind!r}, expected {AUTO!r} or one of {list(HEAD_KINDS)}"
            )
        if self.style not in HEAD_STYLES:
            raise ConfigError(f"style is {self.style!r}, expected one of {list(HEAD_STYLES)}")
        if not self.learning_rate > 0.0 or not self.weight_decay >= 0.0:
            raise ConfigError(
                f"learning_rate is {self.learning_rate} and weight_decay {self.weight_decay}, "
                "expected above 0 and at least 0"
            )
        for name in ("minibatch", "max_epochs", "patience", "batch_size", "max_cache_bytes"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected at least 1")
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}, expected at least 0")
        if self.min_samples < 2:
            raise ConfigError(f"min_samples is {self.min_samples}, expected at least 2")
