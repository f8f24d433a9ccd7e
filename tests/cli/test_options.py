"""What is typed becomes the library's configuration, whose defaults are the only ones."""

import pytest

from apparate_cli import options
from apparate_jax.errors import ConfigError
from apparate_jax.serve.service import ServiceConfig


def test_sizes_in_any_order():
    assert options.parse_sizes("8, 1,4") == (1, 4, 8)
    assert options.parse_sizes(options.BATCH_SIZES) == ServiceConfig().batch_sizes


@pytest.mark.parametrize("text", ["", ",", "1,", "a", "1;2", "0", "-1,2", "4,4", "1e3"])
def test_sizes_that_are_none(text):
    with pytest.raises(ConfigError, match="batch sizes are"):
        options.parse_sizes(text)


def test_the_defaults_are_the_librarys():
    made = options.service_config(
        options.CONTROL.accuracy,
        options.PLACEMENT.ramp_budget,
        options.BATCH_SIZES,
        options.CONTROL.method,
    )
    assert made == ServiceConfig()


def test_what_is_typed_arrives():
    made = options.service_config(0.95, 0.5, "2", "greedy")
    assert made.control.accuracy == 0.95 and made.control.method == "greedy"
    assert made.placement.ramp_budget == 0.5 and made.batch_sizes == (2,)
