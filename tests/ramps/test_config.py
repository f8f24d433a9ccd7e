from dataclasses import fields

import pytest

from apparate_jax.errors import ConfigError
from apparate_jax.ramps.config import TrainConfig


@pytest.mark.parametrize(
    "wrong",
    [
        {"data_frac": 0.0},
        {"data_frac": 1.5},
        {"data_frac": float("nan")},
        {"validation_frac": 1.0},
        {"validation_frac": 0.0},
        {"split": "middle"},
        {"kind": "median"},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"weight_decay": -1.0},
        {"minibatch": 0},
        {"max_epochs": 0},
        {"patience": 0},
        {"batch_size": 0},
        {"max_cache_bytes": 0},
        {"min_samples": 1},
    ],
)
def test_settings_out_of_range_are_named(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        TrainConfig(**wrong)


def test_the_docstring_lists_every_setting():
    for field in fields(TrainConfig):
        assert f"    {field.name}: " in TrainConfig.__doc__
